"""Who wants to know that an event has settled or waits: the pool, and those that wait for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager

from llmling.engines import records, upkeep
from llmling.engines.records import Change, EventRow
from llmling.engines.transaction import OneOfMany
from llmling.engines.writer import Writer
from llmling.errors import EngineError
from llmling.events import Event
from llmling.protocols import Settled

log = logging.getLogger("llmling.engine")


class Hearing:
    """Tells of settled events, each at least once: what was told is written down afterwards.

    So a process that dies in between, or another process that settles an event, leaves nothing untold. That an event
    waits for a person is told once, by the process in which it begins to.
    """

    def __init__(self) -> None:
        self._writer: Writer | None = None
        self._settled: Settled | None = None
        self._waits: Settled | None = None
        self._told: set[tuple[str, float]] = set()
        self._marks: list[tuple[str, float]] = []
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def serve(self, writer: Writer, settled: Settled | None, waiting: Settled | None = None) -> None:
        """Tell `settled`, and `waiting` of events that wait for a person, from now on."""
        self._writer = writer
        self._settled = settled
        self._waits = waiting

    @contextmanager
    def listen(self, event_id: str) -> Generator[asyncio.Event]:
        """Give an event that is set whenever a delivery of this one may have settled."""
        changed = asyncio.Event()
        self._waiting.setdefault(event_id, set()).add(changed)
        try:
            yield changed
        finally:
            listeners = self._waiting[event_id]
            listeners.discard(changed)
            if not listeners:
                del self._waiting[event_id]

    def wake_all(self) -> None:
        """Let all that wait look again."""
        self._wake(list(self._waiting))

    def hear(self, change: Change, known: Event | None = None) -> None:
        """Tell what a commit has settled, and what waits because of it; `known` is an event it may be about."""
        if self._waiting:
            self._wake(change.touched)
        if self._waits is not None:
            for event in change.waiting:
                _call(self._waits, event, known)
        if change.settled:
            self._tell(change.settled, known)

    async def catch_up(self) -> None:
        """Tell what was settled by others, or by an earlier process that died before it told.

        Raises:
            EngineError: The store cannot be read.
        """
        # Through the writer: its callbacks come in order, so what this process settled itself was told before.
        while self._writer is not None:
            found = await self._writer.submit(upkeep.untold, committed=self._tell)
            if len(found) < upkeep.CHUNK:
                return

    def flush(self) -> None:
        """Write down now what was told; the last chance before the writer closes."""
        if self._marks:
            self._mark()

    def _wake(self, event_ids: Iterable[str]) -> None:
        for event_id in event_ids:
            for changed in self._waiting.get(event_id, ()):
                changed.set()

    def _tell(self, settled: list[EventRow], known: Event | None = None) -> None:
        if self._writer is None:
            return
        for event in settled:
            mark = records.settling(event)
            if mark in self._told:
                continue
            self._told.add(mark)
            if not self._marks:
                # Once for all that this turn of the loop tells.
                asyncio.get_running_loop().call_soon(self._mark)
            self._marks.append(mark)
            if self._settled is not None:
                _call(self._settled, event, known)

    def _mark(self) -> None:
        marks, self._marks = self._marks, []
        if self._writer is None or not marks:
            return
        try:
            self._writer.post(
                OneOfMany(upkeep.told, [event_id for event_id, _ in marks]),
                committed=lambda _: self._told.difference_update(marks),
            )
        except EngineError:
            log.info("%d settled events are told again at the next start", len(marks))


def _call(listener: Settled, event: EventRow, known: Event | None) -> None:
    try:
        listener(records.event_record(event, known=known))
    except Exception:  # the border to whoever listens: no event is lost for that
        log.exception("the listener failed for event %s; the event itself is safe", event[0])
