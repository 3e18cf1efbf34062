"""The environments of other frameworks, under `.venv/peers`: made from a lock, and kept until it changes.

A lock (`requirements/NAME.txt`) names every package, so nothing has to be resolved and only wheels are fetched. Written
from `requirements/NAME.in`, with uv: its first lines say how.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from children import child
from measuring import tell

LOCKS = Path(__file__).parent / "requirements"
PLACE = Path(__file__).parents[1] / ".venv" / "peers"
PEERS = tuple(path.stem for path in sorted(LOCKS.glob("*.txt")))
PATIENCE_S = 1800.0


class Unbuilt(Exception):
    """An environment could not be made; the message is what its last command said."""


def built(peer: str) -> str:
    """Return the interpreter of a peer's environment, made first when it is not there as the lock has it.

    Raises:
        Unbuilt: A command failed.
    """
    place, lock = PLACE / peer, LOCKS / f"{peer}.txt"
    python = place / "bin" / "python"
    made, wanted = place / "made", f"{sys.version}\n{lock.read_text()}"
    if made.exists() and made.read_text() == wanted:
        return str(python)
    tell(f"environment of {peer}: building,")
    began = time.perf_counter()
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    _do([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)])
    _do([_pip(), "-m", "pip", "--python", str(python), *install, "--requirement", str(lock)])
    made.write_text(wanted)
    tell(f" {time.perf_counter() - began:.0f} s\n")
    return str(python)


def _pip() -> str:
    """Return an interpreter that has pip: Debian's may have made our own environment without it."""
    return sys.executable if find_spec("pip") else getattr(sys, "_base_executable", sys.executable)


def _do(command: list[str]) -> None:
    # Behind everything else that the machine does: a download is no hurry.
    with child(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=lambda: os.nice(15)) as process:
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Unbuilt(f"took longer than {PATIENCE_S:g} s") from None
    if process.returncode:
        lines = [line for line in said.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise Unbuilt(lines[-1] if lines else f"exit status {process.returncode}")
