"""What only a file can do: outlive its process, be shared, be locked, be damaged."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from engine_world import AGENTS, Gate, ManualClock, World, to, until

from llmling.engines import schema
from llmling.engines.sqlite import SqliteEngine
from llmling.errors import EngineBusy, EngineError
from llmling.events import Event
from llmling.manifest.pool import SqliteEngineConfig
from llmling.protocols import Again, Dead, Done, Policy, Settlement, Step, Waiting, Work
from llmling.runtime.clock import SYSTEM_CLOCK, Clock


@asynccontextmanager
async def opened(folder: Path, clock: Clock = SYSTEM_CLOCK) -> AsyncGenerator[World]:
    world = World("sqlite", folder, clock)
    await world.engine.open()
    try:
        yield world
    finally:
        await world.engine.stop(0)


def database(folder: Path) -> Path:
    return folder / "state" / "pool.db"


# --- one process after another ---------------------------------------------------------------------------------------


async def test_an_accepted_event_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        receipt = await world.accept()
        with closing(sqlite3.connect(database(tmp_path))) as connection:
            assert connection.execute("select id, status from event").fetchall() == [(receipt.event_id, "pending")]
            assert connection.execute("select count(*) from delivery").fetchone() == (1,)


async def test_the_next_process_runs_what_was_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        left = [(await world.accept(key=str(number))).event_id for number in range(10)]
    async with opened(tmp_path) as world:
        await world.start()
        await until(lambda: len(world.settled) == 10)
        assert [start[0] for start in world.started] == [f"{event_id}/a" for event_id in left]
        assert not (await world.accept(key="3")).new


async def test_being_stopped_is_no_try_and_keeps_the_steps(tmp_path: Path) -> None:
    gate = Gate()

    async def stepwise(work: Work) -> Settlement:
        await work.journal.record(Step("1", "reply", {"n": 1}))
        return await gate(work)

    async with opened(tmp_path) as world:
        world.answers["a"] = stepwise
        await world.start({"a": Policy(attempts=1)})
        receipt = await world.accept()
        await until(lambda: len(gate.inside) == 1)
        assert await world.engine.stop(0) == 1
    known: list[Step | None] = []

    async def resumed(work: Work) -> Settlement:
        known.append(work.journal.recorded("1"))
        return Done("resumed")

    async with opened(tmp_path) as world:
        assert (await world.record(receipt.event_id)).status == "pending"
        world.answers["a"] = resumed
        await world.start({"a": Policy(attempts=1)})
        record = await world.finished(receipt.event_id)
        assert (record.status, record.attempts, record.content) == ("done", 1, "resumed")
    assert known == [Step("1", "reply", {"n": 1})]


async def test_back_off_and_decisions_outlive_the_process(tmp_path: Path, clock: ManualClock) -> None:
    async def first(work: Work) -> Settlement:
        return Waiting("decide") if work.delivery.message.text == "waiting" else Again("busy", 100)

    async with opened(tmp_path, clock) as world:
        world.answers["a"] = first
        await world.start()
        waiting, backing_off = await world.accept(text="waiting"), await world.accept(text="busy")
        await world.record_when(waiting.event_id, lambda record: record.status == "waiting")
        await world.record_when(backing_off.event_id, lambda record: record.deliveries[0].error == "busy")
    clock.advance(40)
    async with opened(tmp_path, clock) as world:
        await world.start()
        await world.finished((await world.accept()).event_id)
        assert (await world.record(waiting.event_id)).status == "waiting"
        clock.advance(59)
        await world.finished((await world.accept()).event_id)
        assert (await world.record(backing_off.event_id)).attempts == 1
        clock.advance(2)
        assert (await world.finished(backing_off.event_id)).attempts == 2


async def test_a_clock_set_back_between_two_processes_stalls_nothing(tmp_path: Path, clock: ManualClock) -> None:
    async def busy(work: Work) -> Settlement:
        return Again("busy", 10)

    async with opened(tmp_path, clock) as world:
        world.answers["a"] = busy
        await world.start()
        receipt = await world.accept()
        await world.record_when(receipt.event_id, lambda record: record.deliveries[0].error == "busy")
    clock.wall = clock.wall.replace(year=2025)
    async with opened(tmp_path, clock) as world:
        await world.start()
        await world.finished((await world.accept()).event_id)
        clock.advance(10.5)
        await world.finished(receipt.event_id)


async def test_what_is_kept_for_minutes_is_looked_at_in_minutes(tmp_path: Path, clock: ManualClock) -> None:
    world = World("sqlite", tmp_path, clock)
    world.engine = SqliteEngine(SqliteEngineConfig(path="state/pool.db", keep_days=0.01), tmp_path, clock)
    await world.engine.open()
    try:
        await world.start()
        receipt = await world.accept()
        await until(lambda: len(world.settled) == 1)
        clock.advance(900)
        await world.forgotten(receipt.event_id)
    finally:
        await world.engine.stop(0)


async def test_twenty_thousand_queued_events_stay_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        numbers = iter(range(20_000))

        async def send() -> None:
            for _ in numbers:
                await world.accept()

        await asyncio.gather(*(send() for _ in range(256)))
        gate = world.answers["a"] = Gate()
        await world.start()
        await until(lambda: len(gate.inside) == 4)
        assert world.engine.loaded <= 4 + 2 * 4 + 64
        gate.open.set()
        await until(lambda: len(world.settled) >= 300)
        assert world.engine.loaded <= 4 + 2 * 4 + 64
        assert await world.engine.stop(5) == 0


async def test_a_row_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        bad, good = await world.accept(), await world.accept()
    with closing(sqlite3.connect(database(tmp_path))) as connection:
        connection.execute("update delivery set message = '{}' where event_id = ?", (bad.event_id,))
        connection.commit()
    async with opened(tmp_path) as world:
        await world.start()
        await world.finished(good.event_id)
        await until(lambda: len(world.started) == 1)
        assert (await world.engine.counts()) == {"done": 1, "dead": 1}


# --- several processes at once ---------------------------------------------------------------------------------------


async def test_one_process_serves_a_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        assert isinstance(first.engine, SqliteEngine)
        assert isinstance(second.engine, SqliteEngine)
        assert not second.engine.serving
        await first.start()
        assert first.engine.serving
        assert second.engine.serving
        with pytest.raises(EngineBusy, match=r"pool\.db is served by another process \(id \d+\).*nats"):
            await second.start()
        receipt = await second.accept()
        await first.finished(receipt.event_id)
        await first.engine.stop(0)
        assert not second.engine.serving
        await second.start()


async def test_another_process_accepts_waits_retries_and_drops(tmp_path: Path) -> None:
    healthy = False
    gate = Gate()

    async def moody(work: Work) -> Settlement:
        return Done("well") if healthy else Dead("ill")

    async with opened(tmp_path) as server, opened(tmp_path) as operator:
        server.answers.update(a=moody, b=gate)
        await server.start()
        receipt = await operator.accept()
        assert (await operator.finished(receipt.event_id)).error == "ill"
        healthy = True
        assert await operator.engine.retry(receipt.event_id) == 1
        assert (await operator.finished(receipt.event_id)).status == "done"
        await until(lambda: len(server.settled) == 2)
        # A running delivery is stopped, and the serving process hears of the end of its event.
        running = await operator.accept("b")
        await until(lambda: len(gate.inside) == 1)
        assert await operator.engine.drop(running.event_id) == 1
        await until(lambda: not gate.inside)
        await until(lambda: len(server.settled) == 3)
        assert [record.status for record in server.settled] == ["dead", "done", "dead"]
        # Dropped and retried before the server looked: it runs once more, not twice at once.
        gate.inside.clear()
        again = await operator.accept("b")
        await until(lambda: len(gate.inside) == 1)
        await operator.engine.drop(again.event_id)
        await operator.engine.retry(again.event_id)
        gate.open.set()
        assert (await operator.finished(again.event_id)).status == "done"


async def test_what_was_dropped_meanwhile_is_told_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as operator:
        receipt = await operator.accept()
        assert await operator.engine.drop(receipt.event_id) == 1
        filtered = Event("s", "t")
        await operator.engine.accept(filtered, None, trigger="s", agent="a", outcome="filtered")
        assert operator.settled == []
    async with opened(tmp_path) as world:
        await world.start()
        await until(lambda: len(world.settled) == 2)
        assert [record.id for record in world.settled] == [receipt.event_id, filtered.id]
    async with opened(tmp_path) as world:
        await world.start()
        await world.finished((await world.accept()).event_id)
        await until(lambda: len(world.settled) == 1)


async def test_somebody_else_writing_only_delays(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.start()
        with closing(sqlite3.connect(database(tmp_path), isolation_level=None)) as connection:
            connection.execute("begin immediate")
            accepting = asyncio.create_task(world.accept())
            done, _ = await asyncio.wait([accepting], timeout=0.3)
            assert not done
            connection.execute("rollback")
        await world.finished((await accepting).event_id)


async def test_an_agent_taken_out_of_the_manifest(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        left = [(await world.accept("b")).event_id for _ in range(450)]
    async with opened(tmp_path) as world:
        await world.start({"a": Policy()})
        await until(lambda: len(world.settled) == 450)
        assert {record.status for record in world.settled} == {"dead"}
    async with opened(tmp_path) as world:
        await world.start(AGENTS)
        assert await world.engine.retry(left[7]) == 1
        assert (await world.finished(left[7])).status == "done"


async def test_a_chain_goes_on_where_it_was(tmp_path: Path) -> None:
    gate = Gate()

    async def forward(work: Work) -> Settlement:
        return Done("once", to(work, "b"), cost_usd=1)

    async with opened(tmp_path) as world:
        world.answers.update(a=forward, b=gate)
        await world.start()
        receipt = await world.accept()
        await until(lambda: len(gate.inside) == 1)
    async with opened(tmp_path) as world:
        assert (await world.record(receipt.event_id)).status == "running"
        await world.start()
        record = await world.finished(receipt.event_id)
        assert [start[0] for start in world.started] == [f"{receipt.event_id}/a/b"]
        assert (record.status, record.content, record.cost_usd) == ("done", "once", 1)


# --- files that cannot be used ---------------------------------------------------------------------------------------


async def refused(path: str, folder: Path) -> str:
    engine = SqliteEngine(SqliteEngineConfig(path=path), folder)
    with pytest.raises(EngineError) as refusal:
        await engine.open()
    await engine.stop(0)
    return str(refusal.value)


async def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("not a database, but somebody's notes\n" * 50)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("create table mine(x)")
    before = other.read_bytes()
    assert f"{text} is not an SQLite file; move it away or change `engine.path`" in await refused("notes.txt", tmp_path)
    assert f"{other} belongs to another program" in await refused("other.db", tmp_path)
    assert other.read_bytes() == before


async def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.accept()
    with closing(sqlite3.connect(database(tmp_path))) as connection:
        connection.execute("pragma user_version = 99")
    message = await refused("state/pool.db", tmp_path)
    assert (
        f"was written by a newer llmling (format 99, this release knows {schema.VERSION}); upgrade llmling" in message
    )


async def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert f"{tmp_path / 'file'} cannot be made" in await refused("file/pool.db", tmp_path)
    assert f"{tmp_path / 'folder'} cannot be written" in await refused("folder", tmp_path)


async def test_a_damaged_file_is_found_at_the_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await asyncio.gather(*(world.accept(text="x" * 500) for _ in range(300)))
    path = database(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = b"\xa5" * 20_000
    path.write_bytes(data)
    async with opened(tmp_path) as world:
        with pytest.raises(EngineError, match=r"pool\.db is damaged .*restore it from a backup, .*\.recover"):
            await world.start()
        assert isinstance(world.engine, SqliteEngine)
        assert not world.engine.serving
