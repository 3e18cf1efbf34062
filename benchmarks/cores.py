"""Where processes run: what is measured on one core, what only serves it on another."""

from __future__ import annotations

import functools
import os
import socket
from typing import Any


def pinned(core: int) -> dict[str, Any]:
    """Return what `subprocess` needs to keep a process on a core; nothing where there is only one, or no way."""
    cores = _cores()
    return _on({cores[core % len(cores)]}) if len(cores) > 1 else {}


def anywhere() -> dict[str, Any]:
    """Return what `subprocess` needs to give a process all cores, whatever its parent is kept to."""
    cores = _cores()
    return _on(set(cores)) if cores else {}


def _cores() -> list[int]:
    # Those of the first process: our own may be kept to one of them.
    return sorted(os.sched_getaffinity(1)) if hasattr(os, "sched_getaffinity") else []


def _on(cores: set[int]) -> dict[str, Any]:
    return {"preexec_fn": functools.partial(os.sched_setaffinity, 0, cores)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
