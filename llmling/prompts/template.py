"""What every reasoning template does: from named arguments and a depth to a finished prompt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, cast

from llmling.manifest.prompts import DEPTHS, TEMPLATES, Depth, TemplateSpec
from llmling.prompts.context import Context
from llmling.prompts.parts import Constraints, Guidance

Material: TypeAlias = str | Sequence[str]
"""A text, or several that become a list."""

_WORDS: Mapping[Depth, int] = {"quick": 200, "standard": 500, "thorough": 1000, "comprehensive": 2000}


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done at a depth, in addition to the depths before it; `closing` comes last at every depth."""

    quick: Sequence[str]
    standard: Sequence[str]
    thorough: Sequence[str]
    comprehensive: Sequence[str]
    closing: str

    def down_to(self, depth: Depth) -> list[str]:
        """Return the steps of a depth in their order."""
        levels = (self.quick, self.standard, self.thorough, self.comprehensive)
        return [*(step for level in levels[: DEPTHS.index(depth) + 1] for step in level), self.closing]


class ReasoningTemplate:
    """A way to think about something, written down once.

    A template has a role and rules (`guidance`), a `task`, the `steps` that each depth adds to those of the depth
    before, and what the answer keeps to (`constraints`; its length follows the depth). `build_context` of each
    template takes the thing it is about and further material by name.
    """

    guidance: ClassVar[Guidance]
    task: ClassVar[str]
    steps: ClassVar[Steps]
    constraints: ClassVar[Constraints]

    @property
    def spec(self) -> TemplateSpec:
        """Which arguments it takes."""
        return TEMPLATES[type(self).__name__]

    def limits(self, depth: Depth) -> Constraints:
        """Return the constraints at a depth."""
        return replace(self.constraints, max_words=_WORDS[depth])

    def build(self, arguments: Mapping[str, Any]) -> Context:
        """Build the prompt of these arguments; `build_context` does so with names a type checker knows.

        Raises:
            TypeError: An argument is missing, unknown or of the wrong type.
            ValueError: There is no such depth, or what the template is about is empty.
        """
        given = self._checked(arguments)
        depth: Depth = arguments.get("depth", "standard")
        blocks = [
            self.task,
            *(f"<{name}>\n{{{{ {name} }}}}\n</{name}>" for name in given),
            "Go through these steps in order and let the answer show what each one found:",
            "\n".join(f"{number}. {step}" for number, step in enumerate(self.steps.down_to(depth), 1)),
        ]
        return Context(
            guidance=self.guidance,
            directive="\n\n".join(blocks),
            constraints=self.limits(depth),
            variables=given,
            name=type(self).__name__,
        )

    def _checked(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        spec, where = self.spec, f"{type(self).__name__}.build_context()"
        names = (spec.subject, *spec.more)
        unknown = [name for name in arguments if name not in (*names, "depth")]
        if unknown:
            hint = _near(unknown[0], (*names, "depth")) or f"; it takes {', '.join((*names, 'depth'))}"
            raise TypeError(f"{where} has no argument {unknown[0]!r}{hint}")
        if spec.subject not in arguments:
            raise TypeError(f"{where} needs the argument {spec.subject!r}: {spec.about}")
        depth = arguments.get("depth", "standard")
        if depth not in DEPTHS:
            hint = _near(str(depth), DEPTHS)
            raise ValueError(f"{where}: depth {depth!r} is none of {', '.join(DEPTHS)}{hint}")
        given = {name: _text(where, name, arguments[name]) for name in names if name in arguments}
        if not given[spec.subject]:
            raise ValueError(f"{where}: {spec.subject!r} is empty; give {spec.about}")
        return {name: text for name, text in given.items() if text}


def _text(where: str, name: str, value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        if all(isinstance(item, str) for item in items):
            return "\n".join(f"- {item.strip()}" for item in items if item.strip())
    raise TypeError(f"{where}: {name!r} should be a text or a list of texts, not {kind}")


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
