"""What every engine promises; each test runs against each of them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt

import pytest
from engine_world import Gate, ManualClock, World, to, until

from llmling.errors import Full
from llmling.events import Event
from llmling.messages import Message, Usage
from llmling.protocols import Again, Dead, Done, Policy, Settlement, Step, Work

# --- accepting -------------------------------------------------------------------------------------------------------


async def test_an_event_is_run_and_recorded(world: World) -> None:
    async def answer(work: Work) -> Settlement:
        return Done("fine", usage=Usage(3, 4, 1, 0), cost_usd=0.25, model="demo")

    world.answers["a"] = answer
    await world.start()
    event = Event("inbox", "dev.llmling.test", "subject", {"x": [1, "ü", None]}, headers={"h": "v"})
    receipt = await world.accept(text="question", event=event)
    assert (receipt.event_id, receipt.new, receipt.status) == (event.id, True, "pending")
    record = await world.finished(event.id)
    assert (record.status, record.outcome, record.attempts, record.error) == ("done", "ran", 1, None)
    assert (record.trigger, record.agent, record.cost_usd, record.content) == ("inbox", "a", 0.25, "fine")
    assert record.event == event
    assert record.finished is not None
    assert record.finished >= record.created
    (delivery,) = record.deliveries
    assert (delivery.id, delivery.status, delivery.message.text) == (f"{event.id}/a", "done", "question")


async def test_a_known_key_gives_the_first_receipt(world: World) -> None:
    first = await world.accept(key="k")
    again = await world.accept(key="k")
    assert (again.event_id, again.new, again.status) == (first.event_id, False, "pending")
    event = Event("other", "t")
    other = await world.engine.accept(event, None, trigger="other", agent="a", key="k", outcome="filtered")
    assert other.new
    assert set(await world.engine.known("inbox", ["k", "unknown"])) == {"k"}


async def test_the_receipt_of_a_known_key_has_the_state_of_its_event(world: World) -> None:
    async def fail(work: Work) -> Settlement:
        return Dead("too bad")

    world.answers["a"] = fail
    await world.start()
    first = await world.accept(key="k")
    await world.finished(first.event_id)
    again = await world.accept(key="k")
    assert (again.new, again.status, again.error) == (False, "dead", "too bad")
    assert (await world.engine.known("inbox", ["k"]))["k"] == again


async def test_a_key_comes_again_after_it_has_expired(timed: World, clock: ManualClock) -> None:
    first = await timed.accept(key="k", keep_key_s=60)
    clock.advance(59)
    assert not (await timed.accept(key="k", keep_key_s=60)).new
    clock.advance(2)
    assert await timed.engine.known("inbox", ["k"]) == {}
    second = await timed.accept(key="k", keep_key_s=60)
    assert second.new
    assert second.event_id != first.event_id


async def test_the_same_event_twice_is_one_event(world: World) -> None:
    event = Event("inbox", "t")
    receipts = await asyncio.gather(*(world.accept(event=event) for _ in range(10)))
    assert [receipt.new for receipt in receipts].count(True) == 1
    await world.start()
    await world.finished(event.id)
    assert world.started == [(f"{event.id}/a", 1)]


async def test_without_a_delivery_the_event_is_settled_at_once(world: World) -> None:
    await world.start()
    filtered, broken = Event("s", "t"), Event("s", "t")
    receipt = await world.engine.accept(filtered, None, trigger="s", agent="a", outcome="filtered")
    assert (receipt.new, receipt.status) == (True, "done")
    receipt = await world.engine.accept(broken, None, trigger="s", agent="a", dead="too large")
    assert (receipt.new, receipt.status, receipt.error) == (True, "dead", "too large")
    await until(lambda: len(world.settled) == 2)
    assert [(record.id, record.status, record.outcome, record.error) for record in world.settled] == [
        (filtered.id, "done", "filtered", None),
        (broken.id, "dead", None, "too large"),
    ]


async def test_a_delivery_that_must_not_run_is_dead_at_once(world: World) -> None:
    await world.start()
    receipt = await world.accept(dead="over the limit")
    assert (receipt.status, receipt.error) == ("dead", "over the limit")
    assert not world.started


async def test_an_event_that_json_cannot_hold_fails_alone(world: World) -> None:
    bad, good = await asyncio.gather(
        world.accept(event=Event("s", "t", data=object())), world.accept(), return_exceptions=True
    )
    assert isinstance(bad, TypeError)
    assert not isinstance(good, BaseException)
    assert await world.engine.counts() == {"pending": 1}


async def test_text_that_is_no_unicode_is_kept(world: World) -> None:
    async def answer(work: Work) -> Settlement:
        return Done(work.event.data + " back")

    world.answers["a"] = answer
    await world.start()
    odd = "caf\udce9"
    receipt = await world.accept(key=odd, event=Event("s", "t", odd, odd))
    record = await world.finished(receipt.event_id)
    assert record.content == odd + " back"
    assert record.event.subject == odd
    assert set(await world.engine.known("inbox", [odd])) == {odd}


@pytest.mark.parametrize("overflow", ["block", "reject"])
async def test_a_full_inbox_refuses(world: World, overflow: str) -> None:
    gate = world.answers["a"] = Gate()
    policy = Policy(concurrency=1, inbox_size=2, overflow="block" if overflow == "block" else "reject")
    await world.start({"a": policy})
    first = await world.accept(key="first")
    await until(lambda: len(gate.inside) == 1)
    for _ in range(2):
        await world.accept()
    with pytest.raises(
        Full, match=rf"inbox of agent 'a' is full: 2 wait \(inbox.size 2, overflow: {overflow}\)"
    ) as full:
        await world.accept()
    assert full.value.retry_after_s >= 1
    # What is known is known, however full it is.
    assert (await world.accept(key="first")).event_id == first.event_id
    assert not (await world.accept(event=(await world.record(first.event_id)).event)).new
    gate.open.set()
    await until(lambda: len(world.settled) == 3)
    assert (await world.accept()).new


async def test_a_process_that_does_not_serve_bounds_nothing(world: World) -> None:
    for _ in range(1100):
        await world.accept()
    assert await world.engine.counts() == {"pending": 1100}


async def test_the_oldest_is_dropped_for_a_new_one(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=1, inbox_size=2, overflow="drop_oldest")})
    await world.accept()
    await until(lambda: len(gate.inside) == 1)
    waiting = [(await world.accept()).event_id for _ in range(3)]
    dropped = await world.finished(waiting[0])
    reason = "dropped: inbox of 'a' is full (inbox.size 2, overflow: drop_oldest)"
    assert (dropped.status, dropped.error) == ("dead", reason)
    assert [record.id for record in world.settled] == [waiting[0]]
    gate.open.set()
    await until(lambda: len(world.settled) == 4)
    assert len(world.started) == 3


async def test_nobody_needs_to_wait_for_an_accept(world: World) -> None:
    await world.start()
    event = Event("inbox", "t")
    task = asyncio.create_task(world.accept(event=event))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await until(lambda: [record.id for record in world.settled] == [event.id])


# --- what follows ----------------------------------------------------------------------------------------------------


async def test_a_chain_is_one_event(world: World) -> None:
    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b", "c"), cost_usd=0.1)

    world.answers["a"] = forward
    await world.start()
    receipt = await world.accept()
    record = await world.finished(receipt.event_id)
    root = f"{receipt.event_id}/a"
    assert [delivery.id for delivery in record.deliveries] == [root, f"{root}/b", f"{root}/c"]
    assert [delivery.hops for delivery in record.deliveries] == [0, 1, 1]
    assert record.deliveries[1].message == Message.assistant("from a", name="a")
    assert (record.status, record.content, record.cost_usd) == ("done", "on", 0.1)
    await until(lambda: bool(world.settled))
    assert [settled.id for settled in world.settled] == [receipt.event_id]


async def test_a_dead_delivery_leaves_its_siblings_alone(world: World) -> None:
    gate = Gate()

    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b", dead="limits.max_hops reached") + to(work, "c"))

    world.answers.update(a=forward, c=gate)
    await world.start()
    receipt = await world.accept()
    await until(lambda: len(gate.inside) == 1)
    assert (await world.record(receipt.event_id)).status == "running"
    gate.open.set()
    record = await world.finished(receipt.event_id)
    assert (record.status, record.outcome, record.error) == ("dead", None, "limits.max_hops reached")
    assert [delivery.status for delivery in record.deliveries] == ["done", "dead", "done"]


async def test_an_event_may_cause_only_so_many_messages(world: World) -> None:
    async def back(work: Work) -> Settlement:
        return Done("on", to(work, "b" if work.delivery.agent == "a" else "a"))

    world.answers.update(a=back, b=back)
    await world.start(max_messages=5)
    record = await world.finished((await world.accept()).event_id)
    assert [delivery.status for delivery in record.deliveries] == ["done"] * 5 + ["dead"]
    assert record.error is not None
    assert "limits.max_messages_per_event (5)" in record.error


@pytest.mark.parametrize(
    ("overflow", "statuses"),
    [
        ("block", ["pending", "pending", "pending"]),
        ("reject", ["pending", "dead", "dead"]),
        ("drop_oldest", ["dead", "dead", "pending"]),
    ],
)
async def test_successors_at_a_full_inbox(world: World, overflow: str, statuses: list[str]) -> None:
    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "b"))

    policies = {
        "block": Policy(concurrency=1, inbox_size=1, overflow="block"),
        "reject": Policy(concurrency=1, inbox_size=1, overflow="reject"),
        "drop_oldest": Policy(concurrency=1, inbox_size=1, overflow="drop_oldest"),
    }
    gate = Gate()
    world.answers.update(a=forward, b=gate)
    await world.start({"a": Policy(concurrency=1), "b": policies[overflow]})
    await world.accept()
    await until(lambda: len(gate.inside) == 1)
    later = [(await world.accept()).event_id for _ in range(3)]

    for event_id, status in zip(later, statuses, strict=True):
        await world.record_when(
            event_id,
            lambda record, status=status: len(record.deliveries) == 2 and record.deliveries[1].status == status,
        )


# --- trying again ----------------------------------------------------------------------------------------------------


async def test_again_waits_and_then_tries_again(timed: World, clock: ManualClock) -> None:
    async def flaky(work: Work) -> Settlement:
        return Again("busy", 10, cost_usd=0.5) if work.attempt < 3 else Done("at last", cost_usd=0.25)

    timed.answers["a"] = flaky
    await timed.start()
    receipt = await timed.accept()
    root = f"{receipt.event_id}/a"

    async def backing_off(attempts: int) -> None:
        record = await timed.record_when(
            receipt.event_id,
            lambda record: (record.deliveries[0].status, record.deliveries[0].attempts) == ("pending", attempts),
        )
        assert record.deliveries[0].error == "busy"

    await backing_off(1)
    clock.advance(9.9)
    await asyncio.sleep(0.05)
    assert timed.started == [(root, 1)]
    clock.advance(0.2)
    await until(lambda: len(timed.started) == 2)
    await backing_off(2)
    # The wall clock is set back by an hour: nothing waits longer for that.
    clock.wall -= dt.timedelta(hours=1)
    clock.advance(10.1)
    record = await timed.finished(receipt.event_id)
    assert timed.started == [(root, 1), (root, 2), (root, 3)]
    assert (record.status, record.attempts, record.cost_usd, record.error) == ("done", 3, 1.25, None)


async def test_a_sooner_one_does_not_wait_for_a_later_one(timed: World, clock: ManualClock) -> None:
    async def flaky(work: Work) -> Settlement:
        return Again("busy", float(work.delivery.message.text)) if work.attempt == 1 else Done("")

    timed.answers["a"] = flaky
    await timed.start()
    late = await timed.accept(text="500")
    await until(lambda: len(timed.started) == 1)
    soon = await timed.accept(text="5")
    await until(lambda: len(timed.started) == 2)
    await timed.record_when(soon.event_id, lambda record: record.deliveries[0].status == "pending")
    clock.advance(5)
    await timed.finished(soon.event_id)
    clock.advance(495)
    await timed.finished(late.event_id)


async def test_after_its_attempts_a_delivery_is_dead(world: World) -> None:
    async def fail(work: Work) -> Settlement:
        return Again(f"try {work.attempt} failed", 0)

    world.answers["a"] = fail
    await world.start({"a": Policy(attempts=3)})
    record = await world.finished((await world.accept()).event_id)
    assert (record.status, record.attempts, record.error) == ("dead", 3, "try 3 failed")


async def test_a_mistake_in_the_runner_is_tried_again_and_then_dead(
    timed: World, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(work: Work) -> Settlement:
        if work.attempt == 1:
            raise asyncio.CancelledError
        raise ZeroDivisionError("by zero")

    timed.answers["a"] = broken
    await timed.start({"a": Policy(attempts=2)})
    receipt = await timed.accept()
    await timed.record_when(receipt.event_id, lambda record: record.deliveries[0].error is not None)
    clock.advance(1)
    record = await timed.finished(receipt.event_id)
    assert (record.status, record.error) == ("dead", "ZeroDivisionError: by zero")
    assert "Traceback" in caplog.text
    assert "was cancelled from outside" in caplog.text


async def test_an_agent_that_is_gone_leaves_a_reason(world: World) -> None:
    receipt = await world.accept("gone")
    await world.start()
    record = await world.finished(receipt.event_id)
    reason = "agent 'gone' is not in the manifest any more; put it back and run `llmling events retry`"
    assert (record.status, record.error) == ("dead", reason)
    later = await world.accept("gone")
    assert (later.status, later.error) == ("dead", reason)


# --- steps -----------------------------------------------------------------------------------------------------------


async def test_a_step_right_before_the_end_is_kept_behind_those_before_it(world: World) -> None:
    first, second = Step("1", "reply", {"text": "ü"}), Step('2 "quoted"', "reply", {"text": "\n"})

    async def stepwise(work: Work) -> Settlement:
        await work.journal.record(first, committed=work.delivery.message.text == "apart")
        await work.journal.record(second)
        if work.delivery.message.text == "again":
            await work.journal.flush()
            await work.journal.record(Step("1", "reply", {"text": "other"}))
        return Done("fine")

    world.answers["a"] = stepwise
    await world.start()
    for text in ("together", "apart"):
        record = await world.finished((await world.accept(text=text)).event_id)
        assert record.deliveries[0].steps == (first, second)
    record = await world.finished((await world.accept(text="again")).event_id)
    assert record.deliveries[0].steps == (second, Step("1", "reply", {"text": "other"}))


async def test_steps_of_earlier_attempts_are_known(world: World) -> None:
    seen: list[tuple[Step | None, Step | None]] = []

    async def stepwise(work: Work) -> Settlement:
        journal = work.journal
        seen.append((journal.recorded("1"), journal.recorded("2:call")))
        if work.attempt == 1:
            await journal.record(Step("1", "reply", {"text": "ü"}))
            await journal.record(Step("2:call", "call", {"tool": "t"}), committed=True)
            assert journal.recorded("1") == Step("1", "reply", {"text": "ü"})
            return Again("later", 0)
        return Done("")

    world.answers["a"] = stepwise
    await world.start()
    record = await world.finished((await world.accept()).event_id)
    steps = (Step("1", "reply", {"text": "ü"}), Step("2:call", "call", {"tool": "t"}))
    assert seen == [(None, None), steps]
    assert record.deliveries[0].steps == steps
