from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from llmling.runtime.supervise import Backoff, Supervisor


class HandClock:
    """A clock whose sleeps end when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pauses: list[float] = []
        self.sleeping = asyncio.Event()
        self._wake = asyncio.Event()

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.seconds, dt.UTC)

    def unix(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.sleeping.set()
        await self._wake.wait()
        self.seconds += seconds

    async def next_pause(self) -> float:
        await asyncio.wait_for(self.sleeping.wait(), 30)
        return self.pauses[-1]

    def wake(self) -> None:
        self.sleeping.clear()
        self._wake.set()
        self._wake = asyncio.Event()


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(supervisor.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert supervisor.state == "stopped"


async def never_ready(ready: Callable[[], None]) -> None:
    raise ExceptionGroup("start", [FileNotFoundError("no such command")])


async def test_states_and_reason_of_a_life() -> None:
    breaks = asyncio.Event()

    async def live(ready: Callable[[], None]) -> None:
        ready()
        await breaks.wait()
        raise ConnectionError("connection closed")

    clock = HandClock()
    supervisor = Supervisor("mcp files", live, clock=clock)
    assert supervisor.state == "starting"
    async with running(supervisor):
        assert await supervisor.wait_ready(5)
        assert (supervisor.state, supervisor.reason) == ("ready", None)
        breaks.set()
        await clock.next_pause()
        assert (supervisor.state, supervisor.reason) == ("broken", "connection closed")
        breaks.clear()
        clock.wake()
        assert await supervisor.wait_ready(5)
        assert supervisor.lives == 2


async def test_pauses_double_up_to_the_maximum_with_jitter() -> None:
    clock = HandClock()
    async with running(Supervisor("x", never_ready, clock=clock)):
        for _ in range(10):
            await clock.next_pause()
            clock.wake()
    expected = [min(60.0, 0.5 * 2**n) for n in range(10)]
    assert all(most / 2 <= pause <= most for pause, most in zip(clock.pauses, expected, strict=False))
    assert clock.pauses[9] >= 30


async def test_a_healthy_life_makes_the_pauses_start_anew() -> None:
    clock = HandClock()
    lives = 0

    async def live(ready: Callable[[], None]) -> None:
        nonlocal lives
        lives += 1
        if lives == 6:
            ready()
            clock.seconds += 11
        raise ConnectionError

    async with running(Supervisor("x", live, clock=clock)):
        for _ in range(6):
            await clock.next_pause()
            clock.wake()
    assert clock.pauses[4] >= 4
    assert clock.pauses[5] <= 0.5


def test_after_a_ready_life_the_pause_is_short() -> None:
    backoff = Backoff()
    assert all(backoff.pause_s(n, was_ready=True) <= 1.0 for n in range(1, 50))
    assert 30 <= backoff.pause_s(10_000, was_ready=False) <= 60


async def test_hurry_cuts_a_long_pause_but_not_a_fresh_one() -> None:
    clock = HandClock()
    supervisor = Supervisor("x", never_ready, clock=clock)
    async with running(supervisor):
        await clock.next_pause()
        supervisor.hurry()
        await asyncio.sleep(0.01)
        assert supervisor.lives == 1
        clock.seconds += 2.5
        clock.sleeping.clear()
        supervisor.hurry()
        await clock.next_pause()
        assert supervisor.lives == 2


async def test_wait_ready_gives_up_in_time_and_when_stopped() -> None:
    clock = HandClock()
    supervisor = Supervisor("x", never_ready, clock=clock)
    async with running(supervisor):
        assert not await supervisor.wait_ready(0.01)
        assert await supervisor.settled() == "broken"
        waiting = asyncio.create_task(supervisor.wait_ready())
        await asyncio.sleep(0)
    assert not await waiting


async def test_a_leaked_cancellation_is_a_break_and_not_the_end() -> None:
    clock = HandClock()
    lives = 0

    async def live(ready: Callable[[], None]) -> None:
        nonlocal lives
        lives += 1
        ready()
        if lives == 1:
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    supervisor = Supervisor("x", live, clock=clock)
    async with running(supervisor):
        await clock.next_pause()
        clock.wake()
        assert await supervisor.wait_ready(5)
        assert supervisor.lives == 2


async def test_a_cancellation_that_a_task_group_swallows_still_stops_it() -> None:
    breaking = asyncio.Event()
    release = asyncio.Event()

    async def stays() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            breaking.set()
            await release.wait()

    async def live(ready: Callable[[], None]) -> None:
        ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(stays())
            await asyncio.sleep(0)
            raise ConnectionError

    supervisor = Supervisor("x", live, clock=HandClock())
    async with running(supervisor):
        await breaking.wait()
        asyncio.get_running_loop().call_later(0.02, release.set)
