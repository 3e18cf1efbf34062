"""A thread that sees when the event loop is blocked, and says by what."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from typing import Self

LATE_S = 5.0
_FRAMES = 20

logger = logging.getLogger("llmling")


class LoopWatch:
    """Logs a warning with the stack of what blocks the running loop for longer than `late_s`, once for each block."""

    def __init__(self, late_s: float = LATE_S) -> None:
        self._late_s = late_s
        self._tick_s = late_s / 5
        self._ended = threading.Event()
        self._beat = 0.0
        self._pulse: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._alive(asyncio.get_running_loop())
        arguments = (threading.get_ident(),)
        self._thread = threading.Thread(target=self._watch, args=arguments, name="llmling loop watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._pulse is not None:
            self._pulse.cancel()
        if self._thread is not None:
            self._thread.join()

    def _alive(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat = time.monotonic()
        self._pulse = loop.call_later(self._tick_s, self._alive, loop)

    def _watch(self, loop_thread: int) -> None:
        looked, told = time.monotonic(), 0.0
        while not self._ended.wait(self._tick_s):
            now, beat = time.monotonic(), self._beat
            stopped = now - looked > self._late_s
            looked = now
            if now - beat <= self._late_s:
                if told:
                    logger.warning("the event loop goes on; it was blocked for %.1f s", beat - told)
                    told = 0.0
            # A process that was stopped as a whole has blocked nothing.
            elif not told and not stopped:
                told = beat
                # The documented way to see another thread; the name has its underscore from Python.
                frame = sys._current_frames().get(loop_thread)  # pyright: ignore[reportPrivateUsage]
                stack = "".join(traceback.format_stack(frame)[-_FRAMES:]) if frame is not None else "it has ended\n"
                logger.warning(
                    "the event loop is blocked for %.1f s and everything waits for it; use `def` for a tool that "
                    "blocks, it then runs in a thread. It is here:\n%s",
                    now - beat,
                    stack.rstrip(),
                )
