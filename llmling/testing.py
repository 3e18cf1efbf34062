"""Test kit for pools and their parts: no waiting for the clock, files that arrive as a careful sender leaves them."""

from __future__ import annotations

import asyncio
import datetime as dt
import heapq
import itertools
from collections.abc import Callable
from pathlib import Path

from llmling.firing import fire_in as fire
from llmling.models.scripted import ScriptedModel
from llmling.runtime.real_models import no_real_models

__all__ = ["FakeClock", "ScriptedModel", "drop_file", "fire", "no_real_models"]


class FakeClock:
    """A clock that stands still until it is told to move; a `Clock` for `Services`.

    Example:
        >>> clock = FakeClock()
        >>> clock.now().isoformat()
        '2027-01-01T00:00:00+00:00'
    """

    def __init__(self, now: dt.datetime = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)) -> None:
        self._now = now.astimezone(dt.UTC)
        self._steady = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> dt.datetime:
        """Return the wall time as an aware datetime in UTC."""
        return self._now

    def unix(self) -> float:
        """Return the same as Unix seconds."""
        return self._now.timestamp()

    def monotonic(self) -> float:
        """Return steady seconds, from 0."""
        return self._steady

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was moved by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._steady + seconds, next(self._order), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many callers sleep right now."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def asleep(self, count: int = 1, *, timeout_s: float = 5.0) -> None:
        """Return when at least `count` callers sleep.

        Raises:
            TimeoutError: They did not within `timeout_s` real seconds.
        """
        await until(lambda: self.sleepers >= count, timeout_s=timeout_s)

    async def advance(self, seconds: float) -> None:
        """Move both times, and wake every sleeper at its own time; each may run and sleep anew before the next."""
        end = self._steady + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            self._move(due)
            if not woken.done():
                woken.set_result(None)
                for _ in range(10):
                    await asyncio.sleep(0)
        self._move(end)

    def jump(self, seconds: float) -> None:
        """Move the wall time only, forward or back, as a time server or a suspended machine does."""
        self._now += dt.timedelta(seconds=seconds)

    def _move(self, steady: float) -> None:
        self._now += dt.timedelta(seconds=steady - self._steady)
        self._steady = steady


async def until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Return once a condition holds.

    Raises:
        TimeoutError: It did not within `timeout_s` seconds.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.01)


def drop_file(folder: Path, name: str, content: str | bytes = "text") -> Path:
    """Put a file into a folder in one step, as a sender does that writes elsewhere and renames; return its path.

    `name` may lead through folders; those that are missing are made.
    """
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name[:200]}.drop")
    hidden.write_bytes(content.encode() if isinstance(content, str) else content)
    return hidden.rename(path)
