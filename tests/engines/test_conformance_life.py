"""What every engine promises beside running events: lists, decisions, order, limits, the store, the end."""

from __future__ import annotations

import asyncio

import pytest
from engine_world import AGENTS, Gate, ManualClock, World, to, until

from llmling.errors import EngineError, Full
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Again, Dead, Delivery, Done, EventRecord, Policy, Settlement, Step, Waiting, Work

# --- people decide ---------------------------------------------------------------------------------------------------


async def test_what_waits_is_not_handed_out_until_it_is_retried(world: World) -> None:
    calls: list[set[str]] = []

    async def careful(work: Work) -> Settlement:
        keys = ("1:call", "1:result", "2:call")
        calls.append({key for key in keys if work.journal.recorded(key)})
        if len(calls) == 1:
            await work.journal.record(Step("1:call", "call", {}))
            await work.journal.record(Step("1:result", "result", {}))
            await work.journal.record(Step("2:call", "call", {}))
            return Waiting("was `send` done?")
        return Done("")

    world.answers["a"] = careful
    await world.start()
    receipt = await world.accept()
    record = await world.record_when(receipt.event_id, lambda record: record.status == "waiting")
    assert (record.error, record.finished, world.settled) == ("was `send` done?", None, [])
    other = await world.accept()
    await world.finished(other.event_id)
    assert len([start for start in world.started if start[0].startswith(receipt.event_id)]) == 1
    assert await world.engine.retry(receipt.event_id) == 1
    record = await world.finished(receipt.event_id)
    assert (record.status, record.attempts, record.error) == ("done", 1, None)
    # The call that has its result is kept, the one in flight is made again.
    assert calls[2] == {"1:call", "1:result"}


async def test_what_would_wait_for_a_day_is_tried_at_once_when_it_is_retried(world: World) -> None:
    healthy = False

    async def patient(work: Work) -> Settlement:
        return Done("well") if healthy else Again("quota used up", 86_400)

    world.answers["a"] = patient
    await world.start()
    receipt = await world.accept()
    await world.record_when(receipt.event_id, lambda record: record.status == "pending" and record.attempts == 1)
    healthy = True
    assert await world.engine.retry(receipt.event_id) == 1
    record = await world.finished(receipt.event_id)
    assert (record.status, record.attempts) == ("done", 2)
    assert await world.engine.retry(receipt.event_id) == 0


async def test_a_dead_event_is_retried(world: World) -> None:
    healthy = False

    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b"))

    async def fail(work: Work) -> Settlement:
        return Done("well") if healthy else Dead("ill")

    world.answers.update(a=forward, b=fail)
    await world.start()
    receipt = await world.accept()
    assert (await world.finished(receipt.event_id)).error == "ill"
    healthy = True
    assert await world.engine.retry(receipt.event_id) == 1
    record = await world.finished(receipt.event_id)
    assert (record.status, record.outcome, record.error) == ("done", "ran", None)
    assert len(world.started) == 3
    await until(lambda: len(world.settled) == 2)
    assert [settled.status for settled in world.settled] == ["dead", "done"]
    assert await world.engine.retry(receipt.event_id) == 0
    assert await world.engine.retry("unknown") == 0


async def test_open_deliveries_are_dropped(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=1)})
    running = await world.accept(key="k")
    await until(lambda: len(gate.inside) == 1)
    pending = await world.accept()
    assert await world.engine.drop(pending.event_id) == 1
    assert await world.engine.drop(running.event_id) == 1
    await until(lambda: not gate.inside)
    for receipt in (pending, running):
        record = await world.finished(receipt.event_id)
        assert (record.status, record.error) == ("dead", "dropped by operator")
    gate.open.set()
    await world.finished((await world.accept()).event_id)
    assert len(world.started) == 2
    # A settled one is forgotten, but its key still is not.
    assert await world.engine.drop(running.event_id) == 1
    assert await world.engine.inspect(running.event_id) is None
    assert not (await world.accept(key="k")).new
    assert await world.engine.drop("unknown") == 0


async def test_a_newer_event_runs_in_the_place_of_one_that_was_forgotten_before_its_turn(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=1)})
    receipts = [await world.accept()]
    await until(lambda: len(gate.inside) == 1)
    receipts.append(await world.accept())
    last = await world.accept()
    assert await world.engine.drop(last.event_id) == 1
    assert await world.engine.drop(last.event_id) == 1
    receipts += [await world.accept() for _ in range(3)]
    gate.open.set()
    for receipt in receipts:
        assert (await world.finished(receipt.event_id)).status == "done"
    assert [delivery for delivery, _ in world.started] == [f"{receipt.event_id}/a" for receipt in receipts]
    await until(lambda: {record.id for record in world.settled} == {each.event_id for each in (*receipts, last)})


async def test_events_are_listed(world: World) -> None:
    async def fail(work: Work) -> Settlement:
        return Dead("ill")

    world.answers["b"] = fail
    await world.start()
    good = [(await world.accept()).event_id for _ in range(150)]
    bad = (await world.accept("b")).event_id
    other = Event("other", "t")
    await world.engine.accept(other, None, trigger="other", agent="a", outcome="skipped")
    await until(lambda: len(world.settled) == 152)

    assert await world.engine.counts() == {"done": 151, "dead": 1}
    everything = [other.id, bad, *reversed(good)]
    assert [record.id async for record in world.engine.runs(limit=None)] == everything
    assert [record.id async for record in world.engine.runs()] == everything[:100]
    assert [record.id async for record in world.engine.runs(status="dead")] == [bad]
    assert [record.id async for record in world.engine.runs(status="done", limit=120)] == [other.id, *everything[2:121]]
    assert [record.id async for record in world.engine.runs(trigger="other")] == [other.id]
    assert [record.deliveries async for record in world.engine.runs(limit=1)] == [()]


async def test_waiting_for_events(world: World) -> None:
    gate = Gate()

    async def forward(work: Work) -> Settlement:
        return Done("first", to(work, "b"))

    world.answers.update(a=forward, b=gate)
    await world.start()
    receipt = await world.accept()
    answered = await world.engine.wait_answer(receipt.event_id, 10)
    assert answered is not None
    assert (answered.status, answered.content) == ("running", "first")
    assert await world.engine.wait(receipt.event_id, 0.02) is None
    waiting = asyncio.create_task(world.engine.wait(receipt.event_id))
    gate.open.set()
    record = await waiting
    assert record is not None
    assert record.status == "done"
    assert await world.engine.wait("unknown") is None
    assert await world.engine.wait_answer("unknown") is None


# --- order and limits ------------------------------------------------------------------------------------------------


async def test_deliveries_of_an_agent_start_in_order(world: World) -> None:
    before = [(await world.accept()).event_id for _ in range(150)]
    await world.start({"a": Policy(concurrency=1)})
    after = [(await world.accept()).event_id for _ in range(50)]
    await until(lambda: len(world.settled) == 200)
    assert [start[0] for start in world.started] == [f"{event_id}/a" for event_id in before + after]


async def test_agents_and_pool_have_their_limits(world: World) -> None:
    gate = world.answers["a"] = world.answers["b"] = world.answers["c"] = Gate()
    await world.start({agent: Policy(concurrency=2) for agent in AGENTS}, concurrency=5)
    for agent in AGENTS:
        for _ in range(4):
            await world.accept(agent)
    await until(lambda: len(gate.inside) == 5)
    await asyncio.sleep(0.05)
    agents = sorted(work.delivery.agent for work in gate.inside)
    assert agents == ["a", "a", "b", "b", "c"]
    gate.open.set()
    await until(lambda: len(world.settled) == 12)
    assert gate.most == 5


async def test_a_long_queue_is_not_held_in_memory(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await asyncio.gather(*(world.accept() for _ in range(2_000)))
    await world.start({"a": Policy(concurrency=4, inbox_size=10_000)})
    await asyncio.gather(*(world.accept() for _ in range(1_000)))
    await until(lambda: len(gate.inside) == 4)
    assert world.engine.loaded <= 2 * 4 + 64 + 4
    most = 0

    def emptied() -> bool:
        nonlocal most
        most = max(most, world.engine.loaded)
        return len(world.settled) == 3_000

    gate.open.set()
    await until(emptied, 90)
    assert most <= 2 * 4 + 64 + 4
    assert len(world.started) == len(set(world.started)) == 3_000


# --- the rest --------------------------------------------------------------------------------------------------------


async def test_a_listener_that_fails_breaks_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def broken(record: EventRecord) -> None:
        raise ZeroDivisionError(record.id)

    await world.engine.start(world.run, AGENTS, settled=broken)
    for _ in range(3):
        await world.finished((await world.accept()).event_id)
    assert "the listener failed" in caplog.text


async def test_stopping_waits_for_what_is_running(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start()
    receipt = await world.accept()
    await until(lambda: len(gate.inside) == 1)
    stopping = asyncio.create_task(world.engine.stop(10))
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(world.engine.wait(receipt.event_id))
    await asyncio.sleep(0.01)
    gate.open.set()
    assert await stopping == 0
    record = await waiting
    assert record is not None
    assert record.status == "done"
    assert [record.status for record in world.settled] == ["done"]
    assert await world.engine.stop(10) == 0
    with pytest.raises(Full, match="stopped"):
        await world.accept()


async def test_stopping_cuts_off_what_takes_too_long(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=2)})
    for _ in range(5):
        await world.accept()
    await until(lambda: len(gate.inside) == 2)
    waiting = asyncio.create_task(world.engine.wait(gate.inside[0].event.id))
    await asyncio.sleep(0.01)
    assert await world.engine.stop(0.05) == 2
    assert not gate.inside
    assert await waiting is None
    assert len(world.started) == 2


async def test_starting_twice_is_refused(world: World) -> None:
    await world.start()
    with pytest.raises(EngineError, match="already"):
        await world.start()


async def test_settled_events_are_forgotten_after_a_while(timed: World, clock: ManualClock) -> None:
    await timed.start()
    old = await timed.accept(key="for ever")
    other = await timed.accept(key="for a day", keep_key_s=86_400)
    await until(lambda: len(timed.settled) == 2)
    gate = timed.answers["a"] = Gate()
    opened = await timed.accept()
    await until(lambda: len(gate.inside) == 1)
    clock.advance(31 * 86_400)
    for receipt in (old, other):
        await timed.forgotten(receipt.event_id)
    assert await timed.engine.counts() == {"running": 1}
    known = await timed.accept(key="for ever")
    assert (known.event_id, known.new, known.status) == (old.event_id, False, "done")
    assert (await timed.accept(key="for a day")).new
    assert await timed.engine.inspect(opened.event_id) is not None


async def test_a_delivery_twice_in_one_answer_is_one(world: World) -> None:
    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b") * 2)

    world.answers["a"] = forward
    await world.start()
    record = await world.finished((await world.accept()).event_id)
    assert len(record.deliveries) == 2


async def test_an_answer_that_cannot_be_written_is_a_failure(world: World) -> None:
    async def odd(work: Work) -> Settlement:
        message = Message.user(object())  # type: ignore[arg-type]
        return Done("on", (Delivery("x", work.delivery.event_id, "b", message),))

    world.answers["a"] = odd
    await world.start({"a": Policy(attempts=1), "b": Policy()})
    record = await world.finished((await world.accept()).event_id)
    assert record.status == "dead"
    assert record.error is not None
    assert record.error.startswith("TypeError")
