"""What engines say about why an event waits."""

from __future__ import annotations

import pytest
from engine_world import Gate, ManualClock, World, until

from llmling.protocols import Again, Policy, Settlement, Waiting, Work
from llmling.records import STARTING


@pytest.fixture(params=["sqlite", "memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def waits_for(world: World, event_id: str) -> str | None:
    """Return why an event waits, as the event, its delivery and the list of events say."""
    record = await world.record(event_id)
    listed = {each.id: each.waits_for async for each in world.engine.runs(limit=None)}
    assert record.waits_for == record.deliveries[0].waits_for == listed[event_id] == record.to_dict().get("waits_for")
    return record.waits_for


async def test_an_event_says_what_it_waits_for(world: World) -> None:
    gate = Gate()

    async def asking(work: Work) -> Settlement:
        return Waiting("asks")

    world.answers.update(a=gate, b=asking, c=gate)
    await world.start({"a": Policy(concurrency=2), "b": Policy(), "c": Policy()}, concurrency=3)
    first = (await world.accept(order_key="x")).event_id
    second = (await world.accept(order_key="x")).event_id
    third = (await world.accept(order_key="x")).event_id
    await world.record_when(first, lambda record: record.status == "running")
    assert await waits_for(world, first) is None
    assert await waits_for(world, second) == f"order key 'x' behind {first}"
    assert await waits_for(world, third) == f"order key 'x' behind {first}"
    await world.accept()
    await until(lambda: len(gate.inside) == 2)
    beside = (await world.accept()).event_id
    assert await waits_for(world, beside) == "agent's concurrency 2 in use"
    asks = (await world.accept("b")).event_id
    await world.record_when(asks, lambda record: record.status == "waiting")
    assert await waits_for(world, asks) == "approval or answer of a person"
    await world.accept("c")
    await until(lambda: len(gate.inside) == 3)
    pool = (await world.accept("c")).event_id
    assert await waits_for(world, pool) == "the pool's concurrency 3 in use"
    gate.open.set()
    for event_id in (first, second, third, beside, pool):
        await world.finished(event_id)
        assert await waits_for(world, event_id) is None


async def test_a_next_try_says_when(timed: World, clock: ManualClock) -> None:
    async def fail(work: Work) -> Settlement:
        return Again("busy", 12)

    timed.answers["a"] = fail
    await timed.start()
    event_id = (await timed.accept()).event_id
    await timed.record_when(event_id, lambda record: record.deliveries[0].error == "busy")
    assert await waits_for(timed, event_id) == "next try in 12 s"
    clock.advance(7.5)
    assert await waits_for(timed, event_id) == "next try in 5 s"


async def test_without_a_process_that_serves_it_waits_for_one(world: World) -> None:
    event_id = (await world.accept()).event_id
    assert await waits_for(world, event_id) == "a process that serves: start `llmling serve`"


async def test_what_still_starts_is_said_of_the_agents_that_wait_for_it(world: World) -> None:
    gate = Gate()
    world.answers.update(a=gate, b=gate)
    await world.start()
    space, key = STARTING
    await world.engine.store.put(space, {key: {"a": ["library", "mail"]}})
    waits, runs = (await world.accept()).event_id, (await world.accept("b")).event_id
    await until(lambda: len(gate.inside) == 2)
    assert await waits_for(world, waits) == "agent is starting: MCP server library, mail"
    assert await waits_for(world, runs) is None
    gate.open.set()
    await world.finished(waits)
