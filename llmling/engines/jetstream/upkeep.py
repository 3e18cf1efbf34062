"""What every serving process does beside the daily run: taking up what was left, and forgetting what is old."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.book import Found
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.operator import Operator
from llmling.engines.jetstream.rooms import Rooms
from llmling.engines.jetstream.settle import Settler
from llmling.engines.jetstream.watch import Watch
from llmling.errors import EngineError
from llmling.records import gone
from llmling.runtime.clock import Clock

log = logging.getLogger("llmling.engine")
_HOUR_S = 3600
_AGAIN_S = 1.0
_LOOKS_AFTER_S = (5.0, 30.0, 30.0)


class Upkeep:
    """Looks at all events at the start, once an hour, when NATS is back and three times in the minute after that."""

    def __init__(
        self,
        archive: Archive,
        hearing: Hearing,
        watch: Watch,
        settler: Settler,
        operator: Operator,
        rooms: Rooms,
        clock: Clock,
        keep_s: float,
    ) -> None:
        self._archive = archive
        self._hearing = hearing
        self._watch = watch
        self._settler = settler
        self._operator = operator
        self._rooms = rooms
        self._clock = clock
        self._keep_s = keep_s
        self._wanted = asyncio.Event()
        self._pauses_s: list[float] = []

    async def run(self) -> None:
        """Work until cancelled."""
        self._archive.book.link.on_return(self._returned)
        while True:
            self._wanted.clear()
            try:
                await self._look()
            except EngineError as error:
                log.warning("the events in NATS could not all be looked at, trying again: %s", error)
                await asyncio.sleep(_AGAIN_S)
                continue
            await self._pause()

    def _returned(self) -> None:
        self._pauses_s = list(_LOOKS_AFTER_S)
        self._wanted.set()

    def look_soon(self) -> None:
        """Look again at once, since there may be agents that have gone or come."""
        self._wanted.set()

    async def _pause(self) -> None:
        # A server that was killed may have lost the last tickets it took, and what is still running then acknowledges
        # by numbers that others have now: whose ticket is gone shows only after a while.
        pause_s = self._pauses_s.pop(0) if self._pauses_s else _HOUR_S
        waits = {asyncio.create_task(self._wanted.wait()), asyncio.create_task(self._clock.sleep(pause_s))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    async def _look(self) -> None:
        now = self._clock.unix()
        async with aclosing(self._archive.book.headings("event.*")) as headings:
            listed = {each.key: each async for each in headings}
        passed = max((each.revision for each in listed.values()), default=0)
        for heading in listed.values():
            finished = heading.facts.get("finished")
            if finished is None or heading.facts.get("told") is False:
                found = await self._archive.book.get(heading.key)
                if found is not None and "gone" not in found.value:
                    if heading.revision < found.revision <= passed:
                        # A server that was killed lists an old version, though it gives the new one when asked.
                        found = await self._archive.rewrite(found)
                    await self._take_up(found)
            elif finished < now - self._keep_s:
                found = await self._archive.book.get(heading.key)
                if found is not None:
                    await self._archive.forget(found.value["id"])
        await self._archive.lines.look()
        await self._archive.forget_keys(now)

    async def _take_up(self, found: Found) -> None:
        doc = (await self._watch.meet(found)).value
        if doc["finished"] is not None:
            if not doc["told"]:
                await self._hearing.adopt(doc)
            return
        for entry in doc["deliveries"]:
            if entry["status"] == "pending" and not self._rooms.knows(entry["agent"]):
                await self._operator.settle(doc["id"], entry["id"], gone(entry["agent"]))
        self._settler.queue_later(doc["id"], doc["deliveries"])
        open_ = [each for each in doc["deliveries"] if each["status"] in {"pending", "running"} and not each["due"]]
        await self._archive.queue(doc, [each for each in open_ if self._rooms.knows(each["agent"])])
