"""HTML as text a model can read: headings, lists and tables keep their shape, markup and scripts go."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SKIPPED = frozenset({"script", "style", "template", "noscript", "svg"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "dd", "details", "div", "dl", "dt", "fieldset", "figure", "footer"}
    | {"form", "header", "hr", "main", "nav", "ol", "p", "section", "summary", "table", "tbody", "thead", "title", "ul"}
)
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_UNREAD = re.compile(r"<!--|<!|<\?|<(?:script|style)\b", re.IGNORECASE)
_ENDINGS = {
    "<!--": re.compile("-->"),
    "<!": re.compile(">"),
    "<?": re.compile(">"),
    "<script": re.compile(r"</script\b", re.IGNORECASE),
    "<style": re.compile(r"</style\b", re.IGNORECASE),
}
_LOOSE = re.compile(r"<(?![A-Za-z/])")
_SPACE = re.compile(r"[ \t\r\f\v\n\u00a0]+")


def readable(html: str) -> str:
    """Return the text of an HTML page, in the spirit of Markdown; broken markup gives what can be read of it."""
    reader = _Reader()
    reader.feed(_tame(html))
    reader.close()
    return reader.text()


def _tame(html: str) -> str:
    """Return the page without scripts, styles, comments and declarations, and every `<` that opens no tag as text.

    The parser takes time that grows with the square of the length when these are left open; this takes one pass.
    """
    kept: list[str] = []
    position = 0
    while (found := _UNREAD.search(html, position)) is not None:
        kept.append(html[position : found.start()])
        ending = _ENDINGS[found[0].lower()].search(html, found.end())
        # Behind the end tag of a script its `>` is left over, perhaps with attributes before it.
        end = -1 if ending is None else html.find(">", ending.end() - 1)
        position = len(html) if end < 0 else end + 1
    kept.append(html[position:])
    clean = _LOOSE.sub("&lt;", "".join(kept))
    last = clean.rfind(">") + 1
    return clean[:last] + clean[last:].replace("<", "&lt;")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[str] = []
        self._line = ""
        self._skipping: str | None = None
        self._depth = 0
        self._pre = 0
        self._lists = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipping is not None:
            self._depth += tag == self._skipping
        elif tag in _SKIPPED:
            self._skipping, self._depth = tag, 1
        elif tag in _HEADINGS:
            self._break()
            self._line = _HEADINGS[tag]
        elif tag == "br":
            self._end_line()
        elif tag == "li":
            self._end_line()
            self._line = "  " * max(0, self._lists - 1) + "- "
        elif tag == "tr":
            self._end_line()
        elif tag in {"td", "th"}:
            self._line += " | " if self._line.strip() else ""
        else:
            self._open_block(tag)

    def _open_block(self, tag: str) -> None:
        if tag == "pre":
            self._break()
            self._lines.append("```")
            self._pre += 1
        elif tag in _BLOCKS and not self._bare():
            self._break()
        self._lists += tag in {"ul", "ol"}

    def handle_endtag(self, tag: str) -> None:
        if self._skipping is not None:
            self._depth -= tag == self._skipping
            if self._depth == 0:
                self._skipping = None
            return
        if tag in {"ul", "ol"}:
            self._lists = max(0, self._lists - 1)
        if tag == "pre" and self._pre:
            self._end_line()
            self._lines.append("```")
            self._pre -= 1
        if tag in {"li", "tr"}:
            self._end_line()
        elif tag in _BLOCKS or tag in _HEADINGS or tag == "pre":
            self._break()

    def handle_data(self, data: str) -> None:
        if self._skipping is not None:
            return
        if self._pre:
            first, *rest = data.split("\n")
            self._line += first
            for line in rest:
                self._lines.append(self._line.rstrip())
                self._line = line
            return
        text = _SPACE.sub(" ", data)
        self._line += text.lstrip() if not self._line or self._line.endswith(" ") else text

    def _bare(self) -> bool:
        """Whether the line is still only the mark of a list item or heading."""
        return bool(self._line) and not self._line.strip(" -#")

    def _end_line(self) -> None:
        if self._line.strip() and not self._bare():
            self._lines.append(self._line.rstrip())
        self._line = ""

    def _break(self) -> None:
        self._end_line()
        # Lists stay tight: a paragraph inside an item ends its line and no more.
        if self._lines and self._lines[-1] and not self._lists:
            self._lines.append("")

    def text(self) -> str:
        self._end_line()
        return "\n".join(self._lines).strip()
