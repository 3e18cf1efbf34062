"""Manifests with their mistakes marked: `⟦LL201 words of the message⟧` stands right before the bad character."""

from __future__ import annotations

import re
from pathlib import Path

from llmling.errors import Problem

_MARK = re.compile("⟦(LL[0-9]{3}) ?([^⟧]*)⟧")


def plant(folder: Path, files: dict[str, str]) -> list[tuple[str, int, int, str, str]]:
    """Write the files without their marks; return (file, line, column, code, words) of each mark, sorted."""
    expected: list[tuple[str, int, int, str, str]] = []
    for name, text in files.items():
        lines: list[str] = []
        for number, marked in enumerate(text.split("\n"), 1):
            line = marked
            while (mark := _MARK.search(line)) is not None:
                expected.append((name, number, mark.start() + 1, mark[1], mark[2]))
                line = line[: mark.start()] + line[mark.end() :]
            lines.append(line)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")
    return sorted(expected)


def compare(problems: list[Problem], expected: list[tuple[str, int, int, str, str]], folder: Path) -> None:
    """Assert that exactly the marked places are reported, with the words of the marks."""
    shown = "\n".join(problem.render() for problem in problems)
    found = sorted((_name(problem, folder), problem.line, problem.column, problem.code) for problem in problems)
    assert found == [mark[:4] for mark in expected], shown
    for name, line, column, code, words in expected:
        messages = [
            problem.message
            for problem in problems
            if (_name(problem, folder), problem.line, problem.column, problem.code) == (name, line, column, code)
        ]
        assert any(words in message for message in messages), f"{words!r} not in {messages}"


def _name(problem: Problem, folder: Path) -> str:
    return str(Path(problem.path).relative_to(folder))
