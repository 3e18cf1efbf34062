"""Tickets that are handed out and not in the queue any more: they take places that nobody can give back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from llmling.engines.jetstream.book import Book
from llmling.engines.jetstream.lane import Lane
from llmling.errors import EngineError

log = logging.getLogger("llmling.engine")


class Ghosts:
    """Settles them: at the start, whenever the server is back, and once per lease where tickets come again.

    A server that was killed may know that a ticket was deleted and have forgotten that it was settled before. Server
    2.9.10 counts it as handed out for as long as an older ticket lies in the queue, tries in vain to hand it out again
    once per lease, and makes all others that are due wait meanwhile. Later ones settle it themselves.
    """

    def __init__(self, book: Book, lease_s: float) -> None:
        self._book = book
        self._lease_s = lease_s
        self._back = asyncio.Event()
        self._back.set()
        book.link.on_return(self._back.set)

    async def run(self, lanes: Callable[[], Iterable[Lane]]) -> None:
        """Look after those of all `lanes` until cancelled."""
        while True:
            back = self._back.is_set()
            self._back.clear()
            for lane in list(lanes()):
                try:
                    await self._look(lane, suspicious=back)
                except EngineError as error:
                    log.debug("ghosts of agent %r: %s", lane.agent, error)
            try:
                async with asyncio.timeout(self._lease_s):
                    await self._back.wait()
            except TimeoutError:
                continue

    async def _look(self, lane: Lane, *, suspicious: bool) -> None:
        given = await lane.given()
        if not given.count or not (suspicious or given.again):
            return
        here = await self._tickets(lane, given.last)
        if given.count <= len(here):
            return
        gone = 0
        for place in range(given.settled_to + 1, given.last + 1):
            # What is not there never comes, so it can be settled safely; only some of it is still handed out.
            if place not in here and not await self._book.link.holds(self._book.queue, place):
                await lane.settle_ghost(place)
                gone += 1
        if gone:
            log.info("agent %r: %d places of the queue that are empty were settled", lane.agent, gone)
            # What waited behind a ghost is handed out when the server is asked again.
            await lane.pull(anew=True)

    async def _tickets(self, lane: Lane, last: int) -> set[int]:
        """Return the places of an agent's tickets in the queue, as far as it has been handed out."""
        here: set[int] = set()
        place, subject = 0, self._book.tickets(lane.agent)
        while (ticket := await self._book.link.next(self._book.queue, subject, place)) is not None:
            place = ticket[1]
            if place > last:
                break
            here.add(place)
        return here
