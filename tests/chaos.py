"""What chaos tests have counted, as a table: each writes a line into `$CHAOS_NUMBERS`, and this script renders them.

`python tests/chaos.py NUMBERS PAGE COMMAND` puts the table between the markers of a page. Nobody types a number. Of a
trial that was run several times the last run counts, and each row says of which commit it tells.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- numbers of make chaos -->", "<!-- end of the numbers -->"
COLUMNS = ("events", "kills", "lost", "repeated", "bound", "seconds", "measured", "commit")


class Trial:
    """One chaos test: made when it begins, and asked to `hold` its numbers after its last assertion."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._began = time.monotonic()
        self._commit = _commit() if os.environ.get("CHAOS_NUMBERS") else ""

    def holds(
        self, *, events: int, kills: int = 0, lost: int = 0, repeated: int = 0, bound: str = "0", measured: str = ""
    ) -> None:
        """Write down what was counted; `bound` is the most that may be repeated, `measured` what no test asserts."""
        row = {
            "name": self.name,
            "events": events,
            "kills": kills,
            "lost": lost,
            "repeated": repeated,
            "bound": bound,
            "seconds": round(time.monotonic() - self._began, 1),
            "measured": measured,
            "commit": self._commit,
        }
        if place := os.environ.get("CHAOS_NUMBERS"):
            # One write in append mode: tests of other workers write into the same file.
            with Path(place).open("a") as file:
                file.write(json.dumps(row) + "\n")


def table(rows: Sequence[dict[str, Any]], *, machine: str, command: str, date: str) -> str:
    """Return the numbers as Markdown; of rows with one name the last counts."""
    last = {str(row["name"]): row for row in rows}
    lines = [
        f"Written by `{command}` on {date}, {machine}.",
        "",
        "| trial | " + " | ".join(COLUMNS) + " |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    lines += [
        f"| {row['name']} | " + " | ".join(str(row[column]) for column in COLUMNS) + " |"
        for _, row in sorted(last.items())
    ]
    return "\n".join(lines)


def put(page: str, text: str) -> str:
    """Return a page with `text` between its markers.

    Raises:
        ValueError: It has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _said_by_git(*args: str) -> str:
    return subprocess.run(["git", *args], capture_output=True, text=True, check=True).stdout.strip()


@functools.cache
def _commit() -> str:
    if shutil.which("git") is None:
        return "not known"
    changed = _said_by_git("status", "--porcelain", "--untracked-files=no", "--", "llmling")
    return _said_by_git("rev-parse", "--short", "HEAD") + (" (changed)" if changed else "")


def main(numbers: str, page: str, command: str) -> None:
    """Render the numbers of a file into a page."""
    rows = [json.loads(line) for line in Path(numbers).read_text().splitlines()]
    text = table(
        rows,
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        command=command,
        date=dt.datetime.now(dt.UTC).date().isoformat(),
    )
    Path(page).write_text(put(Path(page).read_text(), text))


if __name__ == "__main__":
    main(*sys.argv[1:])
