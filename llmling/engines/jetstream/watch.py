"""What an event meets that is skipped or coalesced beside others of its trigger and key, over all processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.book import Found, digest
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.link import Conflict
from llmling.engines.overlap import WATCHED
from llmling.protocols import Delivery


@dataclass(frozen=True, slots=True)
class _Seen:
    """The open events that were written down before one, and the version in which they were."""

    before: tuple[Found, ...]
    listed: bool
    found: Found | None


class Watch:
    """Remembers the open events of each trigger and key that look at one another, oldest first.

    An event is written before it is put on the list, and queued after it: whoever dies in between leaves one that is
    looked at again before it is queued.
    """

    def __init__(self, archive: Archive, hearing: Hearing, wall: Callable[[], float]) -> None:
        self._archive = archive
        self._hearing = hearing
        self._wall = wall

    async def sees(self, doc: Doc) -> bool:
        """Whether a new event would be skipped, or take the place of another one: then it needs no room."""
        if doc["watch"] is None:
            return False
        seen = await self._look(doc)
        return bool(seen.before) and (doc["overlap"] == "skip" or any(map(_makes_room, seen.before)))

    async def meet(self, found: Found) -> Found:
        """Put an event that is written and has not begun on the list; return it as it is then.

        Raises:
            Unreachable: NATS does not answer.
        """
        doc = found.value
        if doc["watch"] is None or doc["finished"] is not None or not events.untouched(doc["deliveries"][0]):
            return found
        while True:
            seen = await self._look(doc)
            if doc["overlap"] == "skip" and seen.before and not seen.listed:
                return await self._skip(found)
            if seen.listed or await self._list(doc, seen):
                break
        if doc["overlap"] == "coalesce":
            for other in seen.before:
                await self._coalesce(other, doc["id"])
        return found

    async def reopen(self, doc: Doc) -> None:
        """Put an event on the list that was settled and is open again."""
        while doc["watch"] is not None:
            seen = await self._look(doc)
            if seen.listed or await self._list(doc, seen):
                return

    async def _look(self, doc: Doc) -> _Seen:
        found = await self._archive.book.get(doc["watch"])
        before: list[Found] = []
        listed: list[str] = [] if found is None else found.value
        for event_id in listed:
            if event_id == doc["id"]:
                return _Seen(tuple(before), listed=True, found=found)
            other = await self._archive.find(event_id)
            if other is not None and other.value["finished"] is None:
                before.append(other)
        return _Seen(tuple(before), listed=False, found=found)

    async def _list(self, doc: Doc, seen: _Seen) -> bool:
        open_ = [*(each.value["id"] for each in seen.before), doc["id"]]
        try:
            await self._archive.book.write(doc["watch"], open_, seen.found, group=doc["watch"])
        except Conflict:
            return False
        return True

    async def _skip(self, found: Found) -> Found:
        now = self._wall()

        def skip(doc: Doc) -> bool:
            if doc["finished"] is not None or not events.untouched(doc["deliveries"][0]):
                return False
            events.skip(doc, now)
            return True

        return await self._archive.change(found.value["id"], skip, found=found) or found

    async def _coalesce(self, found: Found, newer_id: str) -> None:
        now, event_id = self._wall(), found.value["id"]
        settled = await self._archive.change(event_id, lambda doc: events.coalesce(doc, newer_id, now), found=found)
        if settled is not None:
            # First: NATS may not answer to the rest.
            await self._hearing.announce(settled, before=found.value)
            await self._archive.unqueue(settled.value, found.value["deliveries"])
            await self._archive.leave(settled.value, settled.value["deliveries"])


def watched(doc: Doc, trigger: str, delivery: Delivery) -> None:
    """Write down in a new event at which others it looks, if it does."""
    if delivery.overlap in WATCHED:
        line = "" if delivery.order_key is None else f"={delivery.order_key}"
        doc["overlap"], doc["watch"] = delivery.overlap, f"watch.{digest(trigger)}.{digest(line)}"


def _makes_room(found: Found) -> bool:
    return events.untouched(found.value["deliveries"][0])
