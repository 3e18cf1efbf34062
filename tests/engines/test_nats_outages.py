"""What happens to work in NATS while a process or the server is away, and when the server forgets."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_world import Gate, World, until
from nats_server import NatsServer, need_nats
from nats_wire import Wire
from serving import eventually

from llmling.errors import EngineError, Full
from llmling.protocols import Done, Policy, Settlement, Step, Work


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    need_nats()
    (tmp_path / "nats").mkdir()
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.end()


async def test_who_is_cut_off_gives_up_before_another_takes_over(server: NatsServer, tmp_path: Path) -> None:
    lease_s = 2.0
    calls: list[tuple[str, str]] = []
    async with Wire(server.port) as wire:
        alone = World("nats", tmp_path, lease_s=lease_s, url=wire.url)
        other = World("nats", tmp_path, lease_s=lease_s, url=server.url)
        ended, dead = asyncio.Event(), asyncio.Event()

        async def slow(work: Work) -> Settlement:
            calls.append(("begun", "alone"))
            try:
                await dead.wait()
                # Sent into the dead wire, it arrives when that is mended.
                await work.journal.record(Step("1", "reply", {"text": "late"}))
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                calls.append(("given up", "alone"))
                ended.set()
                raise
            return Done("from the one that was cut off")

        async def quick(work: Work) -> Settlement:
            calls.append(("begun", "other"))
            await work.journal.record(Step("1", "reply", {"text": "in time"}))
            return Done("from the other one")

        alone.answers["a"], other.answers["a"] = slow, quick
        await alone.engine.open()
        await alone.start()
        receipt = await alone.accept()
        await until(lambda: len(calls) == 1)
        await other.engine.open()
        await other.start()
        wire.cut()
        dead.set()
        await asyncio.wait_for(ended.wait(), 30)
        record = await other.finished(receipt.event_id)
        assert record.content == "from the other one"
        assert calls == [("begun", "alone"), ("given up", "alone"), ("begun", "other")]
        wire.mend()
        await asyncio.wait_for(_counts(alone), 60)
        record = await other.record(receipt.event_id)
        assert record.content == "from the other one"
        assert record.deliveries[0].steps == (Step("1", "reply", {"text": "in time"}),)
        heard = [*alone.settled, *other.settled]
        assert {each.id for each in heard} == {receipt.event_id}
        for world in (alone, other):
            await world.engine.stop(0)


async def test_a_server_that_forgets_what_it_handed_out_does_not_have_it_run_twice(
    server: NatsServer, tmp_path: Path
) -> None:
    async with Wire(server.port) as wire:
        slow = World("nats", tmp_path, url=wire.url)
        quick = World("nats", tmp_path, url=server.url)
        gate = slow.answers["a"] = Gate()
        for world in (slow, quick):
            await world.engine.open()
        await slow.start()
        receipt = await slow.accept()
        await until(lambda: len(gate.inside) == 1)
        await quick.start()
        # Its owner connects again a while after the other one.
        await wire.unplug()
        await asyncio.to_thread(server.end)
        (state,) = server.folder.glob("jetstream/*/streams/*-queue/obs/a/o.dat")
        state.unlink()
        await asyncio.to_thread(server.start)
        await until(lambda: quick.engine.loaded == 1)
        assert not quick.started
        await wire.plug()
        await until(lambda: quick.engine.loaded == 0)
        gate.open.set()
        record = await slow.finished(receipt.event_id)
        assert (record.status, record.attempts) == ("done", 1)
        assert not quick.started
        for world in (slow, quick):
            await world.engine.stop(0)


async def test_a_ticket_that_the_server_has_lost_sight_of_is_queued_again(server: NatsServer, tmp_path: Path) -> None:
    first = World("nats", tmp_path, url=server.url)
    gate = first.answers["a"] = Gate()
    await first.engine.open()
    await first.start()
    receipt = await first.accept("a")
    await until(lambda: len(gate.inside) == 1)
    await first.finished((await first.accept("b")).event_id)
    await first.engine.stop(0)
    await asyncio.to_thread(server.end, signal.SIGTERM)
    (queue,) = server.folder.glob("jetstream/*/streams/*-queue/obs")
    # As a new leader sees it: all that was handed out has been settled.
    shutil.copy(queue / "b" / "o.dat", queue / "a" / "o.dat")
    await asyncio.to_thread(server.start)
    second = World("nats", tmp_path, url=server.url, lease_s=1)
    await second.engine.open()
    await second.start()
    assert (await second.finished(receipt.event_id)).status == "done"
    await second.engine.stop(0)


async def test_a_ticket_that_the_server_has_forgotten_to_settle_takes_nobodys_place(
    server: NatsServer, tmp_path: Path
) -> None:
    policies = {"a": Policy(concurrency=1), "b": Policy()}
    first = World("nats", tmp_path, url=server.url)
    gates = first.answers["a"], first.answers["b"] = Gate(), Gate()
    await first.engine.open()
    await first.start(policies)
    # An older ticket stays in the queue; without one the server finds out by itself.
    await first.accept("b")
    receipt = await first.accept("a")
    await until(lambda: all(len(gate.inside) == 1 for gate in gates))
    await asyncio.to_thread(server.end, signal.SIGTERM)
    (state,) = server.folder.glob("jetstream/*/streams/*-queue/obs/a/o.dat")
    handed_out = state.read_bytes()
    await asyncio.to_thread(server.start)
    gates[0].open.set()
    assert (await first.finished(receipt.event_id)).status == "done"
    await first.engine.stop(0)
    await asyncio.to_thread(server.end, signal.SIGTERM)
    # As a server that was killed has it: the ticket is gone, and handed out.
    state.write_bytes(handed_out)
    await asyncio.to_thread(server.start)
    second = World("nats", tmp_path, url=server.url, lease_s=1)
    second.answers["b"] = Gate()
    await second.engine.open()
    await second.start(policies)
    assert (await second.finished((await second.accept("a")).event_id)).status == "done"
    await second.engine.stop(0)


async def _counts(world: World) -> dict[str, int]:
    async def look() -> dict[str, int] | None:
        try:
            return await world.engine.counts()
        except EngineError:
            return None

    return await eventually(look, "the engine to come back", 60)


async def test_a_server_that_is_away_delays_and_loses_nothing(server: NatsServer, tmp_path: Path) -> None:
    world = World("nats", tmp_path, url=server.url)
    gate = world.answers["a"] = Gate()
    await world.engine.open()
    await world.start()
    receipt = await world.accept(key="k")
    await until(lambda: len(gate.inside) == 1)
    server.end()
    await until(lambda: world.engine.fault is not None)
    assert "cannot be reached" in (world.engine.fault or "")
    with pytest.raises(Full, match="NATS"):
        await world.accept()
    gate.open.set()
    await asyncio.to_thread(server.start)
    record = await world.finished(receipt.event_id)
    assert (record.status, record.attempts) == ("done", 1)
    assert world.engine.fault is None
    assert len(world.started) == 1
    assert not (await world.accept(key="k")).new
    await world.engine.stop(0)


async def test_many_may_begin_at_once_on_a_name_that_is_new(tmp_path: Path) -> None:
    for number in range(8):
        worlds = [World("nats", tmp_path / str(number)) for _ in range(6)]
        await asyncio.gather(*(world.engine.open() for world in worlds))
        event_id = (await worlds[0].accept()).event_id
        assert [(await world.record(event_id)).id for world in worlds] == [event_id] * 6
        for world in worlds:
            await world.engine.stop(0)
