"""What engines promise about events of a trigger and key that come while one is open; NATS as well."""

from __future__ import annotations

import pytest
from engine_world import Gate, ManualClock, World, to, until

from llmling.errors import Full
from llmling.events import Event
from llmling.protocols import Again, Dead, Done, Overlap, Policy, Settlement, Work


@pytest.fixture(params=["sqlite", "memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def outcomes(world: World, *event_ids: str) -> list[str | None]:
    records = [await world.record(event_id) for event_id in event_ids]
    return [record.outcome or record.status for record in records]


async def test_an_event_is_skipped_while_one_of_its_trigger_and_key_is_open(world: World) -> None:
    gate = world.answers["b"] = Gate()

    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b"))

    world.answers["a"] = forward
    await world.start()
    first = await world.accept(order_key="x", overlap="skip")
    # All that follows from an event is a part of it.
    await until(lambda: len(gate.inside) == 1)
    second = await world.accept(order_key="x", overlap="skip", key="k")
    assert (second.new, second.status) == (True, "done")
    other_key = await world.accept(order_key="y", overlap="skip")
    other_trigger = await world.accept(order_key="x", overlap="skip", trigger="other")
    without = await world.accept(overlap="skip")
    gate.open.set()
    for receipt in (first, other_key, other_trigger, without):
        assert (await world.finished(receipt.event_id)).outcome == "ran"
    record = await world.finished(second.event_id)
    assert (record.status, record.outcome, record.deliveries) == ("done", "skipped", ())
    # What was skipped is known by its key, and is heard of.
    assert (await world.accept(order_key="x", overlap="skip", key="k")).event_id == second.event_id
    await until(lambda: second.event_id in {record.id for record in world.settled})
    later = await world.accept(order_key="x", overlap="skip")
    assert (await world.finished(later.event_id)).outcome == "ran"


async def test_a_dead_event_skips_nobody_until_it_is_retried(world: World) -> None:
    gate = Gate()

    async def answer(work: Work) -> Settlement:
        return await gate(work) if world.started.count((work.delivery.id, 1)) > 1 else Dead("no")

    world.answers["a"] = answer
    await world.start()
    first = await world.accept(overlap="skip")
    await world.finished(first.event_id)
    second = await world.accept(overlap="skip")
    assert (await world.finished(second.event_id)).status == "dead"
    await world.engine.retry(first.event_id)
    await until(lambda: len(gate.inside) == 1)
    third = await world.accept(overlap="skip")
    assert await outcomes(world, third.event_id) == ["skipped"]
    gate.open.set()
    await world.finished(first.event_id)


async def test_the_same_event_again_does_not_skip_itself(world: World) -> None:
    for overlap in ("skip", "coalesce"):
        event = Event(overlap, "t")
        first = await world.accept(event=event, overlap=overlap, trigger=overlap)
        again = await world.accept(event=event, overlap=overlap, trigger=overlap)
        assert (first.new, again.new, again.status) == (True, False, "pending")
        assert await outcomes(world, event.id) == ["pending"]


async def test_of_those_that_wait_only_the_newest_is_run(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start()
    ids = [(await world.accept(order_key="x", overlap="coalesce")).event_id]
    await until(lambda: len(gate.inside) == 1)
    ids += [(await world.accept(order_key="x", overlap="coalesce")).event_id for _ in range(4)]
    other = await world.accept(order_key="y", overlap="coalesce")
    assert await outcomes(world, *ids) == ["running", "coalesced", "coalesced", "coalesced", "pending"]
    await until(lambda: len(world.settled) == 3)
    gate.open.set()
    await world.finished(ids[-1])
    await world.finished(other.event_id)
    started = {delivery for delivery, _ in world.started}
    assert started == {f"{event_id}/a" for event_id in (ids[0], ids[-1], other.event_id)}
    record = await world.record(ids[1])
    assert (record.status, record.outcome, record.error, record.content) == ("done", "coalesced", None, None)
    assert [(delivery.status, delivery.error) for delivery in record.deliveries] == [
        ("done", f"event {ids[2]} took its place (overlap: coalesce)")
    ]
    assert await world.engine.retry(ids[1]) == 0


async def test_a_next_try_is_no_place_to_take(timed: World, clock: ManualClock) -> None:
    async def flaky(work: Work) -> Settlement:
        return Again("busy", 10) if work.attempt == 1 else Done("")

    timed.answers["a"] = flaky
    await timed.start()
    first = await timed.accept(order_key="x", overlap="coalesce")
    await timed.record_when(first.event_id, lambda record: record.deliveries[0].error == "busy")
    second = await timed.accept(order_key="x", overlap="coalesce")
    third = await timed.accept(order_key="x", overlap="coalesce")
    assert await outcomes(timed, first.event_id, second.event_id) == ["pending", "coalesced"]
    clock.advance(10)
    await timed.finished(first.event_id)
    await timed.record_when(third.event_id, lambda record: record.deliveries[0].error == "busy")
    clock.advance(10)
    await timed.finished(third.event_id)


async def test_neither_needs_room_in_a_full_inbox(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=1, inbox_size=1)})
    running = await world.accept(order_key="x", overlap="coalesce")
    await until(lambda: len(gate.inside) == 1)
    waiting = await world.accept(order_key="x", overlap="coalesce")
    newer = await world.accept(order_key="x", overlap="coalesce")
    with pytest.raises(Full):
        await world.accept(order_key="y", overlap="coalesce")
    assert await outcomes(world, running.event_id, waiting.event_id, newer.event_id) == [
        "running",
        "coalesced",
        "pending",
    ]
    gate.open.set()
    await world.finished(newer.event_id)


@pytest.mark.parametrize("overlap", ["queue", "parallel"])
async def test_the_others_all_run(world: World, overlap: Overlap) -> None:
    gate = world.answers["a"] = Gate()
    await world.start()
    ids = [(await world.accept(overlap=overlap)).event_id for _ in range(4)]
    await until(lambda: len(gate.inside) == 4)
    gate.open.set()
    for event_id in ids:
        assert (await world.finished(event_id)).outcome == "ran"
