"""`llmling validate` and `llmling schema`: what only needs the manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from llmling.errors import ManifestError, Problem
from llmling.manifest import check, json_schema, load
from llmling.planning import plan
from llmling_cli import console


def validate(path: Path, output: Literal["text", "json", "github"]) -> int:
    """Print every problem of a manifest and what this machine lacks for it; return the exit code."""
    try:
        manifest = load(path)
    except ManifestError:
        # It tells the errors only.
        problems = check(path)
    else:
        problems = [*manifest.warnings, *plan(manifest).warnings]
    errors = sum(problem.severity == "error" for problem in problems)
    match output:
        case "text":
            _print_text(path, problems, errors)
        case "json":
            entries = [dataclasses.asdict(problem) for problem in problems]
            console.say_json({"path": str(path), "valid": not errors, "problems": entries})
        case "github":
            for problem in problems:
                console.say(_annotation(problem))
    return 2 if errors else 0


def _print_text(path: Path, problems: Sequence[Problem], errors: int) -> None:
    for problem in problems:
        place, _, rest = problem.render().partition(f" {problem.severity} ")
        severity = console.paint(problem.severity, "red" if problem.severity == "error" else "yellow")
        console.say(console.masked(f"{place} {severity} {rest}"))
    warnings = len(problems) - errors
    counts = [console.count(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    if errors:
        console.say(console.paint(f"{path}: {', '.join(counts)}", "red"))
    else:
        console.say(console.paint(f"{path}: valid" + (f", {counts[0]}" if counts else ""), "green"))


def _annotation(problem: Problem) -> str:
    def escaped(text: str, more: str = "") -> str:
        for char in "%\r\n" + more:
            text = text.replace(char, f"%{ord(char):02X}")
        return text

    place = f"file={escaped(problem.path, ':,')},line={problem.line},col={problem.column},title={problem.code}"
    return f"::{problem.severity} {place}::{escaped(console.masked(problem.message))}"


def schema() -> None:
    """Print the JSON Schema of the manifest."""
    console.say_document(json_schema())
