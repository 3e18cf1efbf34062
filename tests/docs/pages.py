"""Pages as stories: the fenced blocks of a page with what the comment above each of them says about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_DIRECTIVE = re.compile(r"^ *<!-- (?P<text>(file|refused|prints|serve prints|not run)\b.*?) -->$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Directives, in a comment directly above the fence: `file: NAME` (written there), `refused` (a manifest that must
    not load; also `file: NAME, refused`), `prints` (what the Python block before prints), `serve prints` (what the
    serving process of the page prints meanwhile), `not run: REASON`.
    """

    line: int
    language: str
    text: str
    directives: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def commands(self) -> list[tuple[str, str]]:
        """The `$ ` lines of a console block, each with the output shown below it; `> ` goes on with a command."""
        found: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif line.startswith("> ") and found and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
            else:
                assert found, f"line {self.line}: a console block starts with `$ `"
                found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        return found


def pages() -> list[Path]:
    """Return every page that is run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def title(page: Path) -> str:
    """Return a page's path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        start, indent = number, len(fence["indent"])
        number += 1
        body: list[str] = []
        while lines[number].strip() != "```":
            body.append(lines[number][indent:])
            number += 1
        number += 1
        above = lines[start - 1] if start else ""
        found.append(Block(start + 1, fence["info"].strip(), "".join(f"{line}\n" for line in body), _read(above)))
    return found


def _read(line: str) -> dict[str, str]:
    directive = _DIRECTIVE.match(line)
    if directive is None:
        return {}
    text = directive["text"]
    parts = [text] if text.startswith("not run") else text.split(", ")
    pairs = [part.partition(":") for part in parts]
    return {name.strip(): value.strip() for name, _, value in pairs}


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
