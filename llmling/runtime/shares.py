"""Limits on model requests that hold over all processes which use one store: how many at once, and in a minute."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmling.errors import EngineError
from llmling.events import new_id
from llmling.protocols import Store
from llmling.runtime.clock import Clock
from llmling.runtime.tasks import to_its_end

logger = logging.getLogger("llmling.engine")
_SPACE, _KEY = "limits", "requests"
_PERIOD_S = 60
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests at once and in a minute; None: no limit."""

    at_once: int | None = None
    per_minute: int | None = None

    def stricter(self, other: Limits) -> Limits:
        """Return the lower of each."""
        return Limits(_lower(self.at_once, other.at_once), _lower(self.per_minute, other.per_minute))


NO_LIMITS = Limits()


class Shares:
    """Keeps one record of who has a place and how many have passed, written only over the version that was read.

    A place is given back, or is free again when the request it was for must have ended, whatever became of its
    process. Passages are counted by seconds, so that a minute may count a second too many, never too few. Clocks of
    machines that differ make a limit err by that much.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def enter(self, limits: Mapping[str, Limits], hold_s: float) -> str:
        """Return the place that was taken of each limit, once there is room in all, for `hold_s` at most.

        Raises:
            EngineError: The store cannot be used.
        """
        holder = new_id()
        while True:
            now = self._clock.unix()
            before = await self._store.get(_SPACE, _KEY)
            after = _current(before or {}, now)
            wait_s = max(_wait_s(after.get(name, {}), limit, now) for name, limit in limits.items())
            if wait_s:
                # Not all who wait at the same moment: they would be in each other's way.
                await self._clock.sleep(min(wait_s, _LOOK_S) * random.uniform(0.5, 1.0))
                continue
            for name, limit in limits.items():
                _take(after.setdefault(name, {"places": {}, "passed": []}), limit, holder, now, hold_s)
            taken, cancelled = await to_its_end(self._store.swap(_SPACE, _KEY, before, after), name="limits")
            if cancelled is not None:
                if taken:
                    await self.leave(holder)
                raise cancelled
            if taken:
                return holder

    async def leave(self, holder: str) -> None:
        """Give a place back."""
        _, cancelled = await to_its_end(self._leave(holder), name="limits")
        if cancelled is not None:
            raise cancelled

    async def _leave(self, holder: str) -> None:
        try:
            while True:
                before = await self._store.get(_SPACE, _KEY)
                after = _current(before or {}, self._clock.unix())
                held = [each["places"] for each in after.values() if holder in each["places"]]
                for places in held:
                    del places[holder]
                if not held or await self._store.swap(_SPACE, _KEY, before, after):
                    return
        except EngineError as error:
            logger.warning("the place of a model request is kept until it runs out: %s", error)


def _current(record: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return a record without what is over; what a clock that is ahead has written happened just now."""
    current: dict[str, Any] = {}
    for name, each in record.items():
        passed = [[min(second, math.floor(now)), count] for second, count in each["passed"]]
        left = {
            "places": {holder: until for holder, until in each["places"].items() if until > now},
            "passed": [[second, count] for second, count in passed if second + 1 + _PERIOD_S > now],
        }
        if left["places"] or left["passed"]:
            current[name] = left
    return current


def _wait_s(kept: Mapping[str, Any], limit: Limits, now: float) -> float:
    """Return 0 while there is room, or for how long there is certainly none."""
    passed = kept.get("passed", [])
    if limit.per_minute is not None and sum(count for _, count in passed) >= limit.per_minute:
        return max(passed[0][0] + 1 + _PERIOD_S - now, 0.001)
    return _LOOK_S if limit.at_once is not None and len(kept.get("places", ())) >= limit.at_once else 0.0


def _take(kept: dict[str, Any], limit: Limits, holder: str, now: float, hold_s: float) -> None:
    if limit.at_once is not None:
        kept["places"][holder] = now + hold_s
    if limit.per_minute is not None:
        second = math.floor(now)
        if kept["passed"] and kept["passed"][-1][0] == second:
            kept["passed"][-1][1] += 1
        else:
            kept["passed"].append([second, 1])


def _lower(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
