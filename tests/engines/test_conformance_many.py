"""What comes, ends and goes on at once is written together; each event is kept as if it had come alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from engine_world import World, to, until

from llmling.errors import Full
from llmling.protocols import Again, Delivery, Done, Policy, Settlement, Step, Work

MANY = 100


async def test_of_many_at_once_each_is_taken_and_a_key_once(world: World) -> None:
    keys = [None if number % 4 else f"k{number % 8}" for number in range(MANY)]
    receipts = await asyncio.gather(*[world.accept(text=f"{n}", key=key) for n, key in enumerate(keys)])
    keyed = {key: {r.event_id for r, k in zip(receipts, keys, strict=True) if k == key} for key in ("k0", "k4")}
    assert [len(ids) for ids in keyed.values()] == [1, 1]
    assert sum(receipt.new for receipt in receipts) == sum(key is None for key in keys) + len(keyed)
    await world.start()
    taken = {receipt.event_id for receipt in receipts}
    await until(lambda: len(world.settled) == len(taken))
    assert {record.id for record in world.settled} == taken
    assert len(world.started) == len(taken)


# Only where one process has the file does an inbox take exactly what it has room for.
@pytest.mark.parametrize("kind", ["sqlite", "memory"])
async def test_of_many_at_once_an_inbox_takes_what_has_room(world: World) -> None:
    gate = asyncio.Event()

    async def hold(work: Work) -> Settlement:
        await gate.wait()
        return Done("fine")

    world.answers["a"] = hold
    await world.start({"a": Policy(concurrency=1, inbox_size=20), "b": Policy(inbox_size=MANY)})
    held = await world.accept(agent="a")
    await until(lambda: len(world.started) == 1)
    agents = ["a", "b"] * (MANY // 2)
    found = await asyncio.gather(*[world.accept(agent=agent) for agent in agents], return_exceptions=True)
    full = [agent for agent, each in zip(agents, found, strict=True) if isinstance(each, Full)]
    assert full == ["a"] * (MANY // 2 - 20)
    gate.set()
    await until(lambda: len(world.settled) == 1 + MANY - len(full))
    assert held.event_id in {record.id for record in world.settled}


async def test_many_that_fan_out_and_end_at_once_settle_once_each(world: World) -> None:
    async def last(work: Work) -> Settlement:
        return Done("end", cost_usd=0.5)

    def twice(work: Work) -> tuple[Delivery, ...]:
        first, second, third = to(work, "b", "c", "c")
        return first, second, Delivery(f"{third.id}.2", third.event_id, "c", third.message, third.hops)

    async def spread(work: Work) -> Settlement:
        work.journal.note(Step("looked", "sent", {"at": work.delivery.id}))
        return Done("on", twice(work), cost_usd=0.25)

    world.answers |= {"a": spread, "b": last, "c": last}
    await world.start({name: Policy(concurrency=50, inbox_size=1000) for name in "abc"}, concurrency=150)
    receipts = await asyncio.gather(*[world.accept() for _ in range(MANY)])
    await until(lambda: len(world.settled) >= MANY)
    assert sorted(record.id for record in world.settled) == sorted(receipt.event_id for receipt in receipts)
    assert {(r.status, r.outcome, r.cost_usd) for r in world.settled} == {("done", "ran", 1.75)}
    record = await world.finished(receipts[0].event_id)
    assert [(d.agent, d.status, d.attempts) for d in record.deliveries] == [
        ("a", "done", 1), ("b", "done", 1), ("c", "done", 1), ("c", "done", 1)
    ]  # fmt: skip
    assert [step.key for step in record.deliveries[0].steps] == ["looked"]
    assert len(world.started) == 4 * MANY


async def test_what_is_told_of_many_that_end_at_once_is_what_is_written(world: World) -> None:
    async def twice(work: Work) -> Settlement:
        return Again("later", 0, cost_usd=0.25) if work.attempt == 1 else Done("end", cost_usd=0.5)

    world.answers["a"] = twice
    await world.start({"a": Policy(concurrency=MANY, inbox_size=MANY)})
    await asyncio.gather(*[world.accept(text=f"{number}", key=f"{number}") for number in range(MANY)])
    await until(lambda: len(world.settled) == MANY)
    assert {(told.attempts, told.cost_usd) for told in world.settled} == {(2, 0.75)}
    for told in world.settled[:: MANY // 10]:
        assert replace(await world.record(told.id), deliveries=()) == told


async def test_of_many_at_once_none_causes_more_messages_than_it_may(world: World) -> None:
    async def forth(work: Work) -> Settlement:
        return Done("on", to(work, "b" if work.delivery.agent == "a" else "a"))

    world.answers |= {"a": forth, "b": forth}
    await world.start({name: Policy(concurrency=50, inbox_size=1000) for name in "ab"}, max_messages=4)
    await asyncio.gather(*[world.accept() for _ in range(20)])
    await until(lambda: len(world.settled) == 20)
    assert {record.status for record in world.settled} == {"dead"}
    assert all("limits.max_messages_per_event (4)" in (record.error or "") for record in world.settled)
    assert len(world.started) == 80
