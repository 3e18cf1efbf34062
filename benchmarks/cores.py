"""Where processes run: what is measured on one core, what only serves it on another."""

from __future__ import annotations

import functools
import os
import socket
from typing import Any


def pinned(core: int) -> dict[str, Any]:
    """Return what `subprocess` needs to keep a process on a core; nothing where there is only one, or no way."""
    cores = sorted(os.sched_getaffinity(1)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return {}
    return {"preexec_fn": functools.partial(os.sched_setaffinity, 0, {cores[core % len(cores)]})}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
