"""Deadlines that cost less than `asyncio.timeout`: over one block, and one over many short waits."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from typing import Self


class DeadlineOver(Exception):
    """The time was over before the wait was."""


class Limit:
    """As `asyncio.timeout`, in a plain `with`: no coroutine is made to enter and to leave it.

    What is inside is cancelled after `seconds`; a `TimeoutError` leaves the block then. All limits of the same length
    share one timer of their loop, since they end in the order in which they began.
    """

    __slots__ = ("_before", "_line", "_over", "_seconds", "_task", "when")

    def __init__(self, seconds: float) -> None:
        self._over = False
        self._seconds = seconds

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a time limit is for code that runs in a task")
        self._task, self._before, self.when = task, task.cancelling(), loop.time() + self._seconds
        line = _lines.known.get(self._seconds) if _lines.loop is loop else None
        self._line = _line(loop, self._seconds) if line is None else line
        self._line.add(self)
        return self

    def end(self) -> None:
        """Cancel what is inside: the time is over."""
        self._over = True
        self._task.cancel()

    def expired(self) -> bool:
        """Whether the time was over before the block was."""
        return self._over

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._line.remove(self)
        if self._over and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error


class _Line:
    """The limits of one length in one loop, in the order of their ends, and the timer of the first one."""

    __slots__ = ("_armed", "_limits", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._limits: OrderedDict[Limit, None] = OrderedDict()
        self._armed = False

    def add(self, limit: Limit) -> None:
        self._limits[limit] = None
        if not self._armed:
            self._armed = True
            self._loop.call_at(limit.when, self._look)

    def remove(self, limit: Limit) -> None:
        self._limits.pop(limit, None)

    def _look(self) -> None:
        now = self._loop.time()
        while self._limits:
            first = next(iter(self._limits))
            if first.when > now:
                self._loop.call_at(first.when, self._look)
                return
            del self._limits[first]
            first.end()
        self._armed = False


class _Lines(threading.local):
    """The lines of the loop that runs in this thread."""

    loop: asyncio.AbstractEventLoop | None = None
    known: dict[float, _Line]


_lines = _Lines()
_MOST_LINES = 64


def _line(loop: asyncio.AbstractEventLoop, seconds: float) -> _Line:
    if _lines.loop is not loop or len(_lines.known) > _MOST_LINES:
        # What is in lines that are forgotten holds them itself.
        _lines.loop, _lines.known = loop, {}
    line = _lines.known.get(seconds)
    if line is None:
        line = _lines.known[seconds] = _Line(loop)
    return line


class Deadline:
    """As `asyncio.timeout` for each of many waits, of which one goes on at a time: `with deadline: await ...`.

    Its timer is set once for all, and no coroutine is made for a wait: a stream waits for thousands of pieces, most of
    which are there already. When the time is over, a block is cancelled or not entered; either raises `DeadlineOver`.
    `Deadline(None)` never ends.
    """

    __slots__ = ("_before", "_loop", "_over", "_timer", "_waiting")

    def __init__(self, left_s: float | None) -> None:
        self._over = False
        self._before = 0
        self._waiting: asyncio.Task[object] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = None if left_s is None else self._loop.call_later(left_s, self._end)

    def _end(self) -> None:
        self._over = True
        if self._waiting is not None:
            self._waiting.cancel()

    def __enter__(self) -> None:
        if self._over:
            raise DeadlineOver
        task = self._waiting = asyncio.current_task(self._loop)
        self._before = 0 if task is None else task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        task, self._waiting = self._waiting, None
        if self._over and kind is asyncio.CancelledError and task is not None and task.uncancel() <= self._before:
            raise DeadlineOver from None

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
