"""What engines promise about deliveries of one order key: one after the other, in the order in which they came."""

from __future__ import annotations

import asyncio

import pytest
from engine_world import Gate, ManualClock, World, to, until

from llmling.asks import Ask, Decision, decision_key
from llmling.protocols import Again, Dead, Done, Policy, Settlement, Waiting, Work


@pytest.fixture(params=["sqlite", "memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


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
