"""Times, as events: a cron expression or every so many seconds."""

from __future__ import annotations

import datetime as dt
import logging
import zoneinfo
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from cronsim import CronSim

from llmling.errors import Full, StartupError
from llmling.events import Event
from llmling.manifest.triggers import CRON_ALIASES, ScheduleTriggerConfig
from llmling.protocols import Emit, EventStatus, Store
from llmling.runtime.services import Services

_log = logging.getLogger("llmling.triggers.schedule")

_LONGEST_SLEEP_S = 60.0
_JUMP = dt.timedelta(seconds=60)
_MOST_MISSED = 1_000
# More than any clock change of a time zone, so that a step back looks behind it.
_ZONE_CHANGE = dt.timedelta(hours=3)


class Rhythm(Protocol):
    """When ticks are due; all times are aware, in UTC."""

    def after(self, moment: dt.datetime) -> dt.datetime | None:
        """Return the first tick later than `moment`, or None when there is none."""
        ...

    def until(self, moment: dt.datetime) -> Iterator[dt.datetime]:
        """Yield the ticks up to and with `moment`, latest first."""
        ...


class CronRhythm:
    """Ticks of a cron expression in a time zone; each happens once on days when the clock changes."""

    def __init__(self, expression: str, zone: zoneinfo.ZoneInfo) -> None:
        self._expression = CRON_ALIASES.get(expression.strip(), expression)
        self._zone = zone

    def after(self, moment: dt.datetime) -> dt.datetime | None:
        """Return the first tick later than `moment`, or None when there is none within 50 years."""
        for tick in CronSim(self._expression, moment.astimezone(self._zone)):
            # In the hour that a clock repeats, a tick of fixed time belongs to its first pass, which may be over.
            if (found := tick.astimezone(dt.UTC)) > moment:
                return found
        return None

    def until(self, moment: dt.datetime) -> Iterator[dt.datetime]:
        """Yield the ticks up to and with `moment`, latest first."""
        for tick in CronSim(self._expression, (moment + _ZONE_CHANGE).astimezone(self._zone), reverse=True):
            if (found := tick.astimezone(dt.UTC)) <= moment:
                yield found


class PeriodRhythm:
    """Ticks every so many seconds from an anchor, the anchor itself left out."""

    def __init__(self, anchor: dt.datetime, every_s: float) -> None:
        self._anchor = anchor
        self._every = dt.timedelta(seconds=every_s)

    def after(self, moment: dt.datetime) -> dt.datetime:
        """Return the first tick later than `moment`."""
        count = max(0, (moment - self._anchor) // self._every)
        return self._anchor + (count + 1) * self._every

    def until(self, moment: dt.datetime) -> Iterator[dt.datetime]:
        """Yield the ticks up to and with `moment`, latest first."""
        for count in range((moment - self._anchor) // self._every, 0, -1):
            yield self._anchor + count * self._every


class ScheduleTrigger:
    """Makes an event of every tick, exactly one each: the time of the tick is its key.

    The store remembers the last tick, so that those missed while the pool was down are known at its next start.
    """

    def __init__(self, config: ScheduleTriggerConfig, services: Services, agent: str) -> None:
        self._config = config
        self._engine = services.engine
        self._clock = services.clock
        self._agent = agent
        self._zone = zoneinfo.ZoneInfo(config.timezone)
        self._space = f"schedule:{config.name}"

    @property
    def name(self) -> str:
        """Name, unique in the pool."""
        return self._config.name

    @property
    def place(self) -> str:
        """The times: `0 2 * * * Europe/Berlin`, or `every 300 s`."""
        if self._config.cron is None:
            return f"every {self._config.every_s:g} s"
        return f"{self._config.cron} {self._config.timezone}"

    async def run(self, emit: Emit, started: Callable[[], None]) -> None:
        """Tick until cancelled.

        A machine that slept, or whose clock was put forward by more than a minute, was away: `catch_up` says what
        happens to the ticks of that time. So it does for those that come due while one waits for room in the engine.
        """
        if self._engine is None:
            raise StartupError(f"trigger {self.name!r} of agent {self._agent!r} needs a pool, which keeps its events")
        store = self._engine.store
        rhythm, last = await self._begin(store)
        started()
        last = await self._catch_up(emit, store, rhythm, last)
        while True:
            now = self._clock.now()
            following = rhythm.after(last)
            if following is not None and following <= now:
                last = following
                if await self._commit(emit, store, [following]):
                    last = await self._catch_up(emit, store, rhythm, last)
                continue
            left_s = _LONGEST_SLEEP_S if following is None else (following - now).total_seconds()
            begun = self._clock.monotonic()
            await self._clock.sleep(min(max(left_s, 0.0), _LONGEST_SLEEP_S))
            slept = dt.timedelta(seconds=self._clock.monotonic() - begun)
            woken = self._clock.now()
            if woken - now - slept > _JUMP:
                _log.warning("trigger %r: the clock went on by %s during a short sleep", self.name, woken - now)
                last = await self._catch_up(emit, store, rhythm, last)
            elif woken < last:
                # The clock was put back: ticks that have been are known by their keys and do not run again.
                last = woken

    def settled(self, event: Event, status: EventStatus, error: str | None) -> None:
        """Nothing is left to do for a tick that has settled."""

    async def _begin(self, store: Store) -> tuple[Rhythm, dt.datetime]:
        """Return the rhythm and the last moment it was followed; a new or changed schedule has no past."""
        now = self._clock.now()
        anchor = dt.datetime.fromisoformat(await self._anchor(store, now))
        stored: str | None = await store.get(self._space, "last")
        last = anchor if stored is None else max(anchor, dt.datetime.fromisoformat(stored))
        last = min(last, now)
        if self._config.cron is not None:
            return CronRhythm(self._config.cron, self._zone), last
        if self._config.every_s is None:
            raise StartupError(f"trigger {self.name!r} of agent {self._agent!r} has neither `cron` nor `every_s`")
        return PeriodRhythm(anchor, self._config.every_s), last

    async def _anchor(self, store: Store, now: dt.datetime) -> str:
        """Return since when the schedule is as it is now: of several processes that start with it one says."""
        while True:
            stored = await store.get(self._space, "rhythm")
            if stored is not None and stored["place"] == self.place:
                return stored["anchor"]
            fresh = {"place": self.place, "anchor": now.isoformat()}
            if await store.swap(self._space, "rhythm", stored, fresh):
                return fresh["anchor"]

    def _missed(self, rhythm: Rhythm, last: dt.datetime, now: dt.datetime) -> list[dt.datetime]:
        """Return the ticks after `last` and up to `now` that `catch_up` asks for, first one first."""
        if self._config.catch_up == "none":
            return []
        most = 1 if self._config.catch_up == "last" else _MOST_MISSED + 1
        # Two passes of a repeated hour may name one tick twice.
        ticks = sorted(set(islice(_later(rhythm, last, now), most)))
        if len(ticks) > _MOST_MISSED:
            _log.warning(
                "trigger %r missed more than %d ticks since %s; only the latest are run",
                self.name,
                _MOST_MISSED,
                last.isoformat(timespec="seconds"),
            )
            ticks = ticks[-_MOST_MISSED:]
        return ticks

    async def _catch_up(self, emit: Emit, store: Store, rhythm: Rhythm, last: dt.datetime) -> dt.datetime:
        """Commit what was missed since `last`, also while this waits for room; return up to when."""
        while True:
            now = self._clock.now()
            waited = await self._commit(emit, store, self._missed(rhythm, last, now))
            last = max(last, now)
            if not waited:
                return last

    async def _commit(self, emit: Emit, store: Store, ticks: Sequence[dt.datetime]) -> bool:
        """Commit the events of ticks in their order, remember the last one; return whether one waited for room."""
        waited = [await self._tick(emit, tick) for tick in ticks]
        if ticks:
            await store.put(self._space, {"last": ticks[-1].isoformat()})
        return any(waited)

    async def _tick(self, emit: Emit, tick: dt.datetime) -> bool:
        moment = tick.astimezone(self._zone).isoformat()
        waited = False
        while True:
            late_s = max(0.0, (self._clock.now() - tick).total_seconds())
            data = {"tick": moment, "name": self.name, "late_s": round(late_s, 3)}
            event = Event(self.name, "dev.llmling.schedule.tick", moment, data, time=tick)
            try:
                await emit(event, key=tick.isoformat())
                return waited
            except Full as full:
                waited = True
                _log.warning("trigger %r waits with its tick of %s: %s", self.name, moment, full)
                await self._clock.sleep(full.retry_after_s)


def _later(rhythm: Rhythm, last: dt.datetime, now: dt.datetime) -> Iterator[dt.datetime]:
    for tick in rhythm.until(now):
        if tick <= last:
            return
        yield tick
