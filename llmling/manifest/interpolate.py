"""Variables of the environment in values, and the plain data that pydantic validates."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from llmling.manifest.base import Located, LocatedMapping
from llmling.manifest.nodes import AliasNode, MappingNode, Node, ScalarNode, SequenceNode, core_value
from llmling.manifest.problems import Place, Report, did_you_mean

_VARIABLE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<body>[^}]*)(?P<close>\}?)")
_NAME = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-.*)?\Z", re.DOTALL)


class Values:
    """Turns nodes into plain data, once per node; `env` is where `${VAR}` is looked up, None leaves it as it is."""

    def __init__(self, env: Mapping[str, str] | None, report: Report) -> None:
        self._env = env
        self._report = report
        self._done: dict[int, Any] = {}
        # Inside an `x-` key a missing variable only counts when the mapping turns out to be free, such as `headers`.
        self._owner: Node | None = None
        self._held: list[tuple[Node, Place, str, str, str]] = []

    def plain(self, node: Node) -> Any:
        """Return what a node stands for: mappings know their node, texts of included files their folder."""
        if isinstance(node, AliasNode):
            return self.plain(node.target)
        if isinstance(node, ScalarNode):
            return self.scalar(node)
        if (done := self._done.get(id(node))) is not None:
            return done
        if isinstance(node, MappingNode):
            items: dict[str, Any] = {}
            for key, entry in node.entries.items():
                if key.startswith("x-"):
                    with self._noted(node):
                        items[key] = self.plain(entry.node)
                else:
                    items[key] = self.plain(entry.node)
            result: Any = LocatedMapping(items, node)
        else:
            assert isinstance(node, SequenceNode)  # noqa: S101
            result = [self.plain(item) for item in node.items]
        if self._owner is None:
            self._done[id(node)] = result
        return result

    def scalar(self, node: ScalarNode) -> Any:
        """Return the value of a scalar with its variables filled in; what came from a variable is always text."""
        if not node.ready:
            text = node.text if self._env is None or "${" not in node.text else self._expand(node, self._env)
            value = core_value(text) if node.plain and text is node.text else text
            filled = text is not node.text
            if isinstance(value, str) and (node.source.prefix or filled):
                value = Located(value, node.source.prefix, filled=filled)
            node.value = value
            # A note is looked at again where an alias uses it for real.
            node.ready = self._owner is None
        return node.value

    def release(self, noted: set[int]) -> None:
        """Report what was held back, but for the mappings whose `x-` keys are notes."""
        for owner, place, code, message, hint in self._held:
            if id(owner) not in noted:
                self._report.add(place, code, message, hint=hint)
        self._held.clear()

    @contextmanager
    def _noted(self, owner: Node) -> Generator[None]:
        outer, self._owner = self._owner, self._owner or owner
        try:
            yield
        finally:
            self._owner = outer

    def _expand(self, node: ScalarNode, env: Mapping[str, str]) -> str:
        names: list[str] = []

        def fill(match: re.Match[str]) -> str:
            if match["escaped"]:
                return "${"
            body, shown = match["body"], match.group()
            parsed = _NAME.match(body)
            if parsed is None or not match["close"]:
                self._problem(
                    node,
                    shown,
                    "LL112",
                    f"{shown} names no variable",
                    "write ${NAME} or ${NAME:-default}, or $${ for a literal ${",
                )
                return shown
            name, fallback = parsed["name"], parsed["fallback"]
            value = env.get(name)
            if fallback is not None and not value:
                return fallback[2:]
            if value is None:
                near = did_you_mean(name, env)
                self._problem(
                    node,
                    shown,
                    "LL111",
                    f"environment variable {name} is not set",
                    near or f"set it, or write ${{{name}:-default}}",
                )
                return shown
            names.append(name)
            if value:
                self._report.secrets.setdefault(value, f"${{{name}}}")
            return value

        text = _VARIABLE.sub(fill, node.text)
        node.variables = tuple(names)
        return text

    def _problem(self, node: ScalarNode, shown: str, code: str, message: str, hint: str) -> None:
        place = node.inner(1, shown)
        if self._owner is None:
            self._report.add(place, code, message, hint=hint)
        else:
            self._held.append((self._owner, place, code, message, hint))
