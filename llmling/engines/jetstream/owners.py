"""Whether the process that has begun a delivery still runs it, when the queue hands that delivery out again."""

from __future__ import annotations

import asyncio
import logging
import time

from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.lane import Ticket
from llmling.engines.jetstream.link import Link

log = logging.getLogger("llmling.engine")


class Owners:
    """Asks owners, and lets one that does not answer have the time to find out that it is cut off.

    A ticket that comes again because its lease is over needs no such time: its owner has fenced itself long ago. But
    a server that was killed may hand out what it has just handed out, while the owner is still connecting again.
    """

    def __init__(self, link: Link, hearing: Hearing, lease_s: float) -> None:
        self._link = link
        self._hearing = hearing
        self._ask_s = lease_s / 12
        # An owner gives up half a lease after the last answer it got, and looks each twelfth; the rest is for its run.
        self._wait_s = lease_s * 3 / 4

    async def runs(self, ticket: Ticket, entry: Doc) -> bool | None:
        """Whether the owner of a delivery runs it, None when it is certain that the owner does not run anything."""
        owner, delivery_id = entry["owner"], entry["id"]
        answer = await self._hearing.runs(owner, delivery_id)
        if answer is not None or _lease_over(ticket, entry):
            return answer
        log.info("delivery %s comes again before its lease is over, and its process is silent; waiting", delivery_id)
        quiet_since = time.monotonic()
        while not ticket.fenced and time.monotonic() - quiet_since < self._wait_s:
            await asyncio.sleep(self._ask_s)
            asked = time.monotonic()
            if (answer := await self._hearing.runs(owner, delivery_id)) is not None:
                return answer
            if self._link.up_since > quiet_since:
                # Who is cut off itself hears nobody, and does not know for how long others have been silent.
                quiet_since = asked
        # Without a lease of its own this process decides nothing.
        return ticket.fenced or None


def _lease_over(ticket: Ticket, entry: Doc) -> bool:
    """Whether the queue has handed a delivery out more often than to its owner: it never gives back what may run."""
    return entry["handed"] is not None and ticket.deliveries > entry["handed"]
