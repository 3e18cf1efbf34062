"""What was running when the process died: started again with care, so that only the guilty delivery dies of it."""

from __future__ import annotations

import heapq

from llmling.engines.inbox import Inbox
from llmling.engines.records import Row

_SUSPICIOUS = 2


class Quarantine:
    """Holds the suspects of a pool apart and says when the next one may start.

    One crash may be a power cut and makes nobody a suspect. Who has been there twice is one: at first one of them
    runs at a time, beside the unsuspected, and one more for each that has ended without a crash. On its last try a
    suspect runs alone in the process, so whoever dies of a crash cannot be a neighbour of the one that caused it.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[bool, int, str, Inbox, Row]] = []
        self._running: set[str] = set()
        self._at_once = 1
        self._alone = False

    def take(self, inbox: Inbox, row: Row) -> bool:
        """Hold a suspect; return whether it is one."""
        last_try = row.attempts + 1 >= inbox.policy.attempts
        if not row.crashes or (row.crashes < _SUSPICIOUS and not last_try):
            return False
        if row.delivery.id not in inbox.held:
            inbox.held.add(row.delivery.id)
            heapq.heappush(self._waiting, (last_try, row.seq, row.delivery.id, inbox, row))
        return True

    def forget(self, inbox: Inbox) -> None:
        """Let go of an agent's suspects that have not started: they are on disk."""
        kept = [entry for entry in self._waiting if entry[3] is not inbox]
        inbox.held.difference_update(entry[4].delivery.id for entry in self._waiting if entry[3] is inbox)
        self._waiting = kept
        heapq.heapify(self._waiting)

    @property
    def closes_the_pool(self) -> bool:
        """Whether nothing else may start, because a suspect runs alone or waits for the others to end."""
        return self._alone or (bool(self._waiting) and self._waiting[0][0])

    def start(self, active: int) -> tuple[Inbox, Row] | None:
        """Return the suspect to start now, if any, with `active` deliveries running in the pool."""
        if not self._waiting or self._alone:
            return None
        alone, *_, inbox, row = self._waiting[0]
        if (active > 0) if alone else (len(self._running) >= self._at_once or not inbox.idle):
            return None
        heapq.heappop(self._waiting)
        self._alone = alone
        self._running.add(row.delivery.id)
        inbox.active += 1
        return inbox, row

    def left(self, row: Row) -> None:
        """Let go of one that has ended."""
        if row.delivery.id in self._running:
            self._running.remove(row.delivery.id)
            self._at_once += 1
            self._alone = False
