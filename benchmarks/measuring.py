"""Runs the scripts that measure, one process after the other, tells how far they are, and gathers what they print."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from children import child, kill
from table import Found

HERE = Path(__file__).parent
PATIENCE_S = 900.0


@dataclass(slots=True)
class Measured:
    """What was found, by `prefix.scenario.metric`, and why the rest was not, by `prefix.scenario`."""

    found: Found = field(default_factory=dict[str, float])
    failed: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, other: Measured) -> None:
        self.found |= other.found
        self.failed |= other.failed


@contextmanager
def provider() -> Generator[str]:
    """Start the model server on a core of its own and give its address."""
    command = [sys.executable, str(HERE / "model_server.py")]
    with child(command, core=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"


def run(script: str, *arguments: str, prefix: str, python: str = sys.executable) -> Measured:
    """Return what a script measures; a line on standard error grows by each scenario that is done."""
    measured = Measured()
    tell(f"{prefix.rstrip('_')}:")
    began = time.perf_counter()
    command = [python, str(HERE / script), *arguments]
    # What a script, or a framework that it tries, leaves in its home folder or among temporary files goes with it.
    with tempfile.TemporaryDirectory(prefix="llmling-bench-", ignore_cleanup_errors=True) as folder:
        errors = Path(folder, "stderr")
        environment = {**os.environ, "HOME": folder, "TMPDIR": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with (
            errors.open("w") as stderr,
            child(command, core=0, env=environment, stdout=subprocess.PIPE, stderr=stderr) as process,
        ):
            assert process.stdout is not None
            patience = threading.Timer(PATIENCE_S, kill, [process])
            # An interrupt while it starts must not leave the process waiting for it.
            patience.daemon = True
            try:
                patience.start()
                for line in process.stdout:
                    if line.startswith('{"scenario"'):
                        _take(measured, prefix, json.loads(line))
                status = process.wait()
            finally:
                patience.cancel()
        if status:
            said = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
            measured.failed[prefix] = _reason(said[-1] if said else f"exit status {status}")
            tell(f" ended early ({measured.failed[prefix]}),")
    tell(f" {time.perf_counter() - began:.0f} s\n")
    return measured


def contender(name: str, url: str, scale: float, *, scenarios: str = "", python: str = sys.executable) -> Measured:
    """Return what a contender measures."""
    more = ["--scenarios", scenarios] if scenarios else []
    return run("contender.py", name, "--url", url, "--scale", str(scale), *more, prefix=name, python=python)


def reasons(failed: Mapping[str, str]) -> list[str]:
    """Return what says below a table what was not measured, and why; nothing when all was."""
    lines = [f"- Not measured: {name.replace('_.', ' ').replace('.', ' ')}: {why}" for name, why in failed.items()]
    return ["\n".join(lines)] if lines else []


def names_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return what reads `a,b` from a command line and refuses what is not known."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return found

    return names


def tell(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _take(measured: Measured, prefix: str, data: dict[str, Any]) -> None:
    scenario = data.pop("scenario")
    if (why := data.pop("failed", None)) is not None:
        measured.failed[f"{prefix}.{scenario}"] = _reason(why)
        tell(f" no {scenario} ({_reason(why)}),")
        return
    measured.found |= {f"{prefix}.{scenario}.{metric}": value for metric, value in data.items()}
    tell(f" {scenario},")


def _reason(text: str) -> str:
    """Return a reason on one line that neither breaks a table nor fills a page."""
    line = " ".join(text.split()).replace("|", "/")
    return line if len(line) <= 160 else f"{line[:157]}..."
