"""Processes that end with the block that started them, and with all that they have started in turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from cores import pinned

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def child(command: Sequence[str], *, core: int | None = None, **options: Any) -> Generator[subprocess.Popen[str]]:
    """Start a process that leads a group of its own: a Ctrl-C reaches its parent alone, which leaves the block."""
    place = {} if core is None else pinned(core)
    process = None
    try:
        with _kept_back():
            process = subprocess.Popen(command, text=True, start_new_session=True, **place, **options)
        yield process
    finally:
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    with _kept_back():
        kill(process)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and its group, whatever of it still runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _kept_back() -> Generator[None]:
    """Keep a signal back: in the middle of this block it would leave a process behind that nobody knows."""
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def interruptible() -> Generator[None]:
    """Let SIGTERM leave the block as Ctrl-C does, and end in a line instead of a traceback."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped, nothing is written", file=sys.stderr)
        raise SystemExit(130) from None
