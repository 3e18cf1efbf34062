"""A supervisor: keeps one thing alive, with growing pauses between its lives."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.lifespan import reason

State: TypeAlias = Literal["starting", "ready", "broken", "stopped"]
Live: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between lives: they double from `first_s` to `max_s`, with jitter.

    A life that had become ready is followed by at most `after_ready_s`; one that stayed ready for `healthy_s` makes
    the pauses start anew.
    """

    first_s: float = 0.5
    max_s: float = 60.0
    after_ready_s: float = 1.0
    healthy_s: float = 10.0

    def pause_s(self, failures: int, *, was_ready: bool) -> float:
        """Return the pause after the `failures`-th life in a row that ended badly, in seconds."""
        most = min(self.max_s, self.after_ready_s) if was_ready else self.max_s
        # 2**30 is far beyond any sensible maximum; without a bound the power overflows after days.
        return min(most, self.first_s * 2 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)


class Supervisor:
    """Runs `live` again whenever it ends, until the task that awaits `run()` is cancelled.

    `live(ready)` is one life: it sets up, calls `ready()`, and stays until something breaks. Any exception, and
    returning, ends the life and is the `reason` until the next one is ready; `explain` turns it into text.
    """

    def __init__(
        self,
        name: str,
        live: Live,
        *,
        clock: Clock = SYSTEM_CLOCK,
        backoff: Backoff | None = None,
        explain: Callable[[BaseException], str] = reason,
    ) -> None:
        self.name = name
        self.state: State = "starting"
        self.reason: str | None = None
        self.lives = 0
        self._live = live
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._explain = explain
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ready_at: float | None = None
        self._broken_at = 0.0

    async def run(self) -> None:
        """Live, pause, live again, until cancelled."""
        failures = 0
        try:
            while True:
                why = await self._one_life()
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # A task group that was already ending has swallowed our cancellation.
                    raise asyncio.CancelledError
                now = self._clock.monotonic()
                was_ready = self._ready_at is not None
                healthy = self._ready_at is not None and now - self._ready_at >= self._backoff.healthy_s
                failures = 1 if healthy else failures + 1
                pause_s = self._backoff.pause_s(failures, was_ready=was_ready)
                self._broken_at = now
                self._become("broken", why)
                logger.warning("%s is broken: %s; next try in %.1f s", self.name, why, pause_s)
                await self._pause(pause_s)
        finally:
            self._become("stopped", self.reason)

    async def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Return True once it is ready, False after `timeout_s` seconds or when it has stopped."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.state not in {"ready", "stopped"}:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return self.state == "ready"

    async def settled(self) -> State:
        """Return the state once the first life has become ready or has ended; later ones are not waited for."""
        while self.state == "starting" and self.lives <= 1:
            await self._changed.wait()
        return self.state

    def broke(self, why: str) -> None:
        """Say at once that the current life is over, before it has finished cleaning up."""
        if self.state == "ready":
            self._become("broken", why)

    def hurry(self) -> None:
        """Cut the pause short, since someone waits; not within the shortest pauses after a break."""
        if self.state == "broken" and self._clock.monotonic() - self._broken_at >= self._backoff.after_ready_s:
            self._hurry.set()

    async def _one_life(self) -> str:
        self.lives += 1
        self._ready_at = None
        self._become("starting", self.reason)
        try:
            await self._live(self._ready)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not ours: a cancel scope inside the life leaked its own cancellation.
            return self._explain(error)
        except Exception as error:  # noqa: BLE001 - the border this class exists for
            return self._explain(error)
        return "it ended by itself"

    def _ready(self) -> None:
        self._ready_at = self._clock.monotonic()
        if self.lives > 1:
            logger.info("%s is ready again", self.name)
        self._become("ready", None)

    def _become(self, state: State, why: str | None) -> None:
        self.state, self.reason = state, why
        self._changed.set()
        self._changed = asyncio.Event()

    async def _pause(self, seconds: float) -> None:
        self._hurry.clear()
        async with asyncio.TaskGroup() as group:
            waits = {
                group.create_task(self._clock.sleep(seconds), name=f"{self.name} pause"),
                group.create_task(self._hurry.wait(), name=f"{self.name} hurry"),
            }
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
