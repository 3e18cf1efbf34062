"""Runs the scripts that measure, one process after the other, and gathers what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cores import pinned
from table import Found

HERE = Path(__file__).parent
PATIENCE_S = 600.0


@contextmanager
def provider() -> Generator[str]:
    """Start the model server on a core of its own and give its address."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "model_server.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **pinned(1),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


def run(script: str, *arguments: str, prefix: str, python: str = sys.executable) -> Found:
    """Return what a script measures, each number under `prefix.scenario.metric`; what fails is told and left out."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # `contenders` import from here, wherever their interpreter is.
    command = [python, str(HERE / script), *arguments]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=environment, timeout=PATIENCE_S, check=False, **pinned(0)
        )
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        print(f"{prefix}: took longer than {PATIENCE_S:g} s", file=sys.stderr)
    found: Found = {}
    for line in output.splitlines():
        if line.startswith('{"scenario"'):
            data = json.loads(line)
            scenario = data.pop("scenario")
            found |= {f"{prefix}.{scenario}.{metric}": value for metric, value in data.items()}
    return found


def contender(name: str, url: str, scale: float, *, scenarios: str = "", python: str = sys.executable) -> Found:
    """Return what a contender measures."""
    more = ["--scenarios", scenarios] if scenarios else []
    return run("contender.py", name, "--url", url, "--scale", str(scale), *more, prefix=name, python=python)
