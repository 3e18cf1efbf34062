"""What this process holds, it holds for as long as the server hears of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from llmling.engines.jetstream.lane import Ticket
from llmling.engines.jetstream.link import Link
from llmling.errors import EngineError
from llmling.runtime.tasks import TaskSet

log = logging.getLogger("llmling.engine")


class Leases:
    """Renews the tickets of all deliveries in `held`, three times per lease.

    One that could not be renewed for half a lease is given up: its run is cancelled before the queue hands it to
    somebody else.
    """

    def __init__(self, link: Link, lease_s: float, tasks: TaskSet, held: Mapping[str, Ticket]) -> None:
        self._link = link
        self._lease_s = lease_s
        self._tasks = tasks
        self._held = held

    async def run(self) -> None:
        """Renew until cancelled."""
        tick_s, renew_s, fence_s = self._lease_s / 12, self._lease_s / 3, self._lease_s / 2
        while True:
            # Not the clock of the engine: a lease is between this process and the server, whose time nobody moves.
            await asyncio.sleep(tick_s)
            now = time.monotonic()
            for ticket in list(self._held.values()):
                if now - ticket.renewed >= fence_s:
                    self._fence(ticket)
                elif now - ticket.renewed >= renew_s - tick_s and now - ticket.asked >= 2 * tick_s:
                    ticket.asked = now
                    self._tasks.spawn(self._renew(ticket, 2 * tick_s), name=f"lease of {ticket.delivery_id}")

    async def _renew(self, ticket: Ticket, timeout_s: float) -> None:
        try:
            await self._say(ticket, timeout_s)
        except EngineError as error:
            log.debug("the lease of %s could not be renewed: %s", ticket.delivery_id, error)

    async def _say(self, ticket: Ticket, timeout_s: float) -> None:
        sent = time.monotonic()
        await self._link.request(ticket.reply, b"+WPI", timeout_s=timeout_s)
        ticket.renewed = max(ticket.renewed, sent)

    def _fence(self, ticket: Ticket) -> None:
        if ticket.run is not None and not ticket.fenced:
            log.error(
                "delivery %s is given up: NATS was not reached for half of engine.lease_s (%g s), so another process "
                "may run it soon",
                ticket.delivery_id,
                self._lease_s,
            )
        ticket.fenced = True
        if ticket.run is not None:
            ticket.run.cancel()
