"""What happened, for whoever asks: events, their deliveries and why they wait, and how many there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.hosts import Hosts
from llmling.engines.jetstream.listing import Listing
from llmling.engines.jetstream.reasons import Reasons
from llmling.engines.steady import SteadyTime
from llmling.protocols import EventRecord, EventStatus, Store


class Reader:
    """Reads events; nothing here changes one."""

    def __init__(self, archive: Archive, hearing: Hearing, hosts: Hosts, store: Store, time: SteadyTime) -> None:
        self._archive = archive
        self._hearing = hearing
        self._hosts = hosts
        self._store = store
        self._time = time
        self._listing = Listing(archive.book)

    async def runs(
        self, status: EventStatus | None, trigger: str | None, limit: int | None
    ) -> AsyncGenerator[EventRecord]:
        """Yield events, newest first, without their deliveries."""
        reasons = self._reasons()
        for heading in await self._listing.newest(status, trigger, limit):
            found = await self._archive.book.get(heading.key)
            if found is not None and "gone" not in found.value:
                seen, _ = await reasons.of(found.value)
                yield events.event_record(found.value, seen=seen)

    async def inspect(self, event_id: str) -> EventRecord | None:
        """Return one event with its deliveries and their steps, first delivery first."""
        found = await self._archive.find(event_id)
        if found is None:
            return None
        seen, by_delivery = await self._reasons().of(found.value)
        return events.event_record(found.value, await self._archive.all_steps(found.value), seen, by_delivery)

    async def counts(self) -> dict[str, int]:
        """Return how many events there are by status; a status nobody has is left out."""
        return await self._listing.counts()

    def _reasons(self) -> Reasons:
        return Reasons(self._archive, self._hearing, self._hosts, self._store, self._time.now())
