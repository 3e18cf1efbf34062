"""How many deliveries of an agent may wait, over all processes."""

from __future__ import annotations

import asyncio
import json
import math
import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping

from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.lane import PRIORITIES, Lane
from llmling.engines.jetstream.lines import stamp
from llmling.protocols import Delivery, Policy

_FRESH_S = 1.0
_LONGEST_ESTIMATE_S = 60.0
_WEIGHT = 0.2


class Rooms:
    """Counts by what the queue says, and between two looks by what this process has put in since.

    Several processes that accept at once may go over the bound by what each of them accepts within a second.
    """

    def __init__(self, archive: Archive, drop: Callable[[str, str, str], Awaitable[int]]) -> None:
        """`drop` settles one that waits as dead, by event, delivery and reason; it returns how many it settled."""
        self._archive = archive
        self._drop = drop
        self._policies: Mapping[str, Policy] | None = None
        self._lanes: Mapping[str, Lane] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._seconds: dict[str, float] = {}
        self._left: dict[str, tuple[float, int]] = {}

    def serve(self, policies: Mapping[str, Policy], lanes: Mapping[str, Lane]) -> None:
        """Bound the inboxes from now on."""
        self._policies = policies
        self._lanes = lanes

    def took(self, agent: str, seconds: float) -> None:
        """Learn how long a delivery takes."""
        average = self._seconds.get(agent, seconds)
        self._seconds[agent] = average + _WEIGHT * (seconds - average)

    def room_in_s(self, agent: str) -> float:
        """When room for another delivery may be expected, in whole seconds, at least one."""
        policy = (self._policies or {}).get(agent)
        expected_s = math.ceil(self._seconds.get(agent, 0.0) / (policy.concurrency if policy else 1))
        return float(min(max(1, expected_s), _LONGEST_ESTIMATE_S))

    def knows(self, agent: str) -> bool:
        """Whether there is such an agent; a process that does not serve believes it."""
        return self._policies is None or agent in self._policies

    async def take(self, agent: str) -> str | None:
        """Take room for one more delivery that comes from outside; return why there is none."""
        policy = None if self._policies is None else self._policies.get(agent)
        if policy is None:
            return None
        async with self._locks[agent]:
            pending = await self._pending(agent, policy)
            if pending is None or (policy.overflow == "drop_oldest" and await self._make_room(agent, policy)):
                return None
        return (
            f"the inbox of agent {agent!r} is full: {pending} wait (inbox.size {policy.inbox_size}, "
            f"overflow: {policy.overflow})"
        )

    async def refused(self, successors: Iterable[Delivery]) -> dict[str, str]:
        """Return the successors for which there is no room, and why."""
        reasons: dict[str, str] = {}
        for delivery in successors:
            policy = None if self._policies is None else self._policies.get(delivery.agent)
            # A successor that had to wait for room could wait for itself: under `block` it always goes in.
            if policy is None or policy.overflow == "block" or delivery.dead is not None:
                continue
            async with self._locks[delivery.agent]:
                self._left.pop(delivery.agent, None)
                if await self._pending(delivery.agent, policy) is None:
                    continue
                if policy.overflow == "drop_oldest" and await self._make_room(delivery.agent, policy):
                    continue
            reasons[delivery.id] = (
                f"rejected: inbox of {delivery.agent!r} is full (inbox.size {policy.inbox_size}, overflow: reject)"
            )
        return reasons

    async def _pending(self, agent: str, policy: Policy) -> int | None:
        """Return how many wait when that is too many, else None."""
        until, left = self._left.get(agent, (0.0, 0))
        if left <= 0 or time.monotonic() >= until:
            pending, _ = await self._lanes[agent].waiting()
            pending += await self._archive.lines.waiting(agent)
            until, left = time.monotonic() + _FRESH_S, policy.inbox_size - pending
            if left <= 0:
                return pending
        self._left[agent] = until, left - 1
        return None

    async def _make_room(self, agent: str, policy: Policy) -> bool:
        """Drop the oldest delivery of the lowest priority that waits, in the queue or for its turn."""
        book = self._archive.book
        _, taken = await self._lanes[agent].waiting()
        reason = f"dropped: inbox of {agent!r} is full (inbox.size {policy.inbox_size}, overflow: drop_oldest)"
        for priority in PRIORITIES:
            after = taken
            while True:
                queued = await book.link.next(book.queue, book.tickets(agent, priority), after)
                in_line = await self._archive.lines.oldest(agent, priority)
                if in_line is not None and (queued is None or in_line[1] < stamp(queued[0])):
                    event_id, delivery_id = in_line[0].event_id, in_line[0].delivery_id
                elif queued is not None:
                    event_id, delivery_id, _ = json.loads(b64decode(queued[0]["data"]))
                    after = queued[1]
                else:
                    break
                # One that is settled or runs already makes no room.
                if await self._drop(event_id, delivery_id, reason):
                    return True
        return False
