"""The step journal of one delivery, as its run sees it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from dataclasses import replace

from llmling.engines import records
from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.book import Found
from llmling.protocols import Step
from llmling.runtime.tasks import TaskSet


class StepRecorder:
    """Knows the steps of earlier attempts and writes those of this one, in their order.

    While NATS cannot be reached steps are kept and written later, until the run is given up. What the server gets only
    after somebody else has begun the delivery, from the buffers of a connection, is not read by anybody.
    """

    def __init__(self, archive: Archive, tasks: TaskSet, begun: Found, delivery_id: str, steps: Iterable[Step]) -> None:
        """`begun` is the event as it was written when the attempt began."""
        self._archive = archive
        self._tasks = tasks
        self._event_id: str = begun.value["id"]
        self._begun = begun.revision
        self._delivery_id = delivery_id
        self._steps = {step.key: step for step in steps}
        self._last: asyncio.Task[None] | None = None
        self._given_up = False

    def recorded(self, key: str) -> Step | None:
        """Return the step of an earlier or this attempt, or None."""
        return self._steps.get(key)

    async def record(self, step: Step, *, committed: bool = False) -> None:
        """Record a step; with `committed` return only when NATS has it. Cancelling does not undo it."""
        writing = self._begin(step)
        if committed:
            await asyncio.shield(writing)

    def note(self, step: Step) -> None:
        """Record a step soon, in its order."""
        self._begin(step)

    async def flush(self) -> None:
        """Return when every step is written."""
        if self._last is not None:
            await asyncio.shield(self._last)

    def give_up(self) -> None:
        """Write nothing more: somebody else may run this delivery now."""
        self._given_up = True

    def _begin(self, step: Step) -> asyncio.Task[None]:
        step = replace(step, data=dict(step.data))
        records.encode(step.data)
        self._steps[step.key] = step
        self._last = self._tasks.spawn(self._write(step, self._last), name=f"step of {self._delivery_id}")
        return self._last

    async def _write(self, step: Step, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        await self._archive.book.link.patiently(functools.partial(self._put, step))

    async def _put(self, step: Step) -> None:
        if not self._given_up:
            await self._archive.write_step(self._event_id, self._delivery_id, step, self._begun)
