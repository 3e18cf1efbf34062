"""What an agent is told around each message, from what is written under `instructions:`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from llmling import plugins
from llmling.protocols import Prompt
from llmling.templates import template

_MARKS = ("{{", "{%", "{#", "\r")
"""A text without them is what its template renders: nothing to put in, and no line ending Jinja would change."""


class PlainInstructions:
    """Texts for the system turn; the message stays as it is. `same` is all of it when nothing has to be put in."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    @functools.cached_property
    def same(self) -> str | None:
        """What `system` returns whatever is asked, None when it depends."""
        plain = not any(mark in text for text in self._texts for mark in _MARKS)
        return "\n\n".join(text for source in self._texts if (text := source.strip())) if plain else None

    def system(self, values: Mapping[str, Any]) -> str:
        """Return the texts with what they ask for, a blank line between them.

        Raises:
            TemplateFailed: They ask for something that is not there.
        """
        if self.same is not None:
            return self.same
        return "\n\n".join(text for source in self._texts if (text := template(source)(values).strip()))

    def user(self, message: str, values: Mapping[str, Any]) -> str:
        """Return the message."""
        return message


def as_prompt(instructions: Any) -> Prompt:
    """Return the prompt of a text, a list of texts or the config of structured instructions; a prompt is itself."""
    if isinstance(instructions, str):
        return PlainInstructions([instructions])
    if isinstance(instructions, list | tuple):
        return PlainInstructions(instructions)  # pyright: ignore[reportUnknownArgumentType]
    if hasattr(instructions, "system"):
        return instructions
    return plugins.load(plugins.INSTRUCTIONS)(instructions)
