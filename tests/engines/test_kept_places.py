"""A delivery that may start at once starts with the commit that writes it, in a place kept for it until then."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from engine_world import Gate, World, to, until

from llmling.errors import Full
from llmling.events import Event
from llmling.protocols import Done, Policy, Settlement, Work


@asynccontextmanager
async def serving(folder: Path, *, places: int, pool: int = 100) -> AsyncGenerator[tuple[World, Gate]]:
    world = World("sqlite", folder)
    gate = Gate()
    world.answers["a"] = gate
    await world.engine.open()
    try:
        await world.start({"a": Policy(concurrency=places), "b": Policy()}, concurrency=pool)
        yield world, gate
    finally:
        await world.engine.stop(0)


def written(folder: Path) -> list[tuple[str, int]]:
    """Return status and tries of all deliveries, as they are in the file."""
    with closing(sqlite3.connect(folder / "state" / "pool.db")) as connection:
        return connection.execute("select status, attempts from delivery order by seq").fetchall()


async def filled(gate: Gate, world: World, places: int) -> None:
    """Return when as many run as may."""
    for _ in range(places - len(gate.inside)):
        await world.accept()
    await until(lambda: len(gate.inside) == places)


async def test_what_may_start_at_once_is_running_with_its_event(tmp_path: Path) -> None:
    async with serving(tmp_path, places=1) as (world, gate):
        # Until the start has looked at the disk, something older may be there.
        await world.finished((await world.accept("b")).event_id)
        first = await world.accept()
        assert written(tmp_path)[1:] == [("running", 1)]
        assert (await world.record(first.event_id)).status == "running"
        second = await world.accept()
        assert written(tmp_path)[1:] == [("running", 1), ("pending", 0)]
        gate.open.set()
        records = [await world.finished(receipt.event_id) for receipt in (first, second)]
        assert [(record.status, record.attempts) for record in records] == [("done", 1), ("done", 1)]
        assert world.started[1:] == [(f"{record.id}/a", 1) for record in records]


async def test_a_place_kept_for_an_event_that_is_known_is_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path, places=2) as (world, gate):
        await world.finished((await world.accept("b")).event_id)
        one, other = await asyncio.gather(world.accept(key="k"), world.accept(key="k"))
        assert one.event_id == other.event_id
        assert (one.new, other.new) == (True, False)
        await filled(gate, world, 2)
        gate.open.set()
        await until(lambda: len(world.settled) == 3)


async def test_a_place_kept_for_an_event_that_cannot_be_written_is_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path, places=1) as (world, gate):
        await world.finished((await world.accept("b")).event_id)
        path = tmp_path / "state" / "pool.db"
        path.rename(path.with_suffix(".away"))
        with pytest.raises(Full, match="engine not writable"):
            await world.accept()
        given_up = asyncio.create_task(world.accept())
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        path.with_suffix(".away").rename(path)
        await filled(gate, world, 1)


@pytest.mark.parametrize("pool", [1, 2, 100])
async def test_what_follows_starts_with_the_end_before_it(tmp_path: Path, pool: int) -> None:
    async def on(work: Work) -> Settlement:
        return Done("on", to(work, "b", "c"))

    async with serving(tmp_path, places=1, pool=pool) as (world, gate):
        gate.open.set()
        world.answers["a"] = on
        receipts = [await world.accept() for _ in range(5)]
        for receipt in receipts:
            record = await world.finished(receipt.event_id)
            # There is no agent "c".
            assert [(each.agent, each.status) for each in record.deliveries] == [
                ("a", "done"), ("b", "done"), ("c", "dead"),
            ]  # fmt: skip
            assert [each.attempts for each in record.deliveries] == [1, 1, 0]
        assert len(world.started) == 10
        world.answers["a"] = gate
        gate.open.clear()
        await filled(gate, world, 1)


async def test_what_was_to_start_when_the_engine_stops_runs_after_it(tmp_path: Path) -> None:
    async with serving(tmp_path, places=1) as (world, gate):
        gate.open.set()
        await world.finished((await world.accept("b")).event_id)
        accepting = asyncio.create_task(world.accept())
        await asyncio.sleep(0)
        await world.engine.stop(0)
        event_id = (await accepting).event_id
        assert written(tmp_path)[1:] == [("pending", 0)]
    async with serving(tmp_path, places=1) as (world, gate):
        gate.open.set()
        record = await world.finished(event_id)
        assert (record.status, record.attempts) == ("done", 1)


@asynccontextmanager
async def locked(folder: Path) -> AsyncGenerator[None]:
    """Let no commit through meanwhile."""
    with closing(sqlite3.connect(folder / "state" / "pool.db", isolation_level=None)) as connection:
        connection.execute("begin immediate")
        try:
            yield
        finally:
            connection.execute("rollback")


async def test_what_is_committed_while_the_engine_stops_has_not_been_tried(tmp_path: Path) -> None:
    async with serving(tmp_path, places=1) as (world, gate):
        gate.open.set()
        await world.finished((await world.accept("b")).event_id)
        async with locked(tmp_path):
            accepting = asyncio.create_task(world.accept())
            await asyncio.sleep(0)
            stopping = asyncio.create_task(world.engine.stop(5))
            await asyncio.sleep(0)
            stopping.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([stopping])
        event_id = (await accepting).event_id
        assert written(tmp_path)[1:] == [("pending", 0)]
        assert world.started[1:] == []
    async with serving(tmp_path, places=1) as (world, gate):
        gate.open.set()
        assert (await world.finished(event_id)).status == "done"


async def test_what_follows_while_the_engine_stops_on_a_file_that_is_away_has_not_been_tried(tmp_path: Path) -> None:
    async def on(work: Work) -> Settlement:
        return Done("on", to(work, "b"))

    async with serving(tmp_path, places=1) as (world, _):
        await world.finished((await world.accept("b")).event_id)
        going_on = Gate(on)
        world.answers["a"], world.answers["b"] = going_on, Gate()
        await world.accept()
        await until(lambda: len(world.started) == 2)
        path = tmp_path / "state" / "pool.db"
        path.rename(path.with_suffix(".away"))
        going_on.open.set()
        await until(lambda: world.engine.fault is not None)
        stopping = asyncio.create_task(world.engine.stop(0))
        await asyncio.sleep(0)
        path.with_suffix(".away").rename(path)
        await stopping
        assert written(tmp_path)[1:] == [("done", 1), ("pending", 0)]


async def test_what_comes_while_another_one_is_written_waits_behind_it(tmp_path: Path) -> None:
    async with serving(tmp_path, places=1) as (world, gate):
        await world.finished((await world.accept("b")).event_id)
        running = await world.accept(text="running")
        await until(lambda: len(gate.inside) == 1)

        async def next_one() -> None:
            # In the moment in which the place is free.
            await world.finished(running.event_id)
            await world.accept(text="second")

        second = asyncio.create_task(next_one())
        async with locked(tmp_path):
            gate.open.set()
            await until(lambda: not gate.inside)
            first = asyncio.create_task(world.accept(text="first"))
            await asyncio.sleep(0)
        await asyncio.gather(first, second)
        await until(lambda: len(world.settled) == 4)
        order = [delivery_id.partition("/")[0] for delivery_id, _ in world.started]
        texts = {record.id: record.event.data for record in world.settled}
        assert [texts[event_id] for event_id in order] == ["hello", "running", "first", "second"]


async def test_an_event_that_comes_again_waits_for_its_first_run_to_let_go(tmp_path: Path) -> None:
    let_go = asyncio.Event()
    inside: list[int] = []

    async def stubborn(work: Work) -> Settlement:
        inside.append(len(inside))
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()
            inside.pop()
        raise AssertionError

    async with serving(tmp_path, places=2) as (world, gate):
        await world.finished((await world.accept("b")).event_id)
        world.answers["a"] = stubborn
        event = Event("inbox", "t", data="x")
        await world.accept(event=event)
        await until(lambda: len(inside) == 1)
        assert [await world.engine.drop(event.id) for _ in range(2)] == [1, 1]
        world.answers["a"] = gate
        assert (await world.accept(event=event)).new
        await world.finished((await world.accept("b")).event_id)
        assert not gate.inside
        let_go.set()
        await until(lambda: len(gate.inside) == 1)
        assert not inside
        await filled(gate, world, 2)


async def test_a_task_that_is_cancelled_before_its_first_step_gives_its_delivery_back(tmp_path: Path) -> None:
    async with serving(tmp_path, places=1) as (world, gate):
        gate.open.set()
        await world.finished((await world.accept()).event_id)
        before = asyncio.all_tasks()
        receipt = await world.accept()
        # Who has sent it is told before it runs.
        (task,) = asyncio.all_tasks() - before
        task.cancel()
        record = await world.finished(receipt.event_id)
        assert (record.status, record.attempts) == ("done", 1)
        assert task.cancelled()


async def test_a_run_that_cancels_its_own_task_and_answers_all_the_same_is_done(tmp_path: Path) -> None:
    async def rash(work: Work) -> Settlement:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return Done("fine", to(work, "b"))

    async with serving(tmp_path, places=1) as (world, _):
        world.answers["a"] = rash
        receipts = [await world.accept() for _ in range(3)]
        for receipt in receipts:
            record = await world.finished(receipt.event_id)
            assert [(each.status, each.attempts) for each in record.deliveries] == [("done", 1)] * 2


async def test_what_comes_in_together_meets_a_full_inbox_as_each_for_itself_does(tmp_path: Path) -> None:
    world, gate = World("sqlite", tmp_path), Gate()
    world.answers["a"] = gate
    await world.engine.open()
    try:
        await world.start({"a": Policy(concurrency=3, inbox_size=2, overflow="reject")})
        for _ in range(3):
            await world.accept(order_key="k")
        await until(lambda: len(gate.inside) == 1)
        # Two places are free, but as many wait for their turn as may.
        for count in (1, 2):
            found = await asyncio.gather(*(world.accept() for _ in range(count)), return_exceptions=True)
            assert [type(each) for each in found] == [Full] * count
    finally:
        await world.engine.stop(0)
