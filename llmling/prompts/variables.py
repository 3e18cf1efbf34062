"""Placeholders of structured prompts: `{{ name }}` and nothing else, so that no text can run anything."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

_PLACEHOLDER = re.compile(r"\{\{\s*([^\W\d]\w*)\s*\}\}")
_MESSAGE = re.compile(r"\{\{\s*message\s*\}\}")


def names(text: str) -> list[str]:
    """Return the names a text has placeholders for, in their order."""
    return _PLACEHOLDER.findall(text)


def fill(text: str, variables: Mapping[str, object]) -> str:
    """Return the text with every placeholder replaced; what stands in a value is never replaced again."""
    return _PLACEHOLDER.sub(lambda match: str(variables[match[1]]), text)


def around_message(text: str) -> list[str]:
    """Split a text where `{{ message }}` stands."""
    return _MESSAGE.split(text)


def check(asked: Iterable[str], variables: Mapping[str, object]) -> None:
    """Compare the names placeholders ask for with the variables that are there.

    Raises:
        ValueError: One is missing, or nothing asks for it.
    """
    wanted = dict.fromkeys(asked)
    unknown = [name for name in variables if name not in wanted]
    for name in wanted:
        if name not in variables:
            hint = _near(name, unknown, "is it {} in `variables`?") or f"; give variables={{{name!r}: ...}}"
            raise ValueError(f"no variable {name!r} for the placeholder {{{{ {name} }}}}{hint}")
    if unknown:
        hint = _near(unknown[0], wanted, "did you mean {}?")
        known = ", ".join(map(repr, wanted)) or "none"
        raise ValueError(
            f"variable {unknown[0]!r} is not used: no placeholder {{{{ {unknown[0]} }}}}{hint}; placeholders: {known}"
        )


def _near(name: str, known: Iterable[str], sentence: str) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; {sentence.format(repr(close[0]))}" if close else ""
