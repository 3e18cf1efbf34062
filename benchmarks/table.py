"""Rows of measurements, each beside the gate it is held against; nothing here passes or fails."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

Found = dict[str, float]
"""What one repetition has measured, by `contender.scenario.metric`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `value` computes it from one repetition, so that a ratio never mixes two of them."""

    name: str
    value: Callable[[Found], float]
    unit: str = ""
    most: float | None = None
    least: float | None = None

    def line(self, repetitions: Sequence[Found]) -> tuple[str, str, str, str] | None:
        """Return name, median, spread and gate; None when nobody has measured it."""
        values: list[float] = []
        for found in repetitions:
            try:
                values.append(self.value(found))
            except KeyError:
                continue
        if not values:
            return None
        median = statistics.median(values)
        spread = f"{(max(values) - min(values)) / median:.0%}" if len(values) > 1 and median else "-"
        return self.name, f"{number(median)}{self.unit}", spread, self._gate(median)

    def _gate(self, median: float) -> str:
        if self.most is not None:
            return f"{'holds' if median <= self.most else 'missed'}: <= {self.most:g}{self.unit}"
        if self.least is not None:
            return f"{'holds' if median >= self.least else 'missed'}: >= {self.least:,g}{self.unit}"
        return ""


def table(rows: Sequence[Row], repetitions: Sequence[Found]) -> list[str]:
    """Return the rows that were measured as a Markdown table; nothing when there are none."""
    lines = [line for row in rows if (line := row.line(repetitions)) is not None]
    return [markdown(("measured", "median", "spread", "gate"), lines, ("---", "---:", "---:", "---"))] if lines else []


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], rule: Sequence[str] = ()) -> str:
    """Return a table, its numbers to the right unless `rule` says otherwise."""
    rule = rule or ("---", *["---:"] * (len(head) - 1))
    return "\n".join([_line(head), f"|{'|'.join(rule)}|", *map(_line, lines)])


def number(value: float) -> str:
    """Return three digits of a number, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def said(command: str, repetitions: int, scale: float = 1.0) -> str:
    """Return when, where and of what something was measured."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "llmling")
    commit = f"`{_git('rev-parse', '--short', 'HEAD') or 'not known'}`{' (changed)' if changed else ''}"
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    times = f"{repetitions} repetition{'' if repetitions == 1 else 's'}"
    counts = "" if scale == 1 else f" at {scale:g} of the counts"
    model = f"litellm {version('litellm')}"
    day = dt.datetime.now(dt.UTC).date()
    return f"Written by `{command}` on {day}, commit {commit}, {model}, {machine}, {times}{counts}, {load}."


def put(page: Path, name: str, text: str) -> None:
    """Write a text between the markers of that name; the page is replaced at once or not at all.

    Raises:
        ValueError: The page has none.
    """
    before, after = around(page, name)
    draft = page.with_name(f"{page.name}.new")
    draft.write_text(f"{before}\n\n{text}\n\n{after}")
    draft.replace(page)


def around(page: Path, name: str) -> tuple[str, str]:
    """Return what stands before and after the block of that name, its markers included.

    Raises:
        ValueError: The page has none.
    """
    begin, end = f"<!-- numbers of {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} needs {begin!r} and {end!r}")
    return before + begin, end + after


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    return done.stdout.strip()
