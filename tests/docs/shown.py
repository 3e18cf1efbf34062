"""Whether an output is what a page shows: ids, times and ports differ from run to run, `...` stands for anything."""

from __future__ import annotations

import re

_SERVER = "127.0.0.1:8765"
_VARYING = re.compile(
    r"(?P<id>\b[0-9A-HJKMNP-TV-Z]{26}\b)"
    r"|(?P<url>127\.0\.0\.1:8765\b)"
    r"|(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d:\d\d|Z)?)"
    r"|(?P<unix>\b1[78]\d{8}\.\d+\b)"
    r"|(?P<took>\b\d+\.\d\b(?= s\b|  ))"
    r"|(?P<any>\.\.\.)"
    r"|(?P<space> {2,})"
)
_TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d:\d\d|Z)?"
_FREE = {"time": _TIME, "unix": r"\d+\.\d+", "took": r"\d+\.\d", "any": r".*?", "space": " +"}


class Shown:
    """What a page shows, with what its ids and its server's address are in this run."""

    def __init__(self) -> None:
        self._here: dict[str, str] = {}

    def here(self, text: str) -> str:
        """Return a text of the page with the ids and the address of this run."""
        for page, real in self._here.items():
            text = text.replace(page, real)
        return text

    def forget_server(self) -> None:
        """Forget the server's address: another process may get another port."""
        self._here.pop(_SERVER, None)

    def learn_server(self, printed: str) -> None:
        """Remember the address that a process says it has, on a page that does not show it."""
        if found := re.search(r"^ready in .*http://(127\.0\.0\.1:\d+)", printed, re.MULTILINE):
            self._here[_SERVER] = found[1]

    def matches(self, shown: str, printed: str) -> bool:
        """Whether `printed` is what the page shows; ids that are met for the first time are remembered."""
        names: dict[str, str] = {}
        pattern = "\n".join(self._line(line, names) for line in shown.rstrip("\n").split("\n"))
        pattern = pattern.replace("\n<lines>\n", r"\n(?:.*\n)*?").replace("\n<lines>", r"(?:\n.*)*")
        pattern = pattern.replace("<lines>\n", r"(?:.*\n)*?").replace("<lines>", r"(?s:.*)")
        printed = "\n".join(line.rstrip() for line in printed.rstrip("\n").split("\n"))
        found = re.fullmatch(pattern, printed)
        if found is not None:
            self._here.update({page: found[group] for page, group in names.items()})
        return found is not None

    def _line(self, line: str, names: dict[str, str]) -> str:
        line = line.rstrip()
        if line == "...":
            return "<lines>"
        pattern, end = "", 0
        for varying in _VARYING.finditer(line):
            pattern += re.escape(line[end : varying.start()]) + self._varying(varying, names)
            end = varying.end()
        return pattern + re.escape(line[end:])

    def _varying(self, varying: re.Match[str], names: dict[str, str]) -> str:
        kind, text = varying.lastgroup or "", varying[0]
        if kind in _FREE:
            return _FREE[kind]
        if text in self._here:
            return re.escape(self._here[text])
        if text in names:
            return f"(?P={names[text]})"
        names[text] = f"{kind}{len(names)}"
        form = r"[0-9A-HJKMNP-TV-Z]{26}" if kind == "id" else r"127\.0\.0\.1:\d+"
        return f"(?P<{names[text]}>{form})"
