"""Tickets that a cluster has lost sight of: they lie in the queue, and are neither waiting nor handed out."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import Callable, Iterable

from llmling.engines.jetstream.book import Book
from llmling.engines.jetstream.lane import Lane
from llmling.engines.jetstream.link import Conflict
from llmling.errors import EngineError

log = logging.getLogger("llmling.engine")


class Strays:
    """Queues them again, once they have been strays for a whole lease.

    A server that leads a queue may take with it what it has just handed out: the one that follows it counts that as
    settled, and hands it out to nobody (seen with server 2.9.10). A ticket too many does no harm.
    """

    def __init__(self, book: Book, lease_s: float) -> None:
        self._book = book
        self._lease_s = lease_s
        self._seen: dict[str, set[int]] = {}
        self._left: dict[str, set[int]] = {}

    async def run(self, lanes: Callable[[], Iterable[Lane]]) -> None:
        """Look after those of all `lanes` until cancelled."""
        while True:
            await asyncio.sleep(self._lease_s)
            for lane in list(lanes()):
                try:
                    await self._look(lane)
                except EngineError as error:
                    log.debug("strays of agent %r: %s", lane.agent, error)

    async def _look(self, lane: Lane) -> None:
        found = await lane.tickets(await lane.settled_to())
        seen, self._seen[lane.agent] = self._seen.get(lane.agent, set()), set(found)
        left, self._left[lane.agent] = self._left.get(lane.agent, set()), set()
        for place, message in found.items():
            if place not in seen:
                continue
            try:
                await self._book.link.publish(message["subject"], b64decode(message["data"]), last=place)
                log.warning("a ticket of agent %r was lost sight of by NATS; it is queued again", lane.agent)
            except Conflict:
                # Somebody else has done so, and deletes it. A cluster that is to delete what is not there starts its
                # stream anew and elects a leader (before 2.12), which loses sight of more; so only if it stays.
                if place not in left:
                    self._left[lane.agent].add(place)
                    continue
            await self._book.link.delete(self._book.queue, place)
