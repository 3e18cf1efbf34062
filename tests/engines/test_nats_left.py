"""What is left to others by a process that dies, or hears no answer, between what it writes and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_world import Gate, World, to, until
from nats_server import nats_url
from nats_wire import Wire
from serving import eventually

from llmling.errors import EngineError
from llmling.events import Event
from llmling.protocols import Again, Done, Policy, Settlement, Work


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    async with Wire(int(nats_url().rpartition(":")[2])) as wire:
        yield wire


async def dies(world: World, wire: Wire) -> None:
    """End a process of which the server hears nothing more."""
    await wire.unplug()
    await until(lambda: world.engine.fault is not None)
    await world.engine.stop(0)


def told(world: World) -> list[str]:
    return [record.id for record in world.settled]


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_the_end_of_what_went_ahead_is_told_by_whoever_is_handed_it_next(tmp_path: Path, wire: Wire) -> None:
    one, other = World("nats", tmp_path, url=wire.url), World("nats", tmp_path)
    ends = {name: asyncio.Event() for name in ("first", "second", "urgent")}
    inside: list[str] = []

    async def wait(work: Work) -> Settlement:
        inside.append(work.event.data)
        await ends[work.event.data].wait()
        return Done("")

    one.answers["a"] = wait
    for world in (one, other):
        await world.engine.open()
    await one.start({"a": Policy(concurrency=1)})
    await one.accept(text="first")
    await until(lambda: inside == ["first"])
    await one.accept(text="second")
    urgent = (await one.accept(text="urgent", priority=1)).event_id
    ends["first"].set()
    # In the place of the second: its own ticket has been handed to nobody.
    await until(lambda: inside == ["first", "urgent"])
    wire.deafen()
    ends["urgent"].set()
    await other.record_when(urgent, lambda record: record.status == "done")
    assert urgent not in told(one)
    await dies(one, wire)
    await other.start({"a": Policy(concurrency=2)})
    await until(lambda: told(other) == [urgent])
    assert not other.started
    await other.engine.stop(0)


async def test_an_end_is_passed_on_when_who_settled_the_event_died_before(tmp_path: Path, wire: Wire) -> None:
    host, settler, next_ = World("nats", tmp_path), World("nats", tmp_path, url=wire.url), World("nats", tmp_path)
    gates = host.answers["a"], settler.answers["a"] = Gate(), Gate()
    for world in (host, settler, next_):
        await world.engine.open()
    await host.start({"a": Policy(concurrency=1)})
    await host.accept()
    await until(lambda: len(gates[0].inside) == 1)
    # No room here: it goes to the other process.
    await settler.start({"a": Policy(concurrency=2)})
    event_id = (await host.accept()).event_id
    await until(lambda: len(gates[1].inside) == 1)
    wire.deafen()
    gates[1].open.set()
    await host.record_when(event_id, lambda record: record.status == "done")
    await dies(settler, wire)
    assert not told(host)
    await next_.start({"a": Policy(concurrency=2)})
    await until(lambda: told(host) == [event_id])
    assert not told(next_)
    for world in (host, next_):
        await world.engine.stop(0)


async def test_an_end_in_a_process_that_does_not_serve_is_told_in_one_that_does(tmp_path: Path) -> None:
    serving, operator = World("nats", tmp_path), World("nats", tmp_path)
    gate = serving.answers["a"] = Gate()
    for world in (serving, operator):
        await world.engine.open()
    await serving.start()
    dropped = (await operator.accept(order_key="x", overlap="skip")).event_id
    await until(lambda: len(gate.inside) == 1)
    skipped = (await operator.accept(order_key="x", overlap="skip")).event_id
    assert (await operator.record(skipped)).outcome == "skipped"
    assert await operator.engine.drop(dropped) == 1
    await operator.engine.stop(0)
    await until(lambda: len(serving.settled) == 2 and serving.engine.loaded == 0)
    assert told(serving) == [skipped, dropped]
    await serving.engine.stop(0)


async def test_the_end_of_an_event_that_is_sent_again_is_told_if_it_was_not(tmp_path: Path, wire: Wire) -> None:
    serving, sender = World("nats", tmp_path), World("nats", tmp_path, url=wire.url)
    for world in (serving, sender):
        await world.engine.open()
    await serving.start()
    event = Event("inbox", "dev.llmling.test", data="hello")
    wire.deafen()
    sending = asyncio.create_task(sender.accept(event=event, dead="nobody takes it"))
    await eventually(lambda: serving.engine.inspect(event.id), "the event to be written")
    assert not told(serving)
    assert not (await serving.accept(event=event, dead="nobody takes it")).new
    assert told(serving) == [event.id]
    wire.mend()
    await sending
    for world in (sender, serving):
        await world.engine.stop(0)
    assert told(serving) == [event.id]


# --- what follows ----------------------------------------------------------------------------------------------------


async def test_a_try_that_nobody_could_queue_is_queued_by_whoever_gets_the_ticket_of_the_one_before(
    tmp_path: Path, wire: Wire
) -> None:
    one, other = World("nats", tmp_path, lease_s=2, url=wire.url), World("nats", tmp_path, lease_s=2)

    async def again(work: Work) -> Settlement:
        return Again("not yet", 0)

    gates = one.answers["a"], other.answers["a"] = Gate(again), Gate()
    for world in (one, other):
        await world.engine.open()
    looked = (await one.accept(dead="nobody takes it")).event_id
    await other.start({"a": Policy(concurrency=1)})
    # It looks at what is there only once, and what comes now is not there yet.
    await until(lambda: told(other) == [looked])
    await other.accept()
    await until(lambda: len(gates[1].inside) == 1)
    await one.start({"a": Policy(concurrency=2)})
    event_id = (await one.accept()).event_id
    await until(lambda: len(gates[0].inside) == 1)
    wire.deafen()
    gates[0].open.set()
    await other.record_when(event_id, lambda record: record.deliveries[0].error == "not yet")
    await dies(one, wire)
    gates[1].open.set()
    assert (await other.finished(event_id)).attempts == 2
    await other.engine.stop(0)


async def test_a_try_is_queued_though_the_answer_to_who_wrote_of_it_was_lost(tmp_path: Path, wire: Wire) -> None:
    world, operator = World("nats", tmp_path, url=wire.url), World("nats", tmp_path)

    async def split(work: Work) -> Settlement:
        return Done("", to(work, "b", "c"))

    async def later(work: Work) -> Settlement:
        return Done("") if work.attempt > 1 else Again("later", 3600)

    # The second try of one begins behind the first of its neighbour: nothing else changes the event meanwhile.
    behind, end = asyncio.Event(), asyncio.Event()

    async def again(work: Work) -> Settlement:
        await (behind, end, end)[work.attempt - 1].wait()
        return Done("") if work.attempt > 2 else Again(f"try {work.attempt}", 0)

    world.answers.update(a=split, b=again, c=later)
    for each in (world, operator):
        await each.engine.open()
    await world.start()
    event_id = (await world.accept()).event_id

    async def reason(text: str) -> None:
        await operator.record_when(event_id, lambda record: text in [each.error for each in record.deliveries])

    await reason("later")
    behind.set()
    await until(lambda: (f"{event_id}/a/b", 2) in world.started)
    wire.deafen()
    end.set()
    await reason("try 2")
    # Another change goes over it, so that the one who wrote it does not find what it wrote.
    assert await operator.engine.retry(event_id) == 1
    with pytest.raises(EngineError, match="did not answer"):
        await world.engine.known("inbox", ["k"])
    wire.mend()
    record = await world.finished(event_id)
    assert [each.status for each in record.deliveries] == ["done"] * 3
    for each in (operator, world):
        await each.engine.stop(0)
