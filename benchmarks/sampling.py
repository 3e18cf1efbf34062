"""Which part of a program the CPU time of the main thread goes to: a timer interrupts it and looks where it is."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Self

EVERY_S = 0.001


class Sampler:
    """Watches the main thread meanwhile; `spent` are the seconds of each part, by the innermost frame that has one.

    Each look counts as much as the thread has worked since the last one. The garbage collector is a part of its own.
    """

    def __init__(self, parts: Sequence[tuple[str, str]]) -> None:
        self.spent: dict[str, float] = {}
        self._parts = parts
        self._known: dict[str, str | None] = {}
        self._last = 0.0
        self._collecting_since: float | None = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGPROF, self._look)
        self._last = time.thread_time()
        gc.callbacks.append(self._collect)
        # The kernel may look less often; it counts the time that all threads work.
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.callbacks.remove(self._collect)
        signal.signal(signal.SIGPROF, self._before)

    def _look(self, _: int, frame: FrameType | None) -> None:
        if self._collecting_since is not None:
            return
        now = time.thread_time()
        self._add(self._part(frame), now - self._last)
        self._last = now

    def _collect(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting_since = time.thread_time()
        elif self._collecting_since is not None:
            took_s = time.thread_time() - self._collecting_since
            self._add("garbage", took_s)
            self._last += took_s
            self._collecting_since = None

    def _add(self, part: str, seconds: float) -> None:
        self.spent[part] = self.spent.get(part, 0.0) + seconds

    def _part(self, frame: FrameType | None) -> str:
        while frame is not None:
            if (part := self._of(frame.f_globals.get("__name__", ""))) is not None:
                return part
            frame = frame.f_back
        return "other"

    def _of(self, module: str) -> str | None:
        if module not in self._known:
            parts = (part for prefix, part in self._parts if f"{module}.".startswith(f"{prefix}."))
            self._known[module] = next(parts, None)
        return self._known[module]
