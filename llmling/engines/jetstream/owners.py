"""Whether the process that has begun a delivery still runs it, when the queue hands that delivery out again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.hosts import Hosts
from llmling.engines.jetstream.lane import Ticket
from llmling.engines.jetstream.link import Link
from llmling.errors import EngineError

log = logging.getLogger("llmling.engine")
_CALLS = 60
"""How often who does not answer is asked again: for five leases, in which lost tickets are found."""


class Owners:
    """Asks owners, and lets one that does not answer have the time to find out that it is cut off.

    A ticket that comes again because its lease is over needs no such time: its owner has fenced itself long ago. But
    a server that was killed may hand out what it has just handed out, while the owner is still connecting again. It
    may also have lost the ticket, which is found to be missing a while later. So all processes are asked as soon as
    the server is back: who has been silent since then needs no more time when its ticket comes.
    """

    def __init__(self, link: Link, hearing: Hearing, hosts: Hosts, lease_s: float) -> None:
        self._link = link
        self._hearing = hearing
        self._hosts = hosts
        self._ask_s = lease_s / 12
        # An owner gives up half a lease after the last answer it got, and looks each twelfth; the rest is for its run.
        self._wait_s = lease_s * 3 / 4
        self._silent_since: dict[str, float] = {}
        self._back = asyncio.Event()
        self._back.set()
        link.on_return(self._back.set)

    async def run(self) -> None:
        """Call the roll at the start and whenever the server is back, until cancelled."""
        while True:
            await self._back.wait()
            self._back.clear()
            self._silent_since.clear()
            try:
                listed = {host.id for host in await self._hosts.read()} - {self._hosts.own}
                for _ in range(_CALLS):
                    listed = await self._call(listed)
                    if not listed or await self._returned(self._ask_s):
                        break
            except EngineError as error:
                log.debug("the roll of processes could not be called: %s", error)
                await asyncio.sleep(self._ask_s)
                self._back.set()
            # Nobody asks any more whether they are back.
            self._silent_since.clear()

    async def _call(self, host_ids: Collection[str]) -> set[str]:
        """Ask whether processes are there, note since when they are not, and return those."""
        asked = time.monotonic()
        answers = await asyncio.gather(*map(self._hearing.alive, host_ids))
        silent = {host_id for host_id, alive in zip(host_ids, answers, strict=True) if not alive}
        self._silent_since = {host_id: self._silent_since.get(host_id, asked) for host_id in silent}
        return silent

    async def _returned(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._back.wait()
        except TimeoutError:
            return False
        return True

    async def runs(self, ticket: Ticket, entry: Doc) -> bool | None:
        """Whether the owner of a delivery runs it, None when it is certain that the owner does not run anything."""
        owner, delivery_id = entry["owner"], entry["id"]
        answer = await self._hearing.runs(owner, delivery_id)
        if answer is not None or _lease_over(ticket, entry):
            return answer
        log.info("delivery %s comes again before its lease is over, and its process is silent; waiting", delivery_id)
        quiet_since = self._silent_since.get(owner, time.monotonic())
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
