"""Deadlines that cost less than `asyncio.timeout`: over one block, and one over many short waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Self, TypeVar

T = TypeVar("T")


class DeadlineOver(Exception):
    """The time was over before the wait was."""


class Limit:
    """As `asyncio.timeout_at`, in a plain `with`: no coroutine is made to enter and to leave it.

    What is inside is cancelled when the time of the running loop is `when`; a `TimeoutError` leaves the block then.
    """

    __slots__ = ("_before", "_over", "_task", "_timer", "_when")

    def __init__(self, when: float) -> None:
        self._over = False
        self._when = when

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is for code that runs in a task")
        self._task, self._before = task, task.cancelling()
        self._timer = task.get_loop().call_at(self._when, self._end)
        return self

    def _end(self) -> None:
        self._over = True
        self._task.cancel()

    def expired(self) -> bool:
        """Whether the time was over before the block was."""
        return self._over

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        if self._over and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error


class Deadline:
    """As `asyncio.timeout` for each of many waits, of which one goes on at a time; its timer is set once for all.

    A stream waits for thousands of pieces, most of which are there already.
    """

    __slots__ = ("_over", "_timer", "_waiting")

    def __init__(self, left_s: float) -> None:
        self._over = False
        self._waiting: asyncio.Task[object] | None = None
        self._timer = asyncio.get_running_loop().call_later(left_s, self._end)

    def _end(self) -> None:
        self._over = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def wait(self, work: Awaitable[T]) -> T:
        """Return what `work` gives.

        Raises:
            DeadlineOver: Not before the deadline.
        """
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        self._waiting = task
        try:
            return await work
        except asyncio.CancelledError:
            if self._over and task is not None and task.uncancel() <= before:
                raise DeadlineOver from None
            raise
        finally:
            self._waiting = None

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self._over

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()
