"""What engines that keep order promise about keys, overlap and priority; NATS refuses them in a manifest."""

from __future__ import annotations

import asyncio

import pytest
from engine_world import Gate, ManualClock, World, to, until

from llmling.asks import Ask, Decision, decision_key
from llmling.errors import Full
from llmling.events import Event
from llmling.protocols import Again, Dead, Done, EventRecord, Overlap, Policy, Settlement, Waiting, Work
from llmling.records import STARTING


@pytest.fixture(params=["sqlite", "memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# --- order keys ------------------------------------------------------------------------------------------------------


class Watcher:
    """An agent that counts how many of a key run at once, and knows in what order they came."""

    def __init__(self) -> None:
        self.order: dict[str | None, list[str]] = {}
        self.inside: dict[str | None, int] = {}
        self.most: dict[str | None, int] = {}

    async def __call__(self, work: Work) -> Settlement:
        key = work.delivery.order_key
        self.order.setdefault(key, []).append(work.event.data)
        self.inside[key] = self.inside.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self.inside[key])
        # A few turns of the loop, so that others could start.
        for _ in range(5):
            await asyncio.sleep(0)
        self.inside[key] -= 1
        return Done("")


async def test_one_after_the_other_by_key_and_others_beside_them(world: World) -> None:
    watcher = world.answers["a"] = Watcher()
    await world.start({"a": Policy(concurrency=8)})
    for number in range(60):
        await world.accept(text=str(number), order_key=["x", "y", None][number % 3])
    await until(lambda: len(world.settled) == 60)
    assert watcher.order["x"] == [str(number) for number in range(0, 60, 3)]
    assert watcher.order["y"] == [str(number) for number in range(1, 60, 3)]
    assert (watcher.most["x"], watcher.most["y"]) == (1, 1)


async def test_what_waits_for_its_key_takes_no_place_of_others(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=2)})
    for _ in range(200):
        await world.accept(order_key="x")
    other = await world.accept()
    await until(lambda: len(gate.inside) == 2)
    assert {work.delivery.order_key for work in gate.inside} == {"x", None}
    gate.open.set()
    await world.finished(other.event_id)
    await until(lambda: len(world.settled) == 201)


async def test_the_order_outlives_what_is_held_in_memory(world: World) -> None:
    # Accepted before anybody serves: all of it is found on the disk.
    watcher = world.answers["a"] = Watcher()
    for number in range(300):
        await world.accept(text=str(number), order_key=str(number % 3))
    await world.start({"a": Policy(concurrency=8)})
    await until(lambda: len(world.settled) == 300)
    for key in range(3):
        assert watcher.order[str(key)] == [str(number) for number in range(key, 300, 3)]
        assert watcher.most[str(key)] == 1


async def test_a_key_is_one_line_over_all_triggers_and_one_for_each_agent(world: World) -> None:
    gate = Gate()
    world.answers.update(a=gate, b=gate)
    await world.start()
    await world.accept(order_key="x", trigger="one")
    await world.accept(order_key="x", trigger="two")
    await world.accept("b", order_key="x", trigger="one")
    await until(lambda: len(gate.inside) == 2)
    assert sorted(work.delivery.agent for work in gate.inside) == ["a", "b"]
    gate.open.set()
    await until(lambda: len(world.settled) == 3)
    assert gate.most == 2


async def test_the_next_try_keeps_the_turn(timed: World, clock: ManualClock) -> None:
    async def flaky(work: Work) -> Settlement:
        return Again("busy", 10) if work.event.data == "first" and work.attempt == 1 else Done("")

    timed.answers["a"] = flaky
    await timed.start()
    first = await timed.accept(text="first", order_key="x")
    second = await timed.accept(text="second", order_key="x")
    other = await timed.accept(text="other")
    await timed.finished(other.event_id)
    await timed.record_when(first.event_id, lambda record: record.deliveries[0].error == "busy")
    assert (await timed.record(second.event_id)).deliveries[0].attempts == 0
    clock.advance(10)
    await timed.finished(second.event_id)
    started = [delivery for delivery, _ in timed.started if other.event_id not in delivery]
    assert started == [f"{first.event_id}/a", f"{first.event_id}/a", f"{second.event_id}/a"]


async def test_a_dead_one_frees_the_turn_and_joins_the_line_when_it_is_retried(world: World) -> None:
    gate = Gate()

    async def answer(work: Work) -> Settlement:
        if work.event.data == "bad" and not gate.open.is_set():
            return Dead("no")
        return await gate(work)

    world.answers["a"] = answer
    await world.start()
    bad = await world.accept(text="bad", order_key="x")
    good = await world.accept(text="good", order_key="x")
    last = await world.accept(text="last", order_key="x")
    assert (await world.finished(bad.event_id)).status == "dead"
    await until(lambda: len(gate.inside) == 1)
    assert await world.engine.retry(bad.event_id) == 1
    record = await world.record(bad.event_id)
    assert (record.status, record.deliveries[0].attempts) == ("pending", 0)
    gate.open.set()
    await until(lambda: len(world.settled) == 4)
    # It came before the last one, and has its place before it again.
    order = [delivery.partition("/")[0] for delivery, _ in world.started]
    assert order == [bad.event_id, good.event_id, bad.event_id, last.event_id]
    assert gate.most == 1


async def test_what_waits_for_a_person_keeps_its_place(world: World) -> None:
    ask = Ask("0", "a", "Shall we?")

    async def asking(work: Work) -> Settlement:
        if work.event.data == "asks" and work.journal.recorded(decision_key(ask.key)) is None:
            await work.journal.record(ask.step(), committed=True)
            return Waiting("asks")
        return Done("")

    world.answers["a"] = asking
    await world.start()
    first = await world.accept(text="asks", order_key="x")
    second = await world.accept(text="next", order_key="x")
    await world.record_when(first.event_id, lambda record: record.status == "waiting")
    await world.finished((await world.accept(order_key="y")).event_id)
    assert (await world.record(second.event_id)).deliveries[0].attempts == 0
    assert await world.engine.decide(first.event_id, Decision(answer="yes")) == 1
    await world.finished(second.event_id)
    assert (await world.record(first.event_id)).status == "done"


async def test_dropping_what_waits_frees_the_turn(world: World) -> None:
    async def asking(work: Work) -> Settlement:
        return Waiting("asks") if work.event.data == "asks" else Done("")

    world.answers["a"] = asking
    await world.start()
    first = await world.accept(text="asks", order_key="x")
    second = await world.accept(order_key="x")
    await world.record_when(first.event_id, lambda record: record.status == "waiting")
    assert await world.engine.drop(first.event_id) == 1
    assert (await world.finished(second.event_id)).status == "done"


async def test_dropping_one_that_waits_for_its_turn_leaves_the_turn_alone(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start()
    ids = [(await world.accept(order_key="x")).event_id for _ in range(3)]
    await until(lambda: len(gate.inside) == 1)
    assert await world.engine.drop(ids[1]) == 1
    gate.open.set()
    await world.finished(ids[2])
    assert [delivery for delivery, _ in world.started] == [f"{ids[0]}/a", f"{ids[2]}/a"]
    assert gate.most == 1


async def test_the_successors_of_a_key_are_in_line_too(world: World) -> None:
    watcher = Watcher()

    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b"))

    world.answers.update(a=forward, b=watcher)
    await world.start({"a": Policy(concurrency=8), "b": Policy(concurrency=8)})
    ids = [(await world.accept(text=str(number), order_key=str(number % 2))).event_id for number in range(20)]
    for event_id in ids:
        record = await world.finished(event_id)
        assert (record.status, record.outcome) == ("done", "ran")
    assert watcher.order == {str(key): [str(number) for number in range(key, 20, 2)] for key in range(2)}
    assert set(watcher.most.values()) == {1}


async def test_a_loop_back_to_an_agent_does_not_wait_for_itself(world: World) -> None:
    async def back(work: Work) -> Settlement:
        return Done("on", to(work, "a") if work.delivery.hops < 3 else ())

    world.answers["a"] = back
    await world.start({"a": Policy(concurrency=4)})
    ids = [(await world.accept(order_key="x")).event_id for _ in range(5)]
    for event_id in ids:
        assert (await world.finished(event_id)).status == "done"


async def test_an_odd_key_is_a_key(world: World) -> None:
    watcher = world.answers["a"] = Watcher()
    await world.start()
    for number in range(4):
        await world.accept(text=str(number), order_key="caf\udce9")
    await until(lambda: len(world.settled) == 4)
    assert watcher.order == {"caf\udce9": ["0", "1", "2", "3"]}
    assert watcher.most == {"caf\udce9": 1}


# --- overlap ---------------------------------------------------------------------------------------------------------


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


# --- priority --------------------------------------------------------------------------------------------------------


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


# --- why an event waits ----------------------------------------------------------------------------------------------


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
