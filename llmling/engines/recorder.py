"""The step journal of one delivery, as its run sees it."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterable

from llmling.engines import ledger, records
from llmling.engines.writer import Writer
from llmling.protocols import Step


class StepRecorder:
    """Knows the steps of earlier attempts and writes those of this one, in their order."""

    def __init__(self, writer: Writer, delivery_id: str, steps: Iterable[Step]) -> None:
        self._writer = writer
        self._delivery_id = delivery_id
        self._steps = {step.key: step for step in steps}

    def recorded(self, key: str) -> Step | None:
        """Return the step of an earlier or this attempt, or None."""
        return self._steps.get(key)

    async def record(self, step: Step, *, committed: bool = False) -> None:
        """Record a step; with `committed` return only when it is on disk.

        While the store cannot be written the step is kept and written later; `committed` then waits. Cancelling
        does not undo it.
        """
        if committed:
            await self._writer.submit(self._write(step), patient=True)
        else:
            self._writer.post(self._write(step))

    def note(self, step: Step) -> None:
        """Record a step soon, in its order."""
        self._writer.post(self._write(step))

    def _write(self, step: Step) -> Callable[[sqlite3.Connection], None]:
        write = functools.partial(
            _write, self._delivery_id, records.stored(step.key), step.kind, records.encode(dict(step.data))
        )
        self._steps[step.key] = step
        return write


def _write(delivery_id: str, key: str | bytes, kind: str, data: str, connection: sqlite3.Connection) -> None:
    ledger.record(connection, delivery_id, key, kind, data)
