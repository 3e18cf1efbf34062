"""How an event comes in: its key, its record, its place beside others, its place in the queue, in this order."""

from __future__ import annotations

from collections.abc import Sequence

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive, key_of
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.link import Conflict
from llmling.engines.jetstream.rooms import Rooms
from llmling.engines.jetstream.watch import Watch
from llmling.errors import EngineError, Full
from llmling.protocols import Receipt


class Intake:
    """Accepts events so that whatever dies in between, who sends again finds the one event or completes it."""

    def __init__(self, archive: Archive, hearing: Hearing, rooms: Rooms, watch: Watch) -> None:
        self._archive = archive
        self._hearing = hearing
        self._rooms = rooms
        self._watch = watch

    async def accept(self, doc: Doc, expires: float | None, now: float) -> Receipt:
        """Write an event and queue its delivery, unless its key or the event is known or there is no room.

        Raises:
            Full: The inbox is full.
        """
        name: str | None = doc["key"]
        entry: Doc | None = doc["deliveries"][0] if doc["deliveries"] else None
        roomy = entry is None or entry["status"] == "dead"
        while True:
            over = None if name is None else await self._archive.book.get(name)
            if over is not None and (over.value["expires"] is None or over.value["expires"] > now):
                known = await self._known(over.value)
                if known is not None:
                    return known
                # Whoever took the key died before the event was written: this is that event.
                doc = _renamed(doc, over.value["event"])
            elif not roomy:
                if (known := await self._again(doc["id"])) is not None:
                    return known
                roomy = await self._watch.sees(doc) or await self._room(doc)
            if name is not None and (over is None or over.value["event"] != doc["id"]):
                try:
                    await self._archive.take_key(name, doc["id"], expires, over)
                except Conflict:
                    continue
            try:
                found = await self._archive.create(doc)
            except Conflict:
                if (known := await self._again(doc["id"])) is not None:
                    return known
                raise EngineError(f"event {doc['id']} has just been forgotten") from None
            doc = (found := await self._watch.meet(found)).value
            await self._archive.queue(doc, [each for each in doc["deliveries"] if each["status"] == "pending"])
            if doc["finished"] is not None:
                await self._hearing.announce(found)
            return events.receipt(doc, new=True)

    async def _room(self, doc: Doc) -> bool:
        agent = doc["deliveries"][0]["agent"]
        if (reason := await self._rooms.take(agent)) is None:
            return True
        raise Full(reason, retry_after_s=self._rooms.room_in_s(agent))

    async def _again(self, event_id: str) -> Receipt | None:
        """Return the receipt of an event that is known; it is queued if that was not done yet."""
        found = await self._archive.find(event_id)
        if found is None:
            return None
        doc = (found := await self._watch.meet(found)).value
        if doc["finished"] is not None and not doc["told"]:
            await self._hearing.end(found)
        fresh = [each for each in doc["deliveries"][:1] if each["status"] == "pending" and not each["attempts"]]
        await self._archive.queue(doc, [each for each in fresh if not each["due"]])
        return events.receipt(doc)

    async def _known(self, key: Doc) -> Receipt | None:
        receipt = await self._again(key["event"])
        return Receipt(key["event"], new=False, status="done") if receipt is None and "gone" in key else receipt

    async def known(self, trigger: str, keys: Sequence[str], now: float) -> dict[str, Receipt]:
        """Return the receipts of those keys that are known."""
        receipts: dict[str, Receipt] = {}
        for key in keys:
            found = await self._archive.book.get(key_of(trigger, key))
            if found is not None and (found.value["expires"] is None or found.value["expires"] > now):
                receipt = await self._known(found.value)
                if receipt is not None:
                    receipts[key] = receipt
        return receipts


def _renamed(doc: Doc, event_id: str) -> Doc:
    """Return a new event under the id that its key was written down with."""
    if doc["id"] == event_id:
        return doc
    renamed = {**doc, "id": event_id, "event": {**doc["event"], "id": event_id}}
    renamed["deliveries"] = [
        {**each, "id": event_id + each["id"].removeprefix(doc["id"])} for each in doc["deliveries"]
    ]
    return renamed
