"""A small MCP server that works offline: statistics of a text, and a shelf of notes to search.

Run it over standard input and output with `python library_server.py [FOLDER]`; the notes are the `.md` and `.txt` files
below FOLDER, by default the folder `notes` beside this file.
"""

from __future__ import annotations

import collections
import re
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)
LONGEST_NOTE = 100_000
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")

server = MCPServer("library", log_level="WARNING")


def shelf() -> Path:
    return Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "notes").resolve()


def notes() -> dict[str, str]:
    """Return the text of every note by its path below the shelf."""
    root = shelf()
    files = sorted(file for file in root.rglob("*") if file.suffix in {".md", ".txt"} and file.is_file())
    return {
        file.relative_to(root).as_posix(): file.read_text(encoding="utf-8", errors="replace")[:LONGEST_NOTE]
        for file in files
    }


@server.tool(annotations=READ_ONLY)
def text_statistics(text: str) -> dict[str, float | int | list[str]]:
    """Count words, sentences and characters of a text and name its most frequent long words."""
    words = WORD.findall(text)
    sentences = [part for part in re.split(r"[.!?]+(?:\s|$)", text) if part.strip()]
    frequent = collections.Counter(word.lower() for word in words if len(word) > 4).most_common(5)
    return {
        "words": len(words),
        "sentences": len(sentences),
        "characters": len(text),
        "words_per_sentence": round(len(words) / max(1, len(sentences)), 1),
        "frequent": [word for word, _ in frequent],
    }


@server.tool(annotations=READ_ONLY)
def search_notes(query: str, limit: int = 5) -> list[dict[str, str]]:
    """Search the shelf of notes and return the titles and the best lines, best note first."""
    wanted = {word.lower() for word in WORD.findall(query)}
    ranked: list[tuple[int, str, str]] = []
    for title, text in notes().items():
        lines = [(len(wanted & {word.lower() for word in WORD.findall(line)}), line) for line in text.splitlines()]
        hits = sum(count for count, _ in lines) + 2 * len(wanted & {word.lower() for word in WORD.findall(title)})
        if hits:
            ranked.append((hits, title, max(lines, default=(0, ""))[1].strip()))
    ranked.sort(key=lambda item: (-item[0], item[1]))
    return [{"title": title, "line": line} for _, title, line in ranked[: max(0, limit)]]


@server.tool(annotations=READ_ONLY)
def read_note(title: str) -> str:
    """Return the whole text of a note; `title` is one that `search_notes` gave."""
    shelved = notes()
    if title not in shelved:
        raise ToolError(f"no note {title!r}; there are: {', '.join(shelved) or 'none'}")
    return shelved[title]


@server.resource("notes://index", mime_type="text/plain")
def index() -> str:
    """The titles of all notes, one per line."""
    return "\n".join(notes())


if __name__ == "__main__":
    server.run()
