"""All printing: plain text off a terminal or with NO_COLOR, one JSON object per line with --json, secrets masked."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TextIO, TypeAlias

from llmling import masking

Colour: TypeAlias = Literal["red", "green", "yellow", "cyan", "dim", "bold"]
_CODES: dict[Colour, str] = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
# What a terminal obeys instead of showing it: control characters, changes of direction, halves of surrogate pairs.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LOOKED_AT = 20

_hidden: set[str] = set()


def hide(secrets: Iterable[str]) -> None:
    """Mask these texts in every diagnostic from now on."""
    _hidden.update(secrets)


def hide_environment() -> None:
    """Mask the values of environment variables that look like credentials by their name."""
    hide(masking.environment_secrets())


def masked(text: str) -> str:
    """Return `text` with every known secret replaced."""
    return masking.masked(text, _hidden | masking.known_secrets())


def plain(text: str) -> str:
    """Return `text` with what a terminal would obey made visible; line ends and tabs stay."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def paint(text: str, colour: Colour, stream: TextIO | None = None) -> str:
    """Return `text` in a colour when the stream (default: standard output) is a terminal and NO_COLOR is not set."""
    target = sys.stdout if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not target.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """Print a line to standard output, at once."""
    print(text, flush=True)


def say_json(data: Any) -> None:
    """Print one JSON object as one line to standard output, at once."""
    print(json.dumps(data, ensure_ascii=False, default=str), flush=True)


def say_document(data: Any) -> None:
    """Print a JSON document for people and files, indented."""
    print(json.dumps(data, indent=2, ensure_ascii=False), flush=True)


def say_table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> None:
    """Print a table with aligned columns, the headers first."""
    for line in table(rows, headers):
        say(line)


def write(text: str) -> None:
    """Print a piece of text without a line end to standard output, at once."""
    print(text, end="", flush=True)


def complain(text: str, colour: Colour | None = None) -> None:
    """Print a line to standard error, secrets masked."""
    text = plain(masked(text))
    print(paint(text, colour, sys.stderr) if colour else text, file=sys.stderr, flush=True)


def fail(error: BaseException, *, debug: bool) -> None:
    """Print an error to standard error: its text, and with `debug` where it came from."""
    if debug:
        complain("".join(traceback.format_exception(error)).rstrip())
    complain(f"error: {str(error).strip() or type(error).__name__}", "red")


def table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> list[str]:
    """Return the lines of a table with aligned columns, the headers first."""
    widths = [max(len(row[index]) for row in (headers, *rows)) for index in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return [paint(line(headers), "dim"), *(line(row) for row in rows)]


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 agent`, `2 agents`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def short(text: str, width: int = 60) -> str:
    """Return the first words of a text on one line, harmless to a terminal."""
    flat = plain(" ".join(text[: _LOOKED_AT * width].split()))
    return flat if len(flat) <= width else flat[: width - 3].rstrip() + "..."


def money(cost_usd: float | None) -> str:
    """Return a cost for people; `-` when it is not known."""
    if cost_usd is None:
        return "-"
    return "$0" if cost_usd == 0 else f"${cost_usd:.4f}"
