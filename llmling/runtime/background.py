"""A prompt that is run again and again until stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llmling.errors import LLMlingError
from llmling.messages import RunResult
from llmling.runtime.batch import Runner
from llmling.runtime.clock import Clock

logger = logging.getLogger("llmling")


class Background:
    """The background run of one agent; there is at most one."""

    def __init__(self, agent: Runner, name: str, clock: Clock) -> None:
        self._agent = agent
        self._name = name
        self._clock = clock
        self._task: asyncio.Task[RunResult | None] | None = None
        self._stopping: set[asyncio.Task[RunResult | None]] = set()

    async def start(
        self, prompt: str | Callable[[], str], *, interval: float, max_count: int | None
    ) -> asyncio.Task[RunResult | None]:
        """Begin, after ending an earlier one; returns the task, whose result is that of the last good round.

        Raises:
            ValueError: The prompt is empty, or a number makes no sense.
        """
        if isinstance(prompt, str) and not prompt.strip():
            raise ValueError("the prompt is empty: pass the text the agent should answer")
        if interval < 0 or (max_count is not None and max_count < 1):
            raise ValueError("interval must not be negative and max_count at least 1")
        # Again, when another call has begun rounds of its own while this one waited for the end of those before.
        while self._task is not None:
            await self.stop()
        self._task = task = asyncio.create_task(
            self._rounds(prompt, interval, max_count), name=f"llmling background of {self._name}"
        )
        # A task cancelled before its first step could not return the last result.
        await asyncio.sleep(0)
        return task

    async def stop(self) -> None:
        """End the rounds; the one under way is cancelled."""
        task, self._task = self._task, None
        if task is None or task.done():
            return
        self._stopping.add(task)
        task.cancel()
        await asyncio.wait({task})
        self._stopping.discard(task)

    async def _rounds(
        self, prompt: str | Callable[[], str], interval: float, max_count: int | None
    ) -> RunResult | None:
        last: RunResult | None = None
        count = 0
        try:
            while max_count is None or count < max_count:
                if count:
                    await self._clock.sleep(interval)
                count += 1
                try:
                    last = await self._agent.run(prompt if isinstance(prompt, str) else prompt())
                except (LLMlingError, ValueError) as error:
                    logger.warning("background round %d of agent %r failed: %s", count, self._name, error)
        except asyncio.CancelledError:
            # `stop()` is an orderly end, so whoever awaits the task gets the last result.
            if asyncio.current_task() not in self._stopping:
                raise
        return last
