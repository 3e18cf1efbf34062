"""Which part of a program the CPU time of a thread goes to: a second thread looks at its frames every millisecond."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Self

EVERY_S = 0.001


class Sampler:
    """Watches the thread that enters it; `spent` are the seconds of each part, by the innermost frame that has one.

    Each look counts as much as the thread has worked since the last one, so that waiting weighs nothing. What the
    garbage collector takes is told apart.
    """

    def __init__(self, parts: Sequence[tuple[str, str]]) -> None:
        self.spent: dict[str, float] = {}
        self._parts = parts
        self._known: dict[str, str | None] = {}
        self._over = threading.Event()
        self._watched = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._watched)
        self._last = self._collecting_since = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(EVERY_S / 10)
        self._last = self._worked_s()
        gc.callbacks.append(self._collect)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        gc.callbacks.remove(self._collect)
        sys.setswitchinterval(self._interval)

    def _worked_s(self) -> float:
        return time.clock_gettime(self._clock)

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            part, now = self._part(sys._current_frames()[self._watched]), self._worked_s()
            self._add(part, now - self._last)
            self._last = now

    def _collect(self, phase: str, _: object) -> None:
        if threading.get_ident() != self._watched:
            return
        if phase == "start":
            self._collecting_since = self._worked_s()
        else:
            took_s = self._worked_s() - self._collecting_since
            self._add("garbage", took_s)
            self._last += took_s

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
