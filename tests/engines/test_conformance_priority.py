"""What engines promise about priority: who goes first, that nobody starves, and who is dropped."""

from __future__ import annotations

import pytest
from engine_world import Gate, World, to, until

from llmling.protocols import Done, EventRecord, Policy, Settlement, Work


@pytest.fixture(params=["sqlite", "memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def started_in_order(world: World, priorities: list[int]) -> list[int]:
    """Return the places in which deliveries of these priorities start, when all of them wait for the only place."""
    ids = [
        (await world.accept(text=str(place), priority=priority)).event_id for place, priority in enumerate(priorities)
    ]
    gate = world.answers["a"] = Gate()
    gate.open.set()
    await world.start({"a": Policy(concurrency=1)})
    await until(lambda: len(world.settled) == len(priorities))
    places = {f"{event_id}/a": place for place, event_id in enumerate(ids)}
    return [places[delivery] for delivery, _ in world.started]


async def test_a_higher_priority_goes_first(world: World) -> None:
    assert await started_in_order(world, [-1, 0, 1, 0, 1, -1]) == [2, 4, 1, 3, 0, 5]


async def test_nobody_starves(world: World) -> None:
    order = await started_in_order(world, [-1, -1, 0] + [1] * 200)
    assert order[0] == 3
    # Of any eight in a row, at least one is the oldest of all that wait.
    for number, place in enumerate((0, 1, 2), start=1):
        assert order.index(place) < 8 * number
    high = [place for place in order if place > 2]
    assert high == sorted(high)


async def test_a_newcomer_overtakes_what_is_held_in_memory_already(world: World) -> None:
    gate = Gate()

    async def answer(work: Work) -> Settlement:
        return await gate(work) if not gate.open.is_set() else Done("")

    world.answers["a"] = answer
    await world.start({"a": Policy(concurrency=1)})
    for _ in range(300):
        await world.accept()
    await until(lambda: len(gate.inside) == 1)
    high = await world.accept(priority=1)
    gate.open.set()
    await world.finished(high.event_id)
    place = [delivery for delivery, _ in world.started].index(f"{high.event_id}/a")
    assert place <= 2
    await until(lambda: len(world.settled) == 301)


async def test_the_priority_goes_with_the_event(world: World) -> None:
    gate = Gate()

    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b"))

    world.answers.update(a=forward, b=gate)
    await world.start({"a": Policy(), "b": Policy(concurrency=1)})
    await world.accept()
    await until(lambda: len(gate.inside) == 1)
    low = await world.accept(priority=-1)
    high = await world.accept(priority=1)

    def forwarded(record: EventRecord) -> bool:
        return len(record.deliveries) == 2

    for receipt in (low, high):
        await world.record_when(receipt.event_id, forwarded)
    gate.open.set()
    await until(lambda: len(world.settled) == 3)
    order = [delivery for delivery, _ in world.started if delivery.endswith("/b")]
    assert order[1:] == [f"{high.event_id}/a/b", f"{low.event_id}/a/b"]


async def test_the_lowest_priority_is_dropped_for_a_new_one(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=1, inbox_size=3, overflow="drop_oldest")})
    await world.accept()
    await until(lambda: len(gate.inside) == 1)
    high, low, keyed = [(await world.accept(priority=priority)).event_id for priority in (1, -1, 0)]
    await world.accept(order_key="x")
    assert (await world.finished(low)).status == "dead"
    await world.accept()
    assert (await world.finished(keyed)).status == "dead"
    gate.open.set()
    assert (await world.finished(high)).status == "done"
    await until(lambda: len(world.settled) == 6)
