"""Ticks: exactly one event each, over restarts, clock changes and clocks that jump."""

from __future__ import annotations

import datetime as dt
import itertools
import zoneinfo
from pathlib import Path

import pytest
from trigger_bench import Bench

from llmling.errors import StartupError
from llmling.events import Event
from llmling.manifest.triggers import ScheduleTriggerConfig
from llmling.protocols import Receipt
from llmling.runtime.services import Services
from llmling.testing import FakeClock, until
from llmling.triggers.schedule import CronRhythm, PeriodRhythm, ScheduleTrigger

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
HOUR_S = 3600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(dt.datetime(2027, 1, 4, 9, 30, tzinfo=dt.UTC))


@pytest.fixture
def bench(tmp_path: Path, clock: FakeClock) -> Bench:
    return Bench(tmp_path, clock)


async def pass_by(bench: Bench, clock: FakeClock, seconds: float, *, ticks: int) -> None:
    """Let time pass, then wait for the events of so many ticks in all."""
    await clock.asleep()
    await clock.advance(seconds)
    await until(lambda: len(bench.events) >= ticks)
    await clock.asleep()
    assert len(bench.events) == ticks


async def test_a_tick_is_an_event_that_carries_its_time(bench: Bench, clock: FakeClock) -> None:
    async with bench.ticking(cron="0 11 * * *", timezone="Europe/Berlin") as trigger:
        assert trigger.place == "0 11 * * * Europe/Berlin"
        await pass_by(bench, clock, HOUR_S, ticks=1)
        await pass_by(bench, clock, 24 * HOUR_S, ticks=2)
    event = bench.events[0]
    assert (event.source, event.type) == ("tick", "dev.llmling.schedule.tick")
    assert event.subject == "2027-01-04T11:00:00+01:00"
    assert event.time == dt.datetime(2027, 1, 4, 10, tzinfo=dt.UTC)
    assert event.data == {"tick": event.subject, "name": "tick", "late_s": 0.0}


async def test_names_of_common_times(bench: Bench, clock: FakeClock) -> None:
    async with bench.ticking(cron="@hourly"):
        await pass_by(bench, clock, 3 * HOUR_S, ticks=3)
    assert [event.time.hour for event in bench.events] == [10, 11, 12]


async def test_every_so_many_seconds_keeps_its_rhythm_over_restarts(bench: Bench, clock: FakeClock) -> None:
    async with bench.ticking(every_s=300) as trigger:
        assert trigger.place == "every 300 s"
        await pass_by(bench, clock, 700, ticks=2)
    await clock.advance(100)
    async with bench.ticking(every_s=300):
        await pass_by(bench, clock, 150, ticks=3)
    assert [event.time.minute for event in bench.events] == [35, 40, 45]


@pytest.mark.parametrize(("catch_up", "hours"), [("none", []), ("last", [12]), ("all", [10, 11, 12])])
async def test_ticks_missed_while_down_for_three_hours(
    bench: Bench, clock: FakeClock, catch_up: str, hours: list[int]
) -> None:
    async with bench.ticking(cron="0 * * * *", catch_up=catch_up):
        await clock.asleep()
    assert bench.events == [], "the first start has no past"
    await clock.advance(3 * HOUR_S)
    for _ in range(2):
        async with bench.ticking(cron="0 * * * *", catch_up=catch_up):
            await until(lambda: len(bench.events) >= len(hours))
            await clock.asleep()
    assert [event.time.hour for event in bench.events] == hours
    if hours:
        assert bench.events[-1].data["late_s"] == 1800.0


async def test_catching_up_with_everything_has_a_bound(
    bench: Bench, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.ticking(cron="* * * * *", catch_up="all"):
        await clock.asleep()
    await clock.advance(48 * HOUR_S)
    async with bench.ticking(cron="* * * * *", catch_up="all"):
        await until(lambda: len(bench.events) == 1000)
        await clock.asleep()
    assert bench.events[-1].time == clock.now()
    assert "missed more than 1000 ticks since 2027-01-04T09:30:00+00:00" in caplog.text


async def test_another_schedule_has_no_past(bench: Bench, clock: FakeClock) -> None:
    async with bench.ticking(cron="0 2 * * *"):
        await clock.asleep()
    await clock.advance(3 * HOUR_S)
    async with bench.ticking(cron="0 * * * *"):
        await clock.asleep()
    assert bench.events == []


async def test_a_crash_after_the_commit_does_not_repeat_the_tick(bench: Bench, clock: FakeClock) -> None:
    async with bench.ticking(cron="0 * * * *"):
        await clock.asleep()
        before = await bench.engine.store.items("schedule:tick")
        await pass_by(bench, clock, HOUR_S, ticks=1)
        await bench.engine.store.put("schedule:tick", before)
    async with bench.ticking(cron="0 * * * *"):
        await clock.asleep()
    assert len(bench.events) == 1


@pytest.mark.parametrize(
    ("catch_up", "minutes"), [("none", [31, 36]), ("last", [31, 35, 36]), ("all", [31, 32, 33, 34, 35, 36])]
)
async def test_a_full_engine_delays_a_tick_and_those_behind_it_are_missed(
    bench: Bench, clock: FakeClock, catch_up: str, minutes: list[int]
) -> None:
    bench.refusals, bench.refused_s = 1_000_000, 1.0
    async with bench.ticking(cron="* * * * *", catch_up=catch_up):
        await clock.asleep()
        await clock.advance(300)
        assert bench.events == []
        bench.refusals = 0
        await pass_by(bench, clock, 1, ticks=len(minutes) - 1)
        await pass_by(bench, clock, 60, ticks=len(minutes))
    assert [event.time.minute for event in bench.events] == minutes


async def test_a_clock_that_jumps_forward_is_a_time_away(bench: Bench, clock: FakeClock) -> None:
    async with bench.ticking(cron="* * * * *", catch_up="last"):
        await pass_by(bench, clock, 60, ticks=1)
        clock.jump(6 * HOUR_S)
        await pass_by(bench, clock, 60, ticks=2)
        await pass_by(bench, clock, 60, ticks=3)
    assert [event.time.strftime("%H:%M") for event in bench.events] == ["09:31", "15:32", "15:33"]


async def test_a_clock_that_is_put_back_neither_doubles_nor_stalls(bench: Bench, clock: FakeClock) -> None:
    async with bench.ticking(cron="0,30 * * * *", catch_up="last"):
        clock.jump(2 * HOUR_S)
        await pass_by(bench, clock, 60, ticks=1)
        clock.jump(-2 * HOUR_S)
        await pass_by(bench, clock, HOUR_S, ticks=3)
        await pass_by(bench, clock, 1.5 * HOUR_S, ticks=5)
    times = [event.time.strftime("%H:%M") for event in bench.events]
    assert times == ["11:30", "10:00", "10:30", "11:00", "12:00"]


@pytest.mark.parametrize("day", [dt.date(2027, 3, 28), dt.date(2027, 10, 31)])
async def test_once_a_day_when_the_clocks_change(bench: Bench, clock: FakeClock, day: dt.date) -> None:
    eve = dt.datetime.combine(day - dt.timedelta(days=1), dt.time(12), tzinfo=BERLIN)
    clock.jump((eve - clock.now()).total_seconds())
    async with bench.ticking(cron="30 2 * * *", timezone="Europe/Berlin"):
        await pass_by(bench, clock, 48 * HOUR_S, ticks=2)
    assert [event.time.astimezone(BERLIN).date() for event in bench.events] == [day, day + dt.timedelta(days=1)]


@pytest.mark.parametrize("expression", ["30 2 * * *", "*/20 * * * *", "15 1,2,3 * * *", "0 0 1 * *", "30 * * * *"])
@pytest.mark.parametrize("start", [dt.datetime(2027, 3, 27, tzinfo=dt.UTC), dt.datetime(2027, 10, 30, tzinfo=dt.UTC)])
def test_steps_forward_and_back_meet_the_same_ticks(expression: str, start: dt.datetime) -> None:
    rhythm = CronRhythm(expression, BERLIN)
    end = start + dt.timedelta(days=3)
    forward: list[dt.datetime] = []
    moment = start
    while (tick := rhythm.after(moment)) is not None and tick <= end:
        assert tick > moment
        forward.append(tick)
        moment = tick
    for step in range(0, 72 * 60, 23):
        moment = start + dt.timedelta(minutes=step)
        later = rhythm.after(moment)
        assert later == next((tick for tick in forward if tick > moment), later)
        back = set(itertools.takewhile(lambda tick: tick > start, rhythm.until(moment)))
        assert sorted(back) == [tick for tick in forward if tick <= moment]


def test_a_period_counts_from_its_anchor() -> None:
    anchor = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    rhythm = PeriodRhythm(anchor, 0.5)
    assert rhythm.after(anchor - dt.timedelta(days=1)) == anchor + dt.timedelta(seconds=0.5)
    assert rhythm.after(anchor) == anchor + dt.timedelta(seconds=0.5)
    assert list(rhythm.until(anchor + dt.timedelta(seconds=1.2))) == [
        anchor + dt.timedelta(seconds=1),
        anchor + dt.timedelta(seconds=0.5),
    ]


async def test_without_an_engine_it_cannot_start(tmp_path: Path) -> None:
    async def emit(event: Event, **_: object) -> Receipt:
        return Receipt(event.id, new=True)

    config = ScheduleTriggerConfig(name="tick", every_s=1, prompt="go")
    with pytest.raises(StartupError, match="'tick' of agent 'writer' needs a pool"):
        await ScheduleTrigger(config, Services(folder=tmp_path), "writer").run(emit, lambda: None)
