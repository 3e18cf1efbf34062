"""What every engine promises about deliveries that wait for a person; each test runs against each of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from engine_world import ManualClock, World, to, until

from llmling.asks import Ask, Decision, decision_key, decision_of, place
from llmling.protocols import Dead, Done, EventRecord, Settlement, Step, Waiting, Work

CALLS = (Ask("0.0", "a", 'send({"to": "ada"})', "send"), Ask("0.1", "a", "wipe({})", "wipe"))
QUESTIONS = (Ask("0", "a", "Shall we?"), Ask("1:boss/0", "boss", "Really?"))


class Asking:
    """An agent that asks, and answers once everything it asked is decided; `again` are those it did not get."""

    def __init__(self, *asks: Ask, cost_usd: float | None = None) -> None:
        self.asks = asks
        self.cost_usd = cost_usd
        self.decisions: list[Decision] = []
        self.runs = 0

    async def __call__(self, work: Work) -> Settlement:
        self.runs += 1
        steps = [work.journal.recorded(decision_key(ask.key)) for ask in self.asks]
        if None in steps:
            for ask in self.asks:
                await work.journal.record(ask.step(), committed=True)
            return Waiting("asks " + ", ".join(ask.text for ask in self.asks), self.cost_usd)
        self.decisions = [decision_of(step) for step in steps if step is not None]
        return Done("decided", cost_usd=self.cost_usd)


async def waits(world: World, event_id: str) -> EventRecord:
    return await world.record_when(event_id, lambda record: record.status == "waiting")


async def test_an_approval_settles_every_call_and_the_delivery_goes_on(world: World) -> None:
    world.answers["a"] = asking = Asking(*CALLS)
    await world.start()
    receipt = await world.accept()
    record = await waits(world, receipt.event_id)
    assert record.error == 'asks send({"to": "ada"}), wipe({})'
    assert await world.engine.decide(receipt.event_id, Decision()) == 2
    record = await world.finished(receipt.event_id)
    assert (record.status, record.attempts, record.error) == ("done", 1, None)
    assert asking.decisions == [Decision(), Decision()]
    assert asking.runs == 2


async def test_what_waits_for_a_person_waits_as_long_as_it_takes(timed: World, clock: ManualClock) -> None:
    timed.answers["a"] = asking = Asking(CALLS[1])
    await timed.start()
    receipt = await timed.accept()
    await waits(timed, receipt.event_id)
    for hours in (*[1] * 24, 24 * 40):
        clock.advance(hours * 3600)
        await asyncio.sleep(0)
        other = await timed.accept("b")
        await timed.finished(other.event_id)
        assert (await timed.record(receipt.event_id)).status == "waiting"
    assert asking.runs == 1, "nothing was called, and nothing asked again"
    assert await timed.engine.decide(receipt.event_id, Decision()) == 1
    assert (await timed.finished(receipt.event_id)).status == "done"
    assert asking.runs == 2


async def test_a_denial_carries_its_reason(world: World) -> None:
    world.answers["a"] = asking = Asking(CALLS[0])
    await world.start()
    receipt = await world.accept()
    await waits(world, receipt.event_id)
    assert await world.engine.decide(receipt.event_id, Decision(approved=False, reason="not \udce9 today")) == 1
    await world.finished(receipt.event_id)
    assert asking.decisions == [Decision(approved=False, reason="not \udce9 today")]


async def test_an_answer_settles_one_question_after_the_other(world: World) -> None:
    world.answers["a"] = asking = Asking(*QUESTIONS)
    await world.start()
    receipt = await world.accept()
    await waits(world, receipt.event_id)
    assert await world.engine.decide(receipt.event_id, Decision()) == 0
    assert await world.engine.decide(receipt.event_id, Decision(answer="yes")) == 1
    await until(lambda: asking.runs == 2)
    await waits(world, receipt.event_id)
    assert await world.engine.decide(receipt.event_id, Decision(answer="no")) == 1
    await world.finished(receipt.event_id)
    assert [decision.answer for decision in asking.decisions] == ["yes", "no"]


async def test_a_decision_settles_what_the_first_waiting_delivery_asks(world: World) -> None:
    async def fan_out(work: Work) -> Settlement:
        return Done("", successors=to(work, "b", "c"))

    world.answers["a"] = fan_out
    world.answers["b"], world.answers["c"] = Asking(QUESTIONS[0]), Asking(CALLS[0])
    await world.start()
    receipt = await world.accept()
    record = await waits(world, receipt.event_id)
    assert record.error == "asks Shall we?"
    assert await world.engine.decide(receipt.event_id, Decision()) == 1
    await world.record_when(receipt.event_id, lambda record: record.deliveries[-1].status == "done")
    assert await world.engine.decide(receipt.event_id, Decision()) == 0
    assert await world.engine.decide(receipt.event_id, Decision(answer="yes")) == 1
    assert (await world.finished(receipt.event_id)).status == "done"


async def test_of_two_decisions_the_first_counts(world: World) -> None:
    world.answers["a"] = asking = Asking(CALLS[0])
    await world.start()
    receipt = await world.accept()
    await waits(world, receipt.event_id)
    counts = await asyncio.gather(
        world.engine.decide(receipt.event_id, Decision(approved=False)),
        world.engine.decide(receipt.event_id, Decision()),
    )
    assert counts == [1, 0]
    await world.finished(receipt.event_id)
    assert asking.decisions == [Decision(approved=False)]


async def test_what_was_not_seen_is_not_settled(world: World) -> None:
    world.answers["a"] = Asking(*CALLS)
    await world.start()
    receipt = await world.accept()
    record = await waits(world, receipt.event_id)
    (delivery,) = record.deliveries
    seen = [place(delivery.id, ask) for ask in CALLS]
    for wrong in ([], seen[:1], ["other 0.0", "other 0.1"]):
        assert await world.engine.decide(receipt.event_id, Decision(), seen=wrong) == 0
    assert await world.engine.decide(receipt.event_id, Decision(), seen=seen) == 2
    await world.finished(receipt.event_id)


@pytest.mark.parametrize("settlement", [Done("fine"), Dead("too bad"), Waiting("was in flight")])
async def test_what_asks_nothing_is_left_alone(world: World, settlement: Settlement) -> None:
    async def answer(work: Work) -> Settlement:
        await work.journal.record(Step("0.0:call", "call", {"tool": "send"}))
        return settlement

    world.answers["a"] = answer
    await world.start()
    receipt = await world.accept()
    record = await world.record_when(receipt.event_id, lambda record: record.status not in {"pending", "running"})
    assert await world.engine.decide(receipt.event_id, Decision()) == 0
    assert await world.engine.decide("unknown", Decision()) == 0
    assert await world.record(receipt.event_id) == record


async def test_a_retry_asks_again_and_forgets_no_decision(world: World) -> None:
    world.answers["a"] = asking = Asking(CALLS[0])
    await world.start()
    receipt = await world.accept()
    await waits(world, receipt.event_id)
    assert await world.engine.retry(receipt.event_id) == 1
    await until(lambda: asking.runs == 2)
    await waits(world, receipt.event_id)
    assert await world.engine.decide(receipt.event_id, Decision()) == 1
    await world.finished(receipt.event_id)


async def test_a_waiting_event_can_be_dropped(world: World) -> None:
    world.answers["a"] = Asking(CALLS[0])
    await world.start()
    receipt = await world.accept()
    await waits(world, receipt.event_id)
    assert await world.engine.drop(receipt.event_id) == 1
    assert (await world.finished(receipt.event_id)).status == "dead"
    assert await world.engine.decide(receipt.event_id, Decision()) == 0


async def test_what_was_spent_before_the_wait_counts(world: World) -> None:
    world.answers["a"] = Asking(CALLS[0], cost_usd=0.25)
    await world.start()
    receipt = await world.accept()
    assert (await waits(world, receipt.event_id)).cost_usd == 0.25
    await world.engine.decide(receipt.event_id, Decision())
    assert (await world.finished(receipt.event_id)).cost_usd == 0.5


async def test_whoever_listens_hears_that_an_event_waits_once(world: World) -> None:
    world.answers["a"] = Asking(CALLS[0])
    heard: list[EventRecord] = []
    await world.start(waiting=heard.append)
    receipt = await world.accept()
    await waits(world, receipt.event_id)
    await until(lambda: bool(heard))
    await world.engine.decide(receipt.event_id, Decision())
    await world.finished(receipt.event_id)
    assert [(record.id, record.status, record.error) for record in heard] == [
        (receipt.event_id, "waiting", 'asks send({"to": "ada"})')
    ]
    assert [record.status for record in world.settled] == ["done"]


@pytest.mark.parametrize("shared", ["sqlite", "nats"])
async def test_a_decision_survives_a_restart_and_may_come_from_another_process(shared: str, tmp_path: Path) -> None:
    first = World(shared, tmp_path)
    await first.engine.open()
    first.answers["a"] = Asking(CALLS[0])
    await first.start()
    receipt = await first.accept()
    other = World(shared, tmp_path)
    await other.engine.open()
    await waits(other, receipt.event_id)
    await first.engine.stop(0)
    assert await other.engine.decide(receipt.event_id, Decision(approved=False, reason="no")) == 1
    await other.engine.stop(0)
    last = World(shared, tmp_path)
    await last.engine.open()
    last.answers["a"] = asking = Asking(CALLS[0])
    await last.start()
    await last.finished(receipt.event_id)
    assert asking.decisions == [Decision(approved=False, reason="no")]
    assert asking.runs == 1
    await last.engine.stop(0)


@pytest.mark.parametrize("shared", ["sqlite", "nats"])
async def test_a_serving_process_notices_the_decision_of_another(shared: str, tmp_path: Path) -> None:
    world, other = World(shared, tmp_path), World(shared, tmp_path)
    world.answers["a"] = Asking(CALLS[0])
    await world.engine.open()
    await world.start()
    receipt = await world.accept()
    await waits(world, receipt.event_id)
    await other.engine.open()
    assert await other.engine.decide(receipt.event_id, Decision()) == 1
    assert (await world.finished(receipt.event_id)).status == "done"
    await other.engine.stop(0)
    await world.engine.stop(0)
