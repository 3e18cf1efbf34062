"""One holder at a time, whoever waits comes next, and a holder that is gone loses it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from llmling.errors import EngineError
from llmling.runtime.lease import LEASE_S, lease
from llmling.runtime.stores import MemoryStore
from llmling.testing import FakeClock, until


class Failing(MemoryStore):
    """A store that cannot be written while `broken`."""

    broken = False

    async def swap(self, space: str, key: str, old: object, new: object) -> bool:
        if self.broken:
            raise EngineError("engine not writable: disk full")
        return await super().swap(space, key, old, new)


async def test_one_at_a_time_and_nothing_is_left_behind() -> None:
    store, clock = MemoryStore(), FakeClock()
    inside = most = 0
    order: list[int] = []

    async def work(number: int) -> None:
        nonlocal inside, most
        async with lease(store, "x", clock):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            order.append(number)
            inside -= 1

    tasks = [asyncio.create_task(work(number)) for number in range(8)]
    while not all(task.done() for task in tasks):
        await clock.advance(0.01)
        await asyncio.sleep(0)
    assert (most, sorted(order)) == (1, list(range(8)))
    assert await store.items("leases") == {}
    assert clock.sleepers == 0


async def test_other_names_do_not_wait() -> None:
    store, clock = MemoryStore(), FakeClock()
    async with lease(store, "x", clock), lease(store, "y", clock):
        assert set(await store.items("leases")) == {"x", "y"}


async def test_a_holder_that_is_alive_keeps_it_for_ever() -> None:
    store, clock = MemoryStore(), FakeClock()
    taken = asyncio.Event()

    async def other() -> None:
        async with lease(store, "x", clock):
            taken.set()

    async with lease(store, "x", clock):
        task = asyncio.create_task(other())
        for turn in range(100):
            await clock.advance(LEASE_S / 4)
            if turn % 10 == 9:
                clock.jump(3 * LEASE_S)
        assert not taken.is_set()
    while not taken.is_set():
        await asyncio.sleep(0)
        await clock.advance(0.1)
    await task


async def test_the_one_who_waits_comes_before_the_one_who_had_it() -> None:
    store, clock = MemoryStore(), FakeClock()
    order: list[str] = []

    async def other() -> None:
        async with lease(store, "x", clock):
            order.append("other")

    async with lease(store, "x", clock):
        task = asyncio.create_task(other())
        await clock.asleep(2)

    async def again() -> None:
        async with lease(store, "x", clock):
            order.append("again")

    # Although nobody tells the other one, who looks only now and then.
    second = asyncio.create_task(again())
    while len(order) < 2:
        await asyncio.sleep(0)
        await clock.advance(0.05)
    await asyncio.gather(task, second)
    assert order == ["other", "again"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_holder_that_was_killed_loses_it(restarted: bool, caplog: pytest.LogCaptureFixture) -> None:
    store, clock = MemoryStore(), FakeClock()
    stale = {"until": clock.now().timestamp() + LEASE_S, "owner": "killed", "next": "killed too"}
    await store.put("leases", {"x": stale})
    wait_s = LEASE_S
    if restarted:
        # A day later half the wait is enough: a holder that lives would be heard of, whatever the clock says.
        clock.jump(86_400)
        wait_s = LEASE_S / 2
    taken = asyncio.Event()

    async def other() -> None:
        async with lease(store, "x", clock):
            taken.set()

    task = asyncio.create_task(other())
    while not taken.is_set():
        await asyncio.sleep(0)
        await clock.advance(0.1)
    await task
    assert wait_s <= clock.monotonic() < wait_s + 1
    assert "took over the lease x" in caplog.text


async def test_who_stops_waiting_leaves_the_line() -> None:
    store, clock = MemoryStore(), FakeClock()
    async with lease(store, "x", clock):

        async def other() -> None:
            async with lease(store, "x", clock):
                raise AssertionError("it is held")

        task = asyncio.create_task(other())
        await clock.asleep(2)
        assert (await store.get("leases", "x"))["next"] is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert (await store.get("leases", "x"))["next"] is None
    assert await store.items("leases") == {}


async def test_a_store_that_fails_meanwhile_neither_ends_the_work_nor_hides_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    store, clock = Failing(), FakeClock()

    async def work() -> None:
        async with lease(store, "x", clock):
            await clock.asleep()
            store.broken = True
            await clock.advance(LEASE_S)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert "could not be renewed: engine not writable" in caplog.text
    assert "it ends by itself" in caplog.text
    with pytest.raises(EngineError):
        async with lease(store, "y", clock):
            raise AssertionError("it was never taken")


async def test_a_holder_that_stalled_is_told(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = MemoryStore(), FakeClock()
    async with lease(store, "x", clock):
        await clock.asleep()
        await store.put("leases", {"x": {"until": 0, "owner": "somebody", "next": None}})
        await clock.advance(LEASE_S / 2)
        await until(lambda: "lost the lease x" in caplog.text)
    # What another one has is left alone.
    assert (await store.get("leases", "x"))["owner"] == "somebody"
