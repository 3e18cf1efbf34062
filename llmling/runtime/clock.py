"""Time, as a border: everything that waits takes a clock, so tests move time instead of waiting for it."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, steady time and sleep."""

    def now(self) -> dt.datetime:
        """Return the wall time as an aware datetime in UTC."""
        ...

    def unix(self) -> float:
        """Return the same as Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return steady seconds; they never jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of steady time."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> dt.datetime:
        """Return the wall time as an aware datetime in UTC."""
        return dt.datetime.now(dt.UTC)

    # Asked a dozen times in every run.
    unix = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of steady time."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
