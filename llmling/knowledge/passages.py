"""Cutting text into passages that are worth finding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PASSAGE_CHARS = 1200
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t#]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_UNDERLINE = re.compile(r"(=|-|~|\^|\"|'){3,}[ \t]*$")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a file of about 1,200 characters, and the headings it stands under."""

    heading: str
    text: str


def passages(text: str, *, headings: bool) -> Iterator[Passage]:
    """Cut a text at headings, then at blank lines, then wherever a piece would grow over `PASSAGE_CHARS`."""
    for heading, section in _sections(text) if headings else (("", text),):
        for piece in _pieces(section):
            yield Passage(heading, piece)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield the text below each Markdown or underlined heading, with the headings above it."""
    above: dict[int, str] = {}
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if mark and fence in {"", mark[1]}:
            fence = "" if fence else mark[1]
            lines.append(line)
            continue
        found = None if fence else _HEADING.match(line)
        underlined = not found and not fence and bool(lines) and bool(lines[-1].strip()) and _UNDERLINE.match(line)
        if found or underlined:
            title = found[2] if found else lines.pop().strip()
            level = len(found[1]) if found else 1 + "=-~^\"'".index(line.strip()[0])
            yield " > ".join(above.values()), "\n".join(lines)
            above = {depth: name for depth, name in above.items() if depth < level} | {level: title}
            lines = []
        else:
            lines.append(line)
    yield " > ".join(above.values()), "\n".join(lines)


def _pieces(section: str) -> Iterator[str]:
    piece = ""
    for paragraph in re.split(r"\n[ \t]*\n", section):
        for part in _parts(paragraph.strip("\n")):
            if piece and len(piece) + len(part) + 2 > PASSAGE_CHARS:
                yield piece
                piece = ""
            piece = f"{piece}\n\n{part}" if piece else part
    if piece.strip():
        yield piece


def _parts(paragraph: str) -> Iterator[str]:
    """Yield a paragraph, cut at its last line end or space before the limit while it is too long."""
    while len(paragraph) > PASSAGE_CHARS:
        cut = max(paragraph.rfind("\n", 0, PASSAGE_CHARS), paragraph.rfind(" ", PASSAGE_CHARS // 2, PASSAGE_CHARS))
        cut = cut if cut > 0 else PASSAGE_CHARS
        yield paragraph[:cut].rstrip()
        paragraph = paragraph[cut:].lstrip("\n")
    if paragraph.strip():
        yield paragraph
