"""The places of a pool: which delivery takes the next one, within the limits of agent and pool."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping

from llmling.engines.inbox import Inbox
from llmling.engines.quarantine import Quarantine
from llmling.engines.records import Row
from llmling.protocols import Delivery

log = logging.getLogger("llmling.engine")


class Kept:
    """The places that are kept for deliveries that are being written, by their ids, and the inboxes others go into."""

    __slots__ = ("coming", "places")

    def __init__(self) -> None:
        self.places: dict[str, Inbox] = {}
        self.coming: list[Inbox] = []


class Places:
    """So many places as `count`; whoever gets one gives it back."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.closed = False
        self.quarantine = Quarantine()
        self._taken = 0
        self._round: deque[Inbox] = deque()

    def queue(self, inbox: Inbox) -> None:
        """Let an agent take its turn, if it has something to start and may."""
        if inbox.eligible and not inbox.queued:
            inbox.queued = True
            self._round.append(inbox)

    def take(self) -> tuple[Inbox, Row] | None:
        """Take a place for the delivery that starts next, None when there is none of either."""
        if self._full:
            return None
        started = self.quarantine.start(self._taken) or self._next()
        if started is not None:
            inbox, row = started
            if self.quarantine.closes_the_pool:
                log.warning(
                    "delivery %s has seen the process die (%d x); it runs alone on its last try",
                    row.delivery.id,
                    row.crashes,
                )
            self._taken += 1
            self.queue(inbox)
        return started

    def _next(self) -> tuple[Inbox, Row] | None:
        # One delivery of each agent in turn, so that a busy agent cannot take the whole pool.
        while self._round and not self.quarantine.closes_the_pool:
            inbox = self._round.popleft()
            inbox.queued = False
            if inbox.eligible:
                return inbox, inbox.pop()
        return None

    def leave(self, inbox: Inbox, row: Row) -> bool:
        """Give back the place of a delivery; return whether it was seen to be pending again meanwhile."""
        self._taken -= 1
        self.quarantine.left(row)
        again = inbox.left(row)
        self.queue(inbox)
        return again

    def keep(self, inboxes: Mapping[str, Inbox], deliveries: Iterable[Delivery]) -> Kept:
        """Take places for those of these deliveries that may start with the commit that writes them.

        What comes later waits behind the others.
        """
        kept = Kept()
        for delivery in deliveries:
            inbox = inboxes.get(delivery.agent)
            if inbox is None:
                continue
            if inbox.takes(delivery) and not self._full and not self.quarantine.closes_the_pool:
                self._taken += 1
                inbox.active += 1
                kept.places[delivery.id] = inbox
            else:
                inbox.coming += 1
                kept.coming.append(inbox)
        return kept

    def free(self, kept: Kept) -> None:
        """Give back the places of deliveries that have not started, since all are written or will not be."""
        for inbox in kept.coming:
            inbox.coming -= 1
        kept.coming.clear()
        for inbox in kept.places.values():
            self._taken -= 1
            inbox.active -= 1
            self.queue(inbox)
        kept.places.clear()

    @property
    def _full(self) -> bool:
        return self.closed or self._taken >= self.count
