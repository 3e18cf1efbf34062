"""The side of an engine that is read: what happened, what is known, and waiting for what will be."""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence

from llmling.engines import queries
from llmling.engines.database import Database
from llmling.engines.hearing import Hearing
from llmling.engines.reasons import Sight
from llmling.errors import EngineError
from llmling.protocols import EventRecord, EventStatus, Receipt
from llmling.runtime.clock import Clock

_PAGE = 100
_SETTLED: tuple[EventStatus, ...] = ("done", "dead")


class Reading(ABC):
    """Reads the journal of an engine that has opened its database; a stopped one lets go of all that wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hearing = Hearing()
        self._database: Database | None = None
        self._leave = asyncio.Event()

    @property
    @abstractmethod
    def serving(self) -> bool:
        """Whether any process serves this journal right now."""

    def _opened(self) -> Database:
        if self._database is None:
            raise EngineError("the engine is not open")
        return self._database

    def _sight(self) -> Sight:
        return Sight(self._clock.unix(), self.serving)

    async def known(self, trigger: str, keys: Sequence[str]) -> dict[str, Receipt]:
        """Return the receipts of those keys that are known."""
        now = self._clock.unix()
        return await self._opened().read(lambda connection: queries.known(connection, trigger, keys, now))

    # --- what happened -----------------------------------------------------------------------------------------------

    async def runs(
        self, *, status: EventStatus | None = None, trigger: str | None = None, limit: int | None = 100
    ) -> AsyncIterator[EventRecord]:
        """Yield events, newest first, without their deliveries."""
        before: int | None = None
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            query = functools.partial(queries.page, status=status, trigger=trigger, before=before, limit=size)
            events, before = await self._opened().read(functools.partial(query, sight=self._sight()))
            for event in events:
                yield event
            if len(events) < size:
                return
            left = None if left is None else left - size

    async def inspect(self, event_id: str) -> EventRecord | None:
        """Return one event with its deliveries and their steps, first delivery first."""
        return await self._opened().read(functools.partial(queries.inspect, event_id=event_id, sight=self._sight()))

    async def counts(self) -> dict[str, int]:
        """Return how many events there are by status; a status nobody has is left out."""
        return await self._opened().read(queries.counts)

    async def wait(self, event_id: str, timeout_s: float | None = None) -> EventRecord | None:
        """Return the event once it is done or dead, or None after `timeout_s`, when unknown and when stopped."""
        return await self._wait_for(event_id, timeout_s, lambda event, _: event in _SETTLED)

    async def wait_answer(self, event_id: str, timeout_s: float | None = None) -> EventRecord | None:
        """Return the event once its first delivery is settled, whatever its successors do; None after `timeout_s`.

        An event that is done or dead returns at once, an unknown one is None at once.
        """
        return await self._wait_for(event_id, timeout_s, lambda event, first: event in _SETTLED or first in _SETTLED)

    async def _wait_for(
        self, event_id: str, timeout_s: float | None, over: Callable[[EventStatus, EventStatus | None], bool]
    ) -> EventRecord | None:
        database = self._opened()
        query = functools.partial(queries.awaited, event_id=event_id, over=over)
        try:
            async with asyncio.timeout(timeout_s):
                with self._hearing.listen(event_id) as changed:
                    while True:
                        changed.clear()
                        known, record = await database.read(functools.partial(query, sight=self._sight()))
                        if record is not None or not known or self._leave.is_set():
                            return record
                        await changed.wait()
        except TimeoutError:
            return None
        except EngineError:
            if not self._leave.is_set():
                raise
        return None
