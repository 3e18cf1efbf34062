"""Time for back-off: wall time at the start, steady from then on, so that a clock that is set stalls nothing."""

from __future__ import annotations

from llmling.runtime.clock import Clock


class SteadyTime:
    """Unix seconds that never jump within a process, beside the wall time for what people read.

    `wall` returns Unix seconds by the wall clock, `monotonic` steady seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = clock.unix() - clock.monotonic()
        self.monotonic = clock.monotonic
        self.wall = clock.unix

    def now(self) -> float:
        """Return Unix seconds as they were at the start plus the steady time since."""
        return self._offset_s + self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of steady time."""
        await self._clock.sleep(seconds)
