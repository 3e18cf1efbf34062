"""Several processes on one set of events: who runs what, who hears of it, and what happens when one is cut off."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from engine_world import AGENTS, Gate, World, to, until
from nats_server import nats_url, need_nats
from serving import llmling

from llmling.engines.jetstream.engine import NatsEngine
from llmling.errors import EngineError
from llmling.events import Event
from llmling.protocols import Again, Done, EventRecord, Policy, Settlement, Step, Waiting, Work


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[tuple[World, World]]:
    pair = World("nats", tmp_path), World("nats", tmp_path)
    for world in pair:
        await world.engine.open()
    yield pair
    for world in pair:
        await world.engine.stop(0)


async def test_processes_share_the_work_and_the_limit_of_an_agent(worlds: tuple[World, World]) -> None:
    one, other = worlds
    running = most = 0
    ran: list[str] = []

    async def count(work: Work) -> Settlement:
        nonlocal running, most
        running += 1
        most = max(most, running)
        ran.append(work.delivery.id)
        await asyncio.sleep(0.01)
        running -= 1
        return Done("", to(work, "b") if work.delivery.agent == "a" else ())

    for world in worlds:
        world.answers.update(a=count, b=count)
        await world.start({"a": Policy(concurrency=3), "b": Policy(concurrency=2)})
    accepted = [await (one, other)[number % 2].accept() for number in range(40)]
    for receipt in accepted:
        assert (await one.finished(receipt.event_id)).status == "done"
    assert most <= 3 + 2
    assert len(ran) == len(set(ran)) == 80
    assert one.started
    assert other.started
    await until(lambda: len(one.settled) + len(other.settled) == 40)
    # Each end is told in the process that accepted the event, wherever it ran.
    assert {record.id for record in one.settled} == {receipt.event_id for receipt in accepted[::2]}


async def test_a_key_is_known_in_every_process(worlds: tuple[World, World]) -> None:
    receipts = await asyncio.gather(*(world.accept(key="tick") for world in worlds for _ in range(10)))
    assert [receipt.new for receipt in receipts].count(True) == 1
    assert len({receipt.event_id for receipt in receipts}) == 1


async def test_another_process_stops_and_retries_what_runs_here(worlds: tuple[World, World]) -> None:
    one, other = worlds
    gate = one.answers["a"] = Gate()
    await one.start()
    receipt = await one.accept()
    await until(lambda: len(gate.inside) == 1)
    assert await other.engine.drop(receipt.event_id) == 1
    await until(lambda: not gate.inside)
    await until(lambda: [record.status for record in one.settled] == ["dead"])
    gate.open.set()
    assert await other.engine.retry(receipt.event_id) == 1
    assert (await other.finished(receipt.event_id)).status == "done"
    await until(lambda: [record.status for record in one.settled] == ["dead", "done"])


async def test_every_process_is_listed_and_an_event_says_which_one_runs_it(tmp_path: Path) -> None:
    worlds = World("nats", tmp_path), World("nats", tmp_path)
    one, other = worlds
    gate = one.answers["a"] = other.answers["a"] = Gate()
    for world in worlds:
        await world.engine.open()
        await world.start()
    await until(lambda: all(len(world.engine.hosts) == 2 for world in worlds))
    assert {(host.pid, host.state) for host in one.engine.hosts} == {(os.getpid(), "serving")}
    receipts = [await world.accept() for world in worlds]
    await until(lambda: len(gate.inside) == 2)
    records = [await one.record(receipt.event_id) for receipt in receipts]
    listed = [record async for record in other.engine.runs()]
    here = f"{socket.gethostname()}, pid {os.getpid()}"
    assert {record.host for record in [*records, *listed]} == {here}
    assert records[0].deliveries[0].host == records[0].to_dict()["host"] == here
    # Each stops what the other one may run.
    for world, receipt in zip(worlds, reversed(receipts), strict=True):
        assert await world.engine.drop(receipt.event_id) == 1
    await until(lambda: not gate.inside)
    gate.open.set()
    for world, receipt in zip(worlds, receipts, strict=True):
        assert await world.engine.retry(receipt.event_id) == 1
        assert (await world.finished(receipt.event_id)).status == "done"
    await other.engine.stop(0)
    await until(lambda: len(one.engine.hosts) == 1)
    await one.engine.stop(0)


async def test_counts_follow_what_other_processes_do(worlds: tuple[World, World]) -> None:
    one, other = worlds
    await one.start()
    ids = [(await one.accept()).event_id for _ in range(3)]
    for event_id in ids:
        await one.finished(event_id)
    assert await other.engine.counts() == {"done": 3}
    await other.accept(dead="no")
    assert await other.engine.counts() == {"done": 3, "dead": 1}
    # Forgotten, and taken away, between two looks.
    assert await one.engine.drop(ids[0]) == 1
    assert await other.engine.counts() == {"done": 2, "dead": 1}


async def test_the_newest_are_found_behind_much_else(worlds: tuple[World, World]) -> None:
    one, _ = worlds
    first = await one.accept(trigger="rare")
    await one.engine.store.put("s", {str(number): number for number in range(2100)})
    last = await one.accept()
    assert [record.id async for record in one.engine.runs(limit=1)] == [last.event_id]
    assert [record.id async for record in one.engine.runs(limit=2)] == [last.event_id, first.event_id]
    assert [record.id async for record in one.engine.runs(trigger="rare", limit=1)] == [first.event_id]


async def test_the_command_line_shows_where_an_event_runs_and_stops_it(tmp_path: Path) -> None:
    world = World("nats", tmp_path)
    engine = world.engine
    assert isinstance(engine, NatsEngine)
    gate = world.answers["a"] = Gate()
    await engine.open()
    await world.start()
    await until(lambda: len(engine.hosts) == 1)
    manifest = f"engine: {{type: nats, servers: [{nats_url()}], name: {world.name}}}\nagents: {{a: {{model: demo}}}}\n"
    (tmp_path / "agents.yml").write_text(manifest)
    event_id = (await world.accept()).event_id
    await until(lambda: len(gate.inside) == 1)
    where = f"at {socket.gethostname()}, pid {os.getpid()}"
    code, out, err = await llmling(tmp_path, "events", "list", "agents.yml")
    assert (code, f"runs {where}" in out) == (0, True), out + err
    code, out, err = await llmling(tmp_path, "events", "drop", "agents.yml", event_id)
    assert code == 0, out + err
    await until(lambda: not gate.inside)
    assert (await world.record(event_id)).status == "dead"
    await engine.stop(0)


async def test_what_a_process_leaves_is_told_and_run_by_the_next(tmp_path: Path) -> None:
    first = World("nats", tmp_path)
    first.answers["a"] = Gate()
    await first.engine.open()
    await first.start()
    receipt = await first.accept()
    await until(lambda: len(first.started) == 1)
    assert await first.engine.stop(0) == 1
    second = World("nats", tmp_path)
    await second.engine.open()
    assert isinstance(second.engine, NatsEngine)
    assert not second.engine.serving
    await second.start()
    record = await second.finished(receipt.event_id)
    assert (record.status, record.attempts) == ("done", 1)
    await until(lambda: [each.id for each in second.settled] == [receipt.event_id])
    third = World("nats", tmp_path)
    await third.engine.open()
    assert isinstance(third.engine, NatsEngine)
    assert third.engine.serving
    await third.engine.stop(0)
    await second.engine.stop(0)


async def test_a_back_off_is_kept_when_its_process_ends(tmp_path: Path) -> None:
    async def later(work: Work) -> Settlement:
        return Again("busy", 0.3)

    first = World("nats", tmp_path)
    first.answers["a"] = later
    await first.engine.open()
    await first.start()
    receipt = await first.accept()
    await first.record_when(receipt.event_id, lambda record: record.deliveries[0].error == "busy")
    await first.engine.stop(0)
    second = World("nats", tmp_path)
    await second.engine.open()
    await second.start()
    assert (await second.finished(receipt.event_id)).attempts == 2
    await second.engine.stop(0)


async def test_what_is_larger_than_a_message_is_kept(worlds: tuple[World, World]) -> None:
    one, other = worlds
    large = "x" * 1_500_000

    async def echo(work: Work) -> Settlement:
        await work.journal.record(Step("1", "reply", {"text": large}), committed=True)
        return Done(large)

    one.answers["a"] = echo
    await one.start()
    receipt = await one.accept(event=Event("inbox", "t", data=large))
    await one.finished(receipt.event_id)
    record = await other.record(receipt.event_id)
    assert record.event.data == large
    assert record.content == large
    assert record.deliveries[0].steps == (Step("1", "reply", {"text": large}),)
    await other.engine.store.put("s", {"k": large})
    assert await one.engine.store.get("s", "k") == large
    assert await other.engine.drop(receipt.event_id) == 1


async def test_a_large_event_is_read_whole_while_it_changes(worlds: tuple[World, World]) -> None:
    one, other = worlds

    async def spread(work: Work) -> Settlement:
        delivery = work.delivery
        return Done("", tuple(replace(delivery, id=f"{delivery.id}/{part}", agent="b") for part in range(10)))

    one.answers["a"] = spread
    await one.start({"a": Policy(), "b": Policy(concurrency=5)})
    receipt = await one.accept(event=Event("inbox", "t", data="x" * 600_000))
    looks = 0
    while (record := await other.record(receipt.event_id)).status != "done":
        looks += 1
    assert looks > 0
    assert [delivery.status for delivery in record.deliveries] == ["done"] * 11


async def test_without_a_server_the_engine_says_what_to_do(tmp_path: Path) -> None:
    need_nats()
    world = World("nats", tmp_path, url="nats://127.0.0.1:9")
    with pytest.raises(EngineError, match=r"no NATS server answers at nats://127\.0\.0\.1:9 .*nats-server -js"):
        await world.engine.open()


async def test_events_of_other_names_are_not_seen(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    one, other = World("nats", tmp_path), World("nats", tmp_path / "x", url=nats_url())
    for world in (one, other):
        await world.engine.open()
    receipt = await one.accept()
    assert await other.engine.inspect(receipt.event_id) is None
    assert await other.engine.counts() == {}
    for world in (one, other):
        await world.engine.stop(0)


async def test_a_person_decides_in_one_process_what_another_one_asks(worlds: tuple[World, World]) -> None:
    one, other = worlds
    heard: list[EventRecord] = []

    async def ask(work: Work) -> Settlement:
        return Waiting("what now?") if work.attempt == 1 and not heard else Done("well")

    one.answers["a"] = ask
    await one.start(AGENTS, waiting=heard.append)
    receipt = await other.accept()
    await until(lambda: len(heard) == 1)
    assert await other.engine.retry(receipt.event_id) == 1
    assert (await other.finished(receipt.event_id)).content == "well"
