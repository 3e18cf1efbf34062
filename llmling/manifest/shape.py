"""The shape of one part of a manifest: pydantic's errors become one clear problem each, at the exact place."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from llmling import plugins, templates
from llmling.manifest.base import Keys
from llmling.manifest.budgets import LIMITS
from llmling.manifest.interpolate import Values
from llmling.manifest.keys import TYPE_HINTS, advice, fields_of, suggested
from llmling.manifest.nodes import (
    Entry,
    Found,
    Loc,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    find,
    followed,
    paths,
)
from llmling.manifest.problems import Place, Report, did_you_mean, label, nearest
from llmling.manifest.repairs import repair
from llmling.manifest.triggers import AuthConfig

_KINDS: Mapping[str, plugins.Kind] = {
    "model": "models", "models": "models", "tools": "tools", "mcp_servers": "mcp_servers", "knowledge": "knowledge",
    "triggers": "triggers", "sinks": "sinks", "engine": "engines",
}  # fmt: skip
_AUTHS: Mapping[str, type[BaseModel]] = {
    kind.model_fields["type"].default: kind for kind in get_args(get_args(AuthConfig)[0])
}
_WRONG = {
    "string_type": "text",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "number_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping", "model_type": "a mapping", "model_attributes_type": "a mapping",
    "mapping_type": "a mapping",
    "import_path": "written module:name, such as my_module:word_count",
    "text_or_mapping": "a text or a mapping", "instructions": "a text, a list of texts or a mapping",
    "server": "a mapping, or false for no server",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le"),
}  # fmt: skip
_PATTERNS = {
    "^[A-Za-z0-9_.:%-]+$": "should be an address or a host name",
    "^https?://": "should start with http:// or https://",
    r"^/[^\s?#{}*]*$": "should start with / and hold no space, parameter, wildcard, ? or #",
    "^[A-Za-z0-9_.-]{0,64}$": "may hold up to 64 letters, digits, and . _ -",
    "^[A-Za-z0-9_-]{1,64}$": "may hold 1 to 64 letters, digits, and _ -",
}
_CUSTOM = {
    "template": "LL208", "expression": "LL209", "cron": "LL210", "timezone": "LL211",
    "wire": "LL204", "path": "LL204", "prompt_argument": "LL201",
    "unauthenticated": "LL213", "schedule": "LL212", "schedule_prompt": "LL212",
    "schedule_subject": "LL212", "sink_path": "LL212", "budget": "LL212", "address": "LL204",
}  # fmt: skip


@dataclass(slots=True)
class Part:
    """A valid part, what it was made from, and its path in the manifest.

    When the part as written had mistakes, `node` and `config` are what is left without them.
    """

    config: Any
    node: Node
    loc: Loc


class Shapes:
    """Validates parts one by one, so that a mistake in one of them hides none in another."""

    def __init__(self, report: Report, values: Values, hidden: int = 0) -> None:
        self._report = report
        self._values = values
        # How many leading keys people did not write: those around the only agent of a file.
        self._hidden = hidden

    def where(self, loc: Loc) -> str:
        """Return a path as people wrote it."""
        return label(loc[self._hidden :])

    def validate(self, adapter: TypeAdapter[Any], entry: Entry, loc: Loc, *, partial: bool = False) -> Part | None:
        """Validate a part and report its mistakes; `partial` does without required keys, as `defaults` may."""
        keys, node = Keys(), entry.node
        config: Any = None
        try:
            config = adapter.validate_python(self._values.plain(node), context=keys)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            meant = _meant(keys)
            for detail in errors:
                if not (partial and detail["type"] in {"missing", "union_tag_not_found", *_CUSTOM_RULES}):
                    _Translation(self, detail, entry, loc, meant).report(self._report)
            kept = _pruned(node, [detail["loc"] for detail in errors])
            if kept is not None:
                node = kept
                config = self._salvage(adapter, node)
        self._values.release(keys.noted)
        self._unknown(keys, entry, loc)
        return None if config is None else Part(config, node, loc)

    def _salvage(self, adapter: TypeAdapter[Any], node: Node) -> Any:
        try:
            return adapter.validate_python(self._values.plain(node), context=Keys())
        except ValidationError:
            return None

    def _unknown(self, keys: Keys, entry: Entry, loc: Loc) -> None:
        if not keys.unknown:
            return
        ways = paths(entry.node)
        seen: dict[tuple[int, str], int] = {}
        for config, owner, name in keys.unknown:
            known = ways.get(id(owner))
            if known is None:
                continue
            turn = seen[id(owner), name] = seen.get((id(owner), name), -1) + 1
            way = known[min(turn, len(known) - 1)]
            self.unknown_key(config, find(entry.node, (*way, name)), name, (*loc, *way))

    def unknown_key(self, config: type[BaseModel] | str, found: Found, name: str, loc: Loc) -> None:
        """Report a key that a config does not have, with what to write instead."""
        fields = frozenset[str]() if isinstance(config, str) else fields_of(config)
        self.unknown_among(config, found, name, loc, fields)

    def unknown_among(
        self, config: type[BaseModel] | str, found: Found, name: str, loc: Loc, fields: frozenset[str]
    ) -> None:
        """Report an unknown key whose neighbours are `fields`."""
        place = found.key.place if found.key is not None else found.node.place
        hint = advice(config, name, fields)
        self._report.add(place, "LL201", f'unknown key "{name}"', where=self.where(loc), hint=hint, uses=found.uses)


# Rules about several keys, with those that would satisfy them.
_WANTED: Mapping[str, tuple[str, ...]] = {
    "schedule": ("cron", "every_s"),
    "schedule_prompt": ("prompt",),
    "unauthenticated": ("auth", "allow_unauthenticated", "token"),
    "prompt_argument": (),
    "schedule_subject": (),
    "budget": LIMITS,
}
_CUSTOM_RULES = frozenset(_WANTED)


def _meant(keys: Keys) -> frozenset[tuple[int, str]]:
    """Return by mapping the keys that unknown ones were meant to be."""
    return frozenset(
        (id(owner), near)
        for config, owner, name in keys.unknown
        for near in (nearest(name, fields_of(config)), *suggested(config, name))
        if near
    )


class _Translation:
    """One error of pydantic, told as a person would."""

    def __init__(
        self, shapes: Shapes, detail: ErrorDetails, entry: Entry, loc: Loc, meant: frozenset[tuple[int, str]]
    ) -> None:
        self._meant = meant
        self._type = detail["type"]
        self._text = detail["msg"]
        self._context: dict[str, Any] = detail.get("ctx", {})
        self._loc = detail["loc"]
        self._found = find(entry.node, detail["loc"], entry.key, branches=True)
        if entry.via is not None:
            self._found.uses = (entry.via, *self._found.uses)
        self._path = (*loc, *self._found.path)
        self._shapes = shapes
        self._place: Place = self._found.value_place
        self._code = "LL204"
        self._hint = ""
        self._sentence = False

    def report(self, report: Report) -> None:
        """Add the problem to the report, unless it only follows from one that is there already."""
        if self._found.node.broken or self._follows():
            return
        owner = self._path if self._found.rest else self._path[:-1]
        if self._type in {"union_tag_invalid", "union_tag_not_found"}:
            message, owner = self._branch()
        elif self._type in {"missing", "extra_forbidden"}:
            message, owner = self._presence()
        elif self._type in _CUSTOM or self._type == "value_error":
            message = self._rule().removesuffix(".")
            self._sentence = True
            if self._type in _CUSTOM_RULES:
                owner = self._path
        else:
            message = f'"{self._name()}" {self._expectation()}'
        where = self._shapes.where(owner)
        if where and self._sentence:
            where = f"({where})"
        report.add(self._place, self._code, message, where=where, hint=self._hint, uses=self._found.uses)

    def _follows(self) -> bool:
        """Tell whether the missing key is there, but misspelt."""
        if self._type == "missing":
            wanted = (str(self._loc[-1]),) if self._loc else ()
        else:
            wanted = _WANTED.get(self._type, ())
        return any((id(self._found.node), name) in self._meant for name in wanted)

    def _name(self) -> str:
        path = self._path
        if path and isinstance(path[-1], int):
            return label(path[-2:])
        return str(path[-1]) if path else ""

    def _presence(self) -> tuple[str, Loc]:
        name = str(self._loc[-1]) if self._loc else ""
        if self._type == "missing":
            self._place, self._code = self._found.key_place, "LL202"
            owner = self._path if self._found.rest else self._path[:-1]
            return f'missing key "{name}"', owner if isinstance(self._found.node, MappingNode) else self._path
        self._code = "LL201"
        if self._found.key is not None:
            self._place = self._found.key.place
        return f'unknown key "{name}"', self._path[:-1]

    def _branch(self) -> tuple[str, Loc]:
        names, configs = self._branches()
        node = self._found.node
        self._code = "LL205"
        entry = node.entries.get("type") if isinstance(node, MappingNode) else None
        if entry is None:
            self._place = self._found.key_place
            keys = node.entries if isinstance(node, MappingNode) else {}
            for name, item in keys.items():
                if did_you_mean(name, ["type"]):
                    self._code, self._place, self._hint = "LL201", item.key.place, 'did you mean "type"?'
                    return f'unknown key "{name}"', self._path
            guess = max(configs, key=lambda name: len(keys.keys() & fields_of(configs[name])), default="")
            if guess and keys.keys() & fields_of(configs[guess]):
                self._hint = f"did you mean `type: {guess}`?"
            else:
                self._hint = f"write one of {', '.join(names)}"
            return 'missing key "type"', self._path
        found = find(node, ("type",))
        self._place, self._found.uses = found.value_place, (*self._found.uses, *found.uses)
        shown = found.node.text if isinstance(found.node, ScalarNode) else ""
        kinds = TYPE_HINTS.get(self._kind(), {})
        self._hint = kinds.get(shown) or did_you_mean(shown, names) or f"write one of {', '.join(names)}"
        return f'unknown type "{shown}"', self._path

    def _kind(self) -> str:
        for part in reversed(self._path):
            if isinstance(part, str) and (part in _KINDS or part == "auth"):
                return part
        return ""

    def _branches(self) -> tuple[tuple[str, ...], dict[str, type[BaseModel]]]:
        kind = _KINDS.get(self._kind())
        if kind is None:
            return tuple(_AUTHS), dict(_AUTHS)
        return plugins.types(kind), {name: _built_in(path.config) for name, path in plugins.TABLE[kind].items()}

    def _rule(self) -> str:
        node = self._found.node
        if self._type == "value_error":
            self._code = "LL212"
            return str(self._context.get("error", self._text))
        self._code = _CUSTOM[self._type]
        if self._type in _CUSTOM_RULES:
            at = find(node, (str(self._context.get("at", "")),))
            self._place = self._found.key_place if at.rest else at.value_place
        elif isinstance(node, ScalarNode):
            if "line" in self._context:
                self._place = node.inner(_line(node, self._type, self._context["line"]))
            if node.variables and self._type in {"template", "expression"}:
                # The reason would quote pieces of what the variable holds.
                return f"invalid {self._type} once {', '.join(node.variables)} is filled in"
        return self._text

    def _expectation(self) -> str:
        kind, node, context = self._type, self._found.node, self._context
        if kind in _WRONG:
            self._code = "LL203"
            self._hint = repair(kind, self._name(), node)
            return f"should be {_WRONG[kind]}"
        if kind in _BOUNDS:
            word, name = _BOUNDS[kind]
            return f"should be {word} {context[name]:g}"
        if kind == "literal_error":
            choices = [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")]
            shown = node.text if isinstance(node, ScalarNode) else ""
            self._hint = did_you_mean(shown, choices)
            return f"should be one of {', '.join(choices)}" if len(choices) > 1 else f"should be {choices[0]}"
        if kind == "too_short":
            return f"needs at least {context['min_length']} entry"
        if kind == "string_too_short":
            return "should not be empty"
        if kind == "string_pattern_mismatch":
            return _PATTERNS.get(context["pattern"], f"should match {context['pattern']}")
        return self._text[:1].lower() + self._text[1:]


def _line(node: ScalarNode, kind: str, line: int) -> int:
    """Return the line of a block scalar at which its template is invalid; a folded text has lost its lines."""
    if node.style == ">":
        try:
            templates.check(node.lines) if kind == "template" else templates.expression(node.lines)
        except templates.TemplateInvalid as error:
            return error.line
    return line


def _pruned(node: Node, locs: list[Loc]) -> Node | None:
    """Return the part without the keys and entries that have mistakes, or None when it cannot do without."""
    node = followed(node)
    if not isinstance(node, MappingNode):
        return None
    dropped: dict[str, set[int] | None] = {}
    for loc in locs:
        index = next((index for index, part in enumerate(loc) if part in node.entries), None)
        if index is None:
            return None
        name, inside = str(loc[index]), loc[index + 1] if index + 1 < len(loc) else None
        if isinstance(inside, int) and dropped.get(name, ()) is not None:
            items = dropped.setdefault(name, set())
            if items is not None:
                items.add(inside)
        else:
            dropped[name] = None
    entries = {name: entry for name, entry in node.entries.items() if name not in dropped}
    for name, indexes in dropped.items():
        old = followed(node.entries[name].node)
        if indexes is not None and isinstance(old, SequenceNode):
            numbers = [index for index in range(len(old.items)) if index not in indexes]
            kept = SequenceNode(old.source, old.start, old.end, [old.items[index] for index in numbers])
            kept.numbers = numbers
            entries[name] = Entry(node.entries[name].key, kept, node.entries[name].via)
    return node.like(entries)


@functools.cache
def _built_in(path: str) -> type[BaseModel]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
