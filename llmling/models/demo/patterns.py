"""Texts that match a regular expression."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

# The tree of a pattern, as the standard library reads it; there is no public door to it.
_parser: Any = importlib.import_module("re._parser")

_CATEGORIES = {
    "CATEGORY_DIGIT": "1",
    "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_WORD": "a",
    "CATEGORY_NOT_WORD": "-",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_SPACE": "a",
}
_USUAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ .,:;/@"


def matching(pattern: str, least: int = 0) -> Iterator[str]:
    """Yield texts that match, ever longer ones up to about `least`; none for a pattern that cannot be followed."""
    try:
        tree = _parser.parse(pattern)
        compiled = re.compile(pattern)
    except (re.error, RecursionError):
        return
    for extra in (*range(10), *range(max(10, least - 20), least + 1)):
        text = _text(tree, extra, [])
        if compiled.search(text):
            yield text


def _text(tree: Any, extra: int, groups: list[str]) -> str:
    return "".join(_piece(str(kind), value, extra, groups) for kind, value in tree)


def _piece(kind: str, value: Any, extra: int, groups: list[str]) -> str:
    match kind:
        case "LITERAL":
            return chr(value)
        case "NOT_LITERAL":
            return next(char for char in _USUAL if ord(char) != value)
        case "ANY":
            return "a"
        case "IN":
            return _member(value)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = value
            return "".join(_text(inner, extra, groups) for _ in range(min(int(most), int(least) + extra)))
        case "SUBPATTERN":
            text = _text(value[-1], extra, groups)
            if value[0] is not None:
                groups.append(text)
            return text
        case "ATOMIC_GROUP":
            return _text(value, extra, groups)
        case "BRANCH":
            branches = value[1]
            return _text(branches[extra % len(branches)], extra, groups)
        case "GROUPREF":
            return groups[int(value) - 1] if 0 < int(value) <= len(groups) else ""
        case _:
            return ""  # anchors and assertions: the caller checks what comes out


def _member(items: Any) -> str:
    wanted: list[tuple[str, Any]] = [(str(kind), value) for kind, value in items]
    if wanted and wanted[0][0] == "NEGATE":
        excluded = wanted[1:]
        return next((char for char in _USUAL if not any(_holds(item, char) for item in excluded)), "~")
    kind, value = wanted[0]
    if kind == "RANGE":
        return chr(int(value[0]))
    return _CATEGORIES.get(str(value), "a") if kind == "CATEGORY" else chr(int(value))


def _holds(item: tuple[str, Any], char: str) -> bool:
    kind, value = item
    if kind == "LITERAL":
        return ord(char) == value
    if kind == "RANGE":
        return value[0] <= ord(char) <= value[1]
    escapes = {"DIGIT": r"\d", "WORD": r"\w", "SPACE": r"\s"}
    name = str(value).removeprefix("CATEGORY_")
    holds = re.match(escapes.get(name.removeprefix("NOT_"), r"\w"), char) is not None
    return holds != name.startswith("NOT_")
