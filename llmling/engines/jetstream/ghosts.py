"""Tickets that are handed out and not in the queue any more: they take places that nobody can give back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable

from llmling.engines.jetstream.book import Book
from llmling.engines.jetstream.lane import Lane
from llmling.errors import EngineError

log = logging.getLogger("llmling.engine")
_ASK_AGAIN = 100


class Ghosts:
    """Settles them: in the first two leases after the server is back, and later where tickets come again.

    A server that was killed may know that a ticket was deleted and have forgotten that it was settled before. Server
    2.9.10 counts it as handed out for as long as an older ticket lies in the queue, tries in vain to hand it out again
    once per lease, and makes all others that are due wait meanwhile. Later ones settle it themselves.

    Only a queue that stands still can be counted. One that moves is not held up: it is looked at again.
    """

    def __init__(self, book: Book, lease_s: float) -> None:
        self._book = book
        self._pause_s = lease_s / 3
        self._suspicious_s = 2 * lease_s
        self._back_since = time.monotonic()
        book.link.on_return(self._returned)

    def _returned(self) -> None:
        self._back_since = time.monotonic()

    async def run(self, lanes: Callable[[], Iterable[Lane]]) -> None:
        """Look after those of all `lanes` until cancelled."""
        while True:
            await asyncio.sleep(self._pause_s)
            for lane in list(lanes()):
                try:
                    await self._look(lane)
                except EngineError as error:
                    log.debug("ghosts of agent %r: %s", lane.agent, error)

    async def _look(self, lane: Lane) -> None:
        given = await lane.given()
        suspicious = time.monotonic() - self._back_since < self._suspicious_s
        if not given.count or not (suspicious or given.again):
            return
        here = (await lane.tickets(given.last)).keys()
        first, last = await self._book.link.bounds(self._book.queue)
        if len(here) < given.count and given == await lane.given():
            # What is behind the end of the queue is yet to come, where the server has lost what was there.
            await self._settle(lane, range(max(given.settled_to + 1, first), min(given.last, last) + 1), here)

    async def _settle(self, lane: Lane, places: range, here: Collection[int]) -> None:
        gone = 0
        for place in places:
            if place in here or await self._book.link.holds(self._book.queue, place):
                continue
            # What is not there never comes, so it can be settled safely; only some of it is still handed out.
            await lane.settle_ghost(place)
            gone += 1
            if gone % _ASK_AGAIN == 0 and (await lane.given()).count <= len(here):
                break
        if gone:
            log.info("agent %r: tickets that are gone were counted as handed out; they are settled", lane.agent)
            # What waited behind a ghost is handed out when the server is asked again.
            await lane.pull(anew=True)
