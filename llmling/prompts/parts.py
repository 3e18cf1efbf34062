"""The parts of a structured prompt: who answers, what is asked, and what the answer must keep to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

Fill: TypeAlias = Callable[[str], str]
"""Turns a text with placeholders into the text that is sent."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """Who the model is and how it works; it goes to the system turn.

    `rules` are short sentences, or one. Every text may hold `{{ name }}` placeholders.

    Example:
        >>> print(Guidance(role="a careful editor", rules=["Keep the author's voice."]).text())
        Role: a careful editor
        Rules:
        - Keep the author's voice.
    """

    role: str = ""
    goal: str = ""
    style: str = ""
    rules: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_texts("Guidance", role=self.role, goal=self.goal, style=self.style)
        object.__setattr__(self, "rules", _listed("Guidance", "rules", self.rules))

    def filled(self, fill: Fill) -> Self:
        """Return the same guidance with every text filled."""
        return type(self)(fill(self.role), fill(self.goal), fill(self.style), [fill(rule) for rule in self.rules])

    def text(self) -> str:
        """Return it as the model reads it; what is not given is left out."""
        lines = [_line("Role", self.role), _line("Goal", self.goal), _line("Style", self.style)]
        return _joined(*lines, _bullets("Rules:", self.rules))


@dataclass(frozen=True, slots=True)
class Directive:
    """What is asked; it goes to the user turn.

    Example:
        >>> Directive("Summarise {{ report }}.").content
        'Summarise {{ report }}.'
    """

    content: str

    def __post_init__(self) -> None:
        _check_texts("Directive", content=self.content)

    def text(self) -> str:
        """Return it as it was given."""
        return self.content


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the answer must keep to; it goes to the system turn, behind the guidance.

    `must` and `must_not` are short sentences, or one; `format` says what the answer looks like, `max_words` how long
    it may be.

    Raises:
        ValueError: `max_words` is not a whole number from 1 on.
    """

    must: Sequence[str] = ()
    must_not: Sequence[str] = ()
    format: str = ""
    max_words: int | None = None
    language: str = ""

    def __post_init__(self) -> None:
        _check_texts("Constraints", format=self.format, language=self.language)
        for name in ("must", "must_not"):
            object.__setattr__(self, name, _listed("Constraints", name, getattr(self, name)))
        words: Any = self.max_words
        if words is not None and (not isinstance(words, int) or isinstance(words, bool) or words < 1):
            raise ValueError(f"Constraints(max_words={words!r}): should be a whole number from 1 on")

    def filled(self, fill: Fill) -> Self:
        """Return the same constraints with every text filled."""
        must, must_not = [fill(item) for item in self.must], [fill(item) for item in self.must_not]
        return type(self)(must, must_not, fill(self.format), self.max_words, fill(self.language))

    def text(self) -> str:
        """Return them as the model reads them; what is not given is left out."""
        return _joined(
            _bullets("The answer must:", self.must),
            _bullets("The answer must not:", self.must_not),
            _line("Format of the answer", self.format),
            "" if self.max_words is None else f"Length of the answer: at most {self.max_words} words",
            _line("Language of the answer", self.language),
        )


def system_text(*parts: Guidance | Constraints | str) -> str:
    """Return the system turn of these parts, a blank line between them; texts stand as they are."""
    texts = [part if isinstance(part, str) else part.text() for part in parts]
    return "\n\n".join(text.strip() for text in texts if text.strip())


def _check_texts(part: str, **texts: object) -> None:
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{part}({name}=...) should be a text, not {type(text).__name__}")


def _listed(part: str, name: str, items: Any) -> tuple[str, ...]:
    listed = (items,) if isinstance(items, str) else tuple(items)
    for item in listed:
        if not isinstance(item, str):
            raise TypeError(f"{part}({name}=...) should hold texts, not {type(item).__name__}")
    return listed


def _line(label: str, text: str) -> str:
    return f"{label}: {text.strip()}" if text.strip() else ""


def _bullets(label: str, items: Sequence[str]) -> str:
    kept = [item.strip() for item in items if item.strip()]
    return "\n".join([label, *(f"- {item}" for item in kept)]) if kept else ""


def _joined(*lines: str) -> str:
    return "\n".join(line for line in lines if line)
