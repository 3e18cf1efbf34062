"""What is held in memory of one agent's deliveries: the next few, in the order of their arrival."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from llmling.engines.line import Line
from llmling.engines.records import Row
from llmling.protocols import Delivery, Policy

_AHEAD = 64
_LONGEST_ESTIMATE_S = 60.0
_WEIGHT = 0.2


class Inbox:
    """The deliveries of one agent that are next or running; the rest stays on disk.

    `more` says that due deliveries of any priority may lie on disk that are not here, `behind` of which priorities
    there are some, `passed` of which one arrived while a load was under way, `renew` that what was loaded is out of
    date, `gone` that there is no such agent any more and nothing is loaded. `coming` are those that are being written,
    to wait. `queued` belongs to the round of the places.
    """

    def __init__(self, agent: str, policy: Policy) -> None:
        self.agent = agent
        self.policy = policy
        self.held: set[str] = set()
        self.overlooked: set[str] = set()
        self.active = 0
        self.coming = 0
        self.more = True
        self.behind: set[int] = set()
        self.passed: set[int] = set()
        self.loading = False
        self.renew = False
        self.gone = False
        self.queued = False
        self.due: float | None = None
        self.timer: asyncio.Task[None] | None = None
        self._ready = Line()
        self._average_s = 0.0

    def room(self, priority: int) -> int:
        """How many more of a priority are held ahead of their turn."""
        return max(0, 2 * self.policy.concurrency + _AHEAD - self._ready.count(priority))

    @property
    def low(self) -> bool:
        """Whether it is time to load more."""
        enough = self.policy.concurrency + _AHEAD // 2
        return self.more or (
            bool(self.behind) and any(self._ready.count(priority) <= enough for priority in self.behind)
        )

    @property
    def idle(self) -> bool:
        """Whether the agent may take one more."""
        return self.active < self.policy.concurrency

    @property
    def eligible(self) -> bool:
        """Whether the next delivery may start, as far as this agent is concerned."""
        return bool(self._ready) and self.idle

    def takes(self, delivery: Delivery) -> bool:
        """Whether a delivery that is about to be written may start with that, since nothing waits for its place."""
        waits = bool(self._ready) or self.more or self.loading or bool(self.behind) or self.coming > 0
        plain = delivery.dead is None and delivery.order_key is None and delivery.overlap in {"queue", "parallel"}
        return plain and not waits and self.idle and not self.gone and delivery.id not in self.held

    def offer(self, row: Row) -> bool:
        """Hold a delivery that was just written; False when it is left on disk, behind others of its priority."""
        priority = row.delivery.priority
        if row.delivery.id in self.held:
            # Its event was forgotten while it ran, and has come again.
            self.overlooked.add(row.delivery.id)
        elif self.loading:
            self.passed.add(priority)
        elif self.more or priority in self.behind or not self.room(priority):
            self.behind.add(priority)
        else:
            self.push(row)
            return True
        return False

    def push(self, row: Row) -> None:
        """Hold a delivery, unless it is here already."""
        if row.delivery.id not in self.held:
            self.held.add(row.delivery.id)
            self._ready.push(row)

    def pop(self) -> Row:
        """Take the next one to start it."""
        self.active += 1
        return self._ready.pop()

    def left(self, row: Row) -> bool:
        """Let go of one that was started; return whether it was seen to be pending again meanwhile."""
        self.active -= 1
        self.held.discard(row.delivery.id)
        if row.delivery.id in self.overlooked:
            self.overlooked.discard(row.delivery.id)
            return True
        return False

    def overlook(self, delivery_ids: Iterable[str]) -> bool:
        """Note deliveries that are pending on disk but held here; return whether one has just been let go of.

        Most are about to start. But one that is still unwinding here may have been given back or retried already,
        and must be looked for again once it is gone.
        """
        ids = set(delivery_ids)
        self.overlooked |= ids & self.held
        return bool(ids - self.held)

    def clear(self) -> None:
        """Forget what is not started: it is on disk."""
        self.held.difference_update(row.delivery.id for row in self._ready.clear())
        self.overlooked &= self.held

    def took(self, seconds: float) -> None:
        """Learn how long a delivery takes."""
        self._average_s = seconds if not self._average_s else self._average_s + _WEIGHT * (seconds - self._average_s)

    @property
    def room_in_s(self) -> float:
        """When room for another delivery may be expected, in whole seconds, at least one."""
        expected_s = math.ceil(self._average_s / self.policy.concurrency)
        return float(min(max(1, expected_s), _LONGEST_ESTIMATE_S))
