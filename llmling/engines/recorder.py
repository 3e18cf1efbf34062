"""The step journal of one delivery, as its run sees it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

from llmling.engines import records
from llmling.engines.batches import record
from llmling.engines.records import StepRow
from llmling.engines.transaction import OneOfMany, Posted
from llmling.engines.writer import Writer
from llmling.protocols import Step


class StepRecorder:
    """Knows the steps of earlier attempts and writes those of this one, in their order."""

    def __init__(self, writer: Writer, delivery_id: str, steps: Iterable[Step]) -> None:
        self._writer = writer
        self._delivery_id = delivery_id
        self._steps = {step.key: step for step in steps}
        self._written = self._durable = 0
        self._last: tuple[Posted, StepRow] | None = None

    def recorded(self, key: str) -> Step | None:
        """Return the step of an earlier or this attempt, or None."""
        return self._steps.get(key)

    async def record(self, step: Step, *, committed: bool = False) -> None:
        """Record a step; with `committed` return only when it is on disk.

        While the store cannot be written the step is kept and written later; `committed` then waits. Cancelling
        does not undo it.
        """
        if committed:
            await self._committed(OneOfMany(record, self._row(step)))
        else:
            self.note(step)

    def note(self, step: Step) -> None:
        """Record a step soon, in its order."""
        row = self._row(step)
        self._last = self._writer.post(OneOfMany(record, row)), row

    def take_back(self) -> StepRow | None:
        """Return the last step, to be written with the end of its delivery, unless it is on its way already."""
        return self._last[1] if self._last is not None and self._writer.take_back(self._last[0]) else None

    async def flush(self) -> None:
        """Return when everything recorded is on disk."""
        if self._durable < self._written:
            await self._committed(OneOfMany(_nothing, None))

    async def _committed(self, run: Callable[[sqlite3.Connection], None]) -> None:
        written = self._written
        await self._writer.submit(run, patient=True)
        self._durable = max(self._durable, written)

    def _row(self, step: Step) -> StepRow:
        row = records.step_row(self._delivery_id, step)
        self._steps[step.key] = step
        self._written += 1
        return row


def _nothing(connection: sqlite3.Connection, items: Sequence[None]) -> list[None]:
    """Commit what was queued before."""
    return [None] * len(items)
