"""Rows of measurements, each beside the gate it is held against; nothing here passes or fails."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        return self.name, f"{_number(median)}{self.unit}", spread, self._gate(median)

    def _gate(self, median: float) -> str:
        if self.most is not None:
            return f"{'holds' if median <= self.most else 'missed'}: <= {self.most:g}{self.unit}"
        if self.least is not None:
            return f"{'holds' if median >= self.least else 'missed'}: >= {self.least:,g}{self.unit}"
        return ""


def table(rows: Sequence[Row], repetitions: Sequence[Found], command: str) -> str:
    """Return the rows as Markdown, under a line that says where they come from."""
    lines = [line for row in rows if (line := row.line(repetitions)) is not None]
    head = ["| measured | median | spread | gate |", "|---|---:|---:|---|"]
    return "\n".join([said(command, len(repetitions)), "", *head, *(f"| {' | '.join(line)} |" for line in lines)])


def said(command: str, repetitions: int) -> str:
    """Return when, where and of what something was measured."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "llmling")
    commit = f"`{_git('rev-parse', '--short', 'HEAD')}`{' (changed)' if changed else ''}"
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    times = f"{repetitions} repetition{'' if repetitions == 1 else 's'}"
    return f"Written by `{command}` on {dt.datetime.now(dt.UTC).date()}, commit {commit}, {machine}, {times}, {load}."


def put(page: Path, name: str, text: str) -> None:
    """Write a text between the markers of that name.

    Raises:
        ValueError: The page has none.
    """
    begin, end = f"<!-- numbers of {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} needs {begin!r} and {end!r}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    return done.stdout.strip()
