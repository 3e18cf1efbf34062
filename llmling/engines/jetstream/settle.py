"""How a delivery ends: written once, over the version in which it was begun, whoever else may have run it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import assert_never

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.book import Found
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.lane import Lane, Ticket
from llmling.engines.jetstream.link import Unreachable
from llmling.engines.jetstream.recorder import StepRecorder
from llmling.engines.jetstream.rooms import Rooms
from llmling.engines.steady import SteadyTime
from llmling.protocols import Again, Dead, Delivery, Done, Policy, Settlement, Waiting
from llmling.records import gone
from llmling.runtime.tasks import TaskSet

log = logging.getLogger("llmling.engine")


class Settler:
    """Settles deliveries that this process has begun, and queues what follows, now or after a back-off."""

    def __init__(
        self, archive: Archive, hearing: Hearing, rooms: Rooms, time: SteadyTime, host: str, tasks: TaskSet
    ) -> None:
        self._archive = archive
        self._hearing = hearing
        self._rooms = rooms
        self._time = time
        self._host = host
        self._tasks = tasks
        self._timers: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._policies: Mapping[str, Policy] = {}
        self._max_messages = 0
        self._closed = False

    def serve(self, policies: Mapping[str, Policy], max_messages: int) -> None:
        """Settle by these rules from now on."""
        self._policies = policies
        self._max_messages = max_messages

    def close(self) -> None:
        """Queue nothing later any more; another process does, or this one at its next start."""
        self._closed = True
        for timer in list(self._timers.values()):
            timer.cancel()

    async def bury(self, lane: Lane, ticket: Ticket, found: Found) -> None:
        """Settle a delivery as dead whose process died on its last try."""
        now = self._time.wall()
        seen = events.find(found.value, ticket.delivery_id)

        def bury(doc: Doc) -> bool:
            entry = events.find(doc, ticket.delivery_id)
            if entry is None or seen is None or not events.held_by(entry, seen["owner"], seen["attempts"]):
                return False
            entry["crashes"] += 1
            events.kill(entry, events.died(entry), now)
            events.refresh(doc, now)
            return True

        buried = await self._archive.change(ticket.event_id, bury, found=found)
        if buried is not None:
            await self._hearing.announce(buried, before=found.value)
            await self._leave(buried, ticket)
            await lane.ack(ticket)

    async def settle(
        self, lane: Lane, ticket: Ticket, found: Found, attempt: int, settlement: Settlement, journal: StepRecorder
    ) -> None:
        """Write how a delivery ended, its successors and what this means for its event, then let the queue forget it.

        In this order, so that whoever is handed it again finds what is left to do.
        """
        await journal.flush()
        if isinstance(settlement, Again) and lane.agent not in self._policies:
            settlement = Dead(gone(lane.agent), settlement.cost_usd)
        now, due = self._time.wall(), self._time.now()
        refused: dict[str, str] = {}
        if isinstance(settlement, Done):
            refused = await self._archive.book.link.patiently(lambda: self._rooms.refused(settlement.successors))
        fresh: list[str] = []

        def settle(doc: Doc) -> bool:
            entry = events.find(doc, ticket.delivery_id)
            if entry is None or not events.held_by(entry, self._host, attempt):
                return False
            before = len(doc["deliveries"])
            _write(entry, settlement, now, due, last=attempt >= lane.policy.attempts)
            if isinstance(settlement, Done):
                self._follow(doc, settlement.successors, refused, now)
            fresh[:] = [each["id"] for each in doc["deliveries"][before:]]
            events.refresh(doc, now)
            doc["told"] = doc["told"] or (doc["finished"] is not None and self._hearing.tells(doc))
            return True

        written = await self._archive.change(ticket.event_id, settle, found=found, patient=True)
        if written is None:
            await self._not_ours(lane, ticket)
            return
        await self.after(written, fresh=[*fresh, ticket.delivery_id], before=found.value)
        await self._leave(written, ticket)
        await lane.ack(ticket)

    async def after(self, found: Found, *, fresh: Iterable[str], before: Doc | None) -> None:
        """Queue what a change has made pending, now or later, and tell of the change."""
        doc, wanted = found.value, set(fresh)
        pending = [each for each in doc["deliveries"] if each["id"] in wanted and each["status"] == "pending"]
        now = [each for each in pending if each["due"] <= self._time.now()]
        await self._archive.book.link.patiently(lambda: self._archive.queue(doc, now))
        self.queue_later(doc["id"], [each for each in pending if each not in now])
        await self._hearing.announce(found, before=before)

    async def _leave(self, found: Found, ticket: Ticket) -> None:
        entry = events.find(found.value, ticket.delivery_id)
        if entry is not None:
            await self._archive.book.link.patiently(lambda: self._archive.leave(found.value, [entry]))

    def _follow(self, doc: Doc, successors: Iterable[Delivery], refused: Mapping[str, str], now: float) -> None:
        for delivery in successors:
            total, reason = len(doc["deliveries"]), delivery.dead
            if reason is None and delivery.agent not in self._policies:
                reason = gone(delivery.agent)
            if reason is None and total >= self._max_messages:
                reason = (
                    f"the event has caused {total} messages already; raise limits.max_messages_per_event "
                    f"({self._max_messages}) or look for a loop in `connections`"
                )
            events.add(doc, delivery, now, reason or refused.get(delivery.id))

    async def complete(self, lane: Lane, ticket: Ticket, found: Found) -> None:
        """Do what is left to do behind the end of a try whose writer has died, or did not hear that it was written."""
        doc = found.value
        entry = events.find(doc, ticket.delivery_id)
        await self.after(found, fresh=[each["id"] for each in doc["deliveries"]], before=doc)
        # An end is written as told by who is about to tell it: only the ticket of what ended then knows of it.
        last = entry is not None and entry["finished"] == doc["finished"]
        if doc["finished"] is not None and (last or not doc["told"]):
            await self._hearing.adopt(doc, None if entry is None else entry["owner"])
        await self._archive.leave(doc, doc["deliveries"])
        await lane.ack(ticket)

    async def _not_ours(self, lane: Lane, ticket: Ticket) -> None:
        """Take a ticket out of the queue only when its delivery is nobody else's either."""
        found = await self._archive.find(ticket.event_id)
        entry = None if found is None else events.find(found.value, ticket.delivery_id)
        if found is None or entry is None:
            await lane.ack(ticket)
        elif entry["turn"] == ticket.turn and entry["status"] in {"pending", "running"}:
            log.warning("delivery %s was taken over meanwhile; what it answered here is dropped", ticket.delivery_id)
        elif ticket.stopped:
            # Who has stopped it does the rest.
            await lane.ack(ticket)
        else:
            await self.complete(lane, ticket, found)

    async def release(self, lane: Lane, ticket: Ticket, found: Found, attempt: int) -> None:
        """Give a delivery that was cut off back, and its try."""
        now = self._time.wall()

        def release(doc: Doc) -> bool:
            entry = events.find(doc, ticket.delivery_id)
            if entry is None or not events.held_by(entry, self._host, attempt):
                return False
            entry["status"], entry["attempts"], entry["owner"] = "pending", attempt - 1, None
            events.refresh(doc, now)
            return True

        try:
            await self._archive.change(ticket.event_id, release, found=found)
            await lane.give_back(ticket)
        except Unreachable:
            log.warning("delivery %s could not be given back before the end; it counts as a try", ticket.delivery_id)

    # --- later ---------------------------------------------------------------------------------------------------

    def queue_later(self, event_id: str, entries: Iterable[Doc]) -> None:
        """Queue deliveries again once their back-off is over; every process does, and one of them is first."""
        for entry in entries:
            place = entry["id"], entry["turn"]
            if entry["status"] != "pending" or not entry["due"] or place in self._timers or self._closed:
                continue
            # A wall clock that was set back, or another machine's, must not make anything wait longer than it should.
            due = min(entry["due"], self._time.now() + entry["wait_s"])
            timer = self._tasks.spawn(self._queue_at(event_id, dict(entry), due), name=f"back-off of {entry['id']}")
            self._timers[place] = timer
            timer.add_done_callback(lambda _, place=place: self._timers.pop(place, None))

    async def _queue_at(self, event_id: str, entry: Doc, due: float) -> None:
        while (left_s := due - self._time.now()) > 0:
            await self._time.sleep(left_s)
        await self._archive.book.link.patiently(lambda: self._archive.queue({"id": event_id}, [entry]))


def _write(entry: Doc, settlement: Settlement, now: float, due: float, *, last: bool) -> None:
    """Write how a delivery ended, or when it is tried again."""
    if settlement.cost_usd is not None:
        entry["cost"] = (entry["cost"] or 0) + settlement.cost_usd
    match settlement:
        case Done(content, _, usage, _, model):
            entry.update(status="done", content=content, error=None, model=model, finished=now)
            entry["usage"] = usage.to_dict() if usage.requests else None
        case Again(reason, after_s) if not last:
            entry.update(status="pending", error=reason, wait_s=after_s, due=due + after_s if after_s > 0 else 0.0)
            entry["turn"] += 1
        case Again(reason) | Dead(reason):
            events.kill(entry, reason, now)
        case Waiting(reason):
            entry.update(status="waiting", error=reason)
        case _ as never:
            assert_never(never)
