"""What an operator does to an event: try it again, give it up, or decide what it waits for; from any process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from llmling.asks import Decision, open_asks, place
from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive, step_data
from llmling.engines.jetstream.book import Found
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.watch import Watch
from llmling.engines.steady import SteadyTime
from llmling.protocols import Step
from llmling.records import gone


class Operator:
    """Changes events over the version that was read; of two who decide at once, the first counts."""

    def __init__(
        self, archive: Archive, hearing: Hearing, watch: Watch, time: SteadyTime, knows: Callable[[str], bool]
    ) -> None:
        """`knows` tells whether there is an agent of that name."""
        self._knows = knows
        self._archive = archive
        self._hearing = hearing
        self._watch = watch
        self._time = time
        self._turn = asyncio.Lock()

    async def retry(self, event_id: str) -> int:
        """Give the dead and waiting deliveries of an event their tries back; one in its back-off is due at once.

        Calls that were in flight are forgotten, so that they are made again: somebody decided.
        """
        async with self._turn:
            return await self._retry(event_id)

    async def _retry(self, event_id: str) -> int:
        now, due = self._time.wall(), self._time.now()
        again: list[str] = []
        hastened: list[str] = []

        def retry(doc: Doc) -> bool:
            again.clear()
            hastened.clear()
            for entry in doc["deliveries"]:
                if entry["status"] in {"dead", "waiting"}:
                    again.append(entry["id"])
                    self._requeue(entry, now)
                elif entry["status"] == "pending" and entry["due"] > due:
                    hastened.append(entry["id"])
                    entry.update(due=0.0, wait_s=0.0, turn=entry["turn"] + 1)
            if again:
                doc.update(outcome=None, finished=None, told=False)
                events.refresh(doc, now)
            return bool(again or hastened)

        found = await self._archive.change(event_id, retry)
        if found is None:
            return 0
        doc = found.value
        if again:
            await self._watch.reopen(doc)
        steps = await self._archive.steps(doc)
        for delivery_id in again:
            known = {step.key for step in steps[delivery_id]}
            for step in steps[delivery_id]:
                if step.kind == "call" and step.key.removesuffix(":call") + ":result" not in known:
                    await self._archive.forget_step(event_id, delivery_id, step.key)
        await self._queue(found, [*again, *hastened])
        return len(again) + len(hastened)

    async def drop(self, event_id: str) -> int:
        """Settle the open deliveries of an event as dead, or forget an event that is settled; return how many."""
        async with self._turn:
            dropped = await self.settle(event_id, None, "dropped by operator")
            return dropped or int(await self._archive.forget(event_id))

    async def settle(self, event_id: str, delivery_id: str | None, reason: str) -> int:
        """Settle one or all open deliveries of an event as dead; return how many."""
        now = self._time.wall()
        killed: list[Doc] = []
        places = await self._places(event_id)

        def kill(doc: Doc) -> bool:
            entries = [each for each in doc["deliveries"] if each["status"] not in events.OVER]
            if delivery_id is not None:
                entries = [each for each in entries if each["id"] == delivery_id and each["status"] == "pending"]
            killed[:] = [dict(each) for each in entries]
            for each in entries:
                each["place"] = places.get(each["id"], each["place"])
                events.kill(each, reason, now)
            events.refresh(doc, now)
            return bool(entries)

        found = await self._archive.change(event_id, kill)
        if found is None:
            return 0
        # First: NATS may not answer to the rest.
        stopped = [each["id"] for each in killed if each["status"] == "running"]
        await self._hearing.announce(found, stopped=stopped)
        dead = {each["id"] for each in killed}
        await self._archive.unqueue(found.value, [each for each in killed if each["status"] == "pending"])
        await self._archive.leave(found.value, [each for each in found.value["deliveries"] if each["id"] in dead])
        return len(killed)

    async def _places(self, event_id: str) -> dict[str, int | None]:
        """Return where the deliveries of an event stand in their lines: one that is retried comes back to there."""
        found = await self._archive.find(event_id)
        if found is None:
            return {}
        entries: list[Doc] = found.value["deliveries"]
        keyed = [each for each in entries if each["order_key"] is not None and each["status"] not in events.OVER]
        return {each["id"]: await self._archive.lines.place(found.value, each) for each in keyed}

    async def decide(self, event_id: str, decision: Decision, seen: Collection[str] | None) -> int:
        """Settle what the first waiting delivery asks that such a decision answers; return how many asks."""
        async with self._turn:
            return await self._decide(event_id, decision, seen)

    async def _decide(self, event_id: str, decision: Decision, seen: Collection[str] | None) -> int:
        now = self._time.wall()
        while (found := await self._archive.find(event_id)) is not None:
            steps = await self._archive.steps(found.value)
            chosen: tuple[str, list[Step]] | None = None
            for entry in found.value["deliveries"]:
                asks = decision.settles(open_asks(steps[entry["id"]])) if entry["status"] == "waiting" else ()
                if asks and (seen is None or all(place(entry["id"], ask) in seen for ask in asks)):
                    chosen = entry["id"], [decision.step(ask.key) for ask in asks]
                    break
            if chosen is None:
                return 0
            delivery_id, decided = chosen
            revision = found.value["mark"]

            def decide(
                doc: Doc, revision: str = revision, delivery_id: str = delivery_id, decided: list[Step] = decided
            ) -> bool:
                entry = events.find(doc, delivery_id)
                if entry is None or doc["mark"] != revision:
                    return False
                # Beside the steps, in one write with what it sets going.
                entry["decided"] = [*entry["decided"], *map(step_data, decided)]
                self._requeue(entry, now)
                events.refresh(doc, now)
                return True

            written = await self._archive.change(event_id, decide, found=found)
            if written is None:
                continue
            for step in decided:
                await self._archive.write_step(event_id, delivery_id, step, written.revision)
            await self._queue(written, [delivery_id])
            return len(decided)
        return 0

    def _requeue(self, entry: Doc, now: float) -> None:
        if self._knows(entry["agent"]):
            events.requeue(entry)
        else:
            events.kill(entry, gone(entry["agent"]), now)

    async def _queue(self, found: Found, delivery_ids: Collection[str]) -> None:
        doc = found.value
        pending = [each for each in doc["deliveries"] if each["id"] in delivery_ids and each["status"] == "pending"]
        await self._archive.queue(doc, pending)
        await self._hearing.announce(found, before=doc if pending else None)
