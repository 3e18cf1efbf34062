"""Keys, overlap and priorities over several processes, and when those die."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_worker import CHAIN
from engine_world import Gate, World, until
from nats_server import NatsServer, nats_url, need_nats
from nats_wire import Wire
from nats_worker import CONCURRENCY

from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Delivery, Done, Policy, Settlement, Work

FULL = bool(os.environ.get("CHAOS"))
EVENTS, KILLS, LEASE_S = (1500, 20, 3.0) if FULL else (40, 1, 1.5)
KEYS = 5


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[tuple[World, World]]:
    pair = World("nats", tmp_path), World("nats", tmp_path)
    for world in pair:
        await world.engine.open()
    yield pair
    for world in pair:
        await world.engine.stop(0)


async def test_a_key_is_one_line_over_all_processes(worlds: tuple[World, World]) -> None:
    order: dict[str | None, list[str]] = {}
    inside: set[str | None] = set()

    async def watch(work: Work) -> Settlement:
        key = work.delivery.order_key
        assert key not in inside
        inside.add(key)
        order.setdefault(key, []).append(work.event.data)
        await asyncio.sleep(0.001)
        inside.remove(key)
        return Done("")

    for world in worlds:
        world.answers["a"] = watch
        await world.start({"a": Policy(concurrency=4)})
    for number in range(60):
        await worlds[number % 2].accept(text=str(number), order_key=str(number % 3))
    await until(lambda: sum(len(world.settled) for world in worlds) == 60)
    assert order == {str(key): [str(number) for number in range(key, 60, 3)] for key in range(3)}
    assert all(world.started for world in worlds)


async def test_of_events_that_come_to_several_processes_at_once_one_is_not_skipped(
    worlds: tuple[World, World],
) -> None:
    gate = Gate()
    for world in worlds:
        world.answers["a"] = gate
        await world.start()
    receipts = await asyncio.gather(*(world.accept(order_key="x", overlap="skip") for world in worlds * 5))
    records = [await worlds[0].record(receipt.event_id) for receipt in receipts]
    assert [record.outcome for record in records].count("skipped") == 9
    gate.open.set()
    await until(lambda: sum(len(world.settled) for world in worlds) == 10)


async def test_of_events_that_come_to_several_processes_at_once_one_takes_the_place_of_all(
    worlds: tuple[World, World],
) -> None:
    gate = Gate()
    for world in worlds:
        world.answers["a"] = gate
        await world.start()
    await worlds[0].accept(order_key="x", overlap="coalesce")
    await until(lambda: len(gate.inside) == 1)
    await asyncio.gather(*(world.accept(order_key="x", overlap="coalesce") for world in worlds * 5))
    gate.open.set()
    await until(lambda: sum(len(world.settled) for world in worlds) == 11)
    outcomes = [record.outcome async for record in worlds[1].engine.runs(limit=None)]
    assert (outcomes.count("ran"), outcomes.count("coalesced")) == (2, 9)


async def test_what_is_urgent_goes_ahead_in_every_process(worlds: tuple[World, World]) -> None:
    gate = Gate()
    for world in worlds:
        world.answers["a"] = gate
        await world.start({"a": Policy(concurrency=2)})
    for _ in range(2):
        await worlds[0].accept()
    await until(lambda: len(gate.inside) == 2)
    for number in range(20):
        await worlds[number % 2].accept()
    high = [(await worlds[number % 2].accept(priority=1)).event_id for number in range(4)]
    first = len(worlds[0].started) + len(worlds[1].started)
    began: list[str] = []

    async def note(work: Work) -> Settlement:
        began.append(work.event.id)
        await asyncio.sleep(0.001)
        return Done("")

    for world in worlds:
        world.answers["a"] = note
    gate.open.set()
    await until(lambda: sum(len(world.settled) for world in worlds) == 26)
    assert first == 2
    assert len(began) == len(set(began)) == 24
    # Two that were handed out before are begun at most ahead of them.
    assert set(high) <= set(began[:6])


async def test_a_place_is_not_lost_to_what_went_ahead_in_another_process(worlds: tuple[World, World]) -> None:
    one, other = worlds
    ends = {name: asyncio.Event() for name in ("first", "second", "third", "urgent", "last")}
    inside: list[str] = []

    async def wait(work: Work) -> Settlement:
        inside.append(work.event.data)
        await ends[work.event.data].wait()
        return Done("")

    for world in worlds:
        world.answers["a"] = wait
    await one.start({"a": Policy(concurrency=2)})
    ids = {name: (await one.accept(text=name)).event_id for name in ("first", "second")}
    await until(lambda: len(inside) == 2)
    ids["third"] = (await one.accept(text="third")).event_id
    ids["urgent"] = (await one.accept(text="urgent", priority=1)).event_id
    ends["first"].set()
    # It runs in the place that the queue gave to the third.
    await until(lambda: inside[2:] == ["urgent"])
    await other.start({"a": Policy(concurrency=2)})
    ends["second"].set()
    # Its own ticket comes now, wherever, and makes room for the third.
    await until(lambda: inside[3:] == ["third"])
    for end in ends.values():
        end.set()
    for event_id in ids.values():
        assert (await one.finished(event_id)).deliveries[0].attempts == 1
    last = await one.accept(text="last")
    await one.finished(last.event_id)


async def test_the_bound_of_the_pool_holds_over_all_processes(worlds: tuple[World, World]) -> None:
    gate = Gate()
    for world in worlds:
        world.answers.update(a=gate, b=gate)
        await world.start({"a": Policy(concurrency=4), "b": Policy(concurrency=4)}, concurrency=3)
    for number in range(40):
        await worlds[number % 2].accept("ab"[number // 2 % 2])
    await until(lambda: len(gate.inside) == 3)
    gate.open.set()
    await until(lambda: sum(len(world.settled) for world in worlds) == 40)
    assert gate.most == 3


async def test_the_places_of_a_process_that_is_gone_are_free(tmp_path: Path) -> None:
    first, second = World("nats", tmp_path, lease_s=2), World("nats", tmp_path, lease_s=2)
    gate = first.answers["a"] = second.answers["b"] = Gate()
    async with Wire(int(nats_url().rpartition(":")[2])) as wire:
        first = World("nats", tmp_path, lease_s=2, url=wire.url)
        first.answers["a"] = gate
        for world in (first, second):
            await world.engine.open()
        await first.start({"a": Policy(concurrency=2)}, concurrency=1)
        await first.accept()
        await until(lambda: len(gate.inside) == 1)
        wire.cut()
        await second.start({"b": Policy(concurrency=2)}, concurrency=1)
        waits = await second.accept("b")
        await until(lambda: [work.delivery.agent for work in gate.inside] == ["b"])
        gate.open.set()
        assert (await second.finished(waits.event_id)).status == "done"
        wire.mend()
        for world in (second, first):
            await world.engine.stop(0)


# --- processes that die ----------------------------------------------------------------------------------------------


async def accept(world: World, number: int) -> str:
    event = Event("inbox", "t", data=number)
    delivery = Delivery(f"{event.id}/a", event.id, "a", Message.user(str(number)), order_key=str(number % KEYS))
    receipt = await world.engine.accept(event, delivery, trigger="inbox", agent="a", key=str(number))
    return receipt.event_id


async def start(url: str, folder: Path) -> Process:
    worker = Path(__file__).with_name("nats_worker.py")
    paths = [str(worker.parents[2]), str(worker.parents[1]), str(worker.parent)]
    return await asyncio.create_subprocess_exec(
        sys.executable, str(worker), url, str(folder), str(LEASE_S), "100",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, stdout=DEVNULL,
    )  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.chaos
async def test_the_order_of_keys_outlives_processes_that_die(tmp_path: Path) -> None:
    need_nats()
    (tmp_path / "nats").mkdir()
    server = NatsServer(tmp_path / "nats")
    server.start()
    world = World("nats", tmp_path, lease_s=LEASE_S, url=server.url)
    workers: list[Process] = []
    try:
        await world.engine.open()
        ids = [await accept(world, number) for number in range(EVENTS)]
        workers += [await start(server.url, tmp_path) for _ in range(2)]
        chosen = random.Random(7)
        for kill in range(KILLS):
            ended = (kill + 1) * 3 * EVENTS // (KILLS + 1)
            await until(functools.partial(_reached, tmp_path, ended), 120)
            victim = workers.pop(chosen.randrange(len(workers)))
            victim.kill()
            await victim.wait()
            workers.append(await start(server.url, tmp_path))
        for event_id in ids:
            record = await world.engine.wait(event_id, 300)
            assert record is not None
            assert record.status == "done"
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()
        await world.engine.stop(0)
        server.end()
    lines = [line.split()[:2] for line in (tmp_path / "log").read_text().splitlines()]
    assert CONCURRENCY > KEYS
    for agent in CHAIN:
        for key in range(KEYS):
            _in_order(lines, agent, [ids[number] for number in range(key, EVENTS, KEYS)])


def _reached(folder: Path, ended: int) -> bool:
    log = folder / "log"
    return log.exists() and log.read_text().count("end ") >= ended


def _in_order(lines: list[list[str]], agent: str, ids: list[str]) -> None:
    """One delivery is over, with all its tries, before the next of its key begins."""
    way = "/".join(CHAIN[: CHAIN.index(agent) + 1])
    numbers = {f"{event_id}/{way}": number for number, event_id in enumerate(ids)}
    seen = [numbers[about] for kind, about in lines if kind in {"asked", "end"} and about in numbers]
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(ids)))
