"""What every engine promises when the rules change while it serves; each test runs against each of them."""

from __future__ import annotations

import asyncio

import pytest
from engine_world import AGENTS, Gate, World, to, until

from llmling.asks import Ask, Decision
from llmling.errors import EngineError, Full
from llmling.protocols import Again, Done, EventRecord, Policy, Settlement, Waiting, Work

GONE = "agent 'b' is not in the manifest any more; put it back and run `llmling events retry`"
WITHOUT_B = {"a": Policy(), "c": Policy()}


async def test_what_waits_for_an_agent_that_is_gone_is_dead_and_what_runs_goes_on(world: World) -> None:
    gate = world.answers["b"] = Gate()
    await world.start({**AGENTS, "b": Policy(concurrency=1)})
    running = await world.accept("b")
    await until(lambda: len(gate.inside) == 1)
    waiting = [await world.accept("b") for _ in range(3)]
    await world.engine.update(WITHOUT_B)
    for receipt in waiting:
        record = await world.finished(receipt.event_id)
        assert (record.status, record.error) == ("dead", GONE)
    # What comes for it from now on as well.
    late = await world.finished((await world.accept("b")).event_id)
    assert (late.status, late.error) == ("dead", GONE)
    gate.open.set()
    assert (await world.finished(running.event_id)).status == "done"
    assert (await world.finished((await world.accept()).event_id)).status == "done"
    assert len(world.started) == 2
    await until(lambda: len(world.settled) == 6)


async def test_an_agent_that_comes_back_runs_what_is_retried_within_its_limits(world: World) -> None:
    gate = world.answers["b"] = Gate()
    await world.start({**AGENTS, "b": Policy(concurrency=1)})
    running = await world.accept("b")
    await until(lambda: len(gate.inside) == 1)
    waiting = await world.accept("b")
    await world.engine.update(WITHOUT_B)
    assert (await world.finished(waiting.event_id)).error == GONE
    await world.engine.update({**AGENTS, "b": Policy(concurrency=1)})
    assert await world.engine.retry(waiting.event_id) == 1
    await world.finished((await world.accept()).event_id)
    assert len(gate.inside) == 1
    gate.open.set()
    assert (await world.finished(waiting.event_id)).status == "done"
    assert (await world.finished(running.event_id)).status == "done"
    assert gate.most == 1


async def test_a_new_agent_gets_deliveries(world: World) -> None:
    async def forward(work: Work) -> Settlement:
        return Done("on", to(work, "new"))

    world.answers["a"] = forward
    await world.start()
    await world.engine.update({**AGENTS, "new": Policy()})
    record = await world.finished((await world.accept()).event_id)
    assert [(delivery.agent, delivery.status) for delivery in record.deliveries] == [("a", "done"), ("new", "done")]


async def test_a_follower_that_is_gone_when_its_predecessor_ends_is_dead(world: World) -> None:
    gate = world.answers["a"] = Gate(lambda work: asyncio.sleep(0, Done("on", to(work, "b"))))
    await world.start()
    receipt = await world.accept()
    await until(lambda: len(gate.inside) == 1)
    await world.engine.update(WITHOUT_B)
    gate.open.set()
    record = await world.finished(receipt.event_id)
    assert [(d.agent, d.status, d.error) for d in record.deliveries] == [("a", "done", None), ("b", "dead", GONE)]


async def test_a_failing_try_of_an_agent_that_is_gone_is_its_last(world: World) -> None:
    gate = world.answers["b"] = Gate(lambda work: asyncio.sleep(0, Again("ill", 60)))
    await world.start()
    receipt = await world.accept("b")
    await until(lambda: len(gate.inside) == 1)
    await world.engine.update(WITHOUT_B)
    gate.open.set()
    record = await world.finished(receipt.event_id)
    assert (record.status, record.error) == ("dead", GONE)


async def test_concurrency_is_raised_and_lowered_while_deliveries_run(world: World) -> None:
    gate = world.answers["a"] = Gate()
    await world.start({"a": Policy(concurrency=1)}, concurrency=1)
    receipts = [await world.accept() for _ in range(8)]
    await until(lambda: len(gate.inside) == 1)
    await world.engine.update({"a": Policy(concurrency=3)}, concurrency=10)
    await until(lambda: len(gate.inside) == 3)
    await world.engine.update({"a": Policy(concurrency=8)}, concurrency=2)
    gate.open.set()
    for receipt in receipts:
        assert (await world.finished(receipt.event_id)).status == "done"
    assert gate.most == 3


async def test_inboxes_and_tries_follow_the_rules_of_now(world: World) -> None:
    async def ill(work: Work) -> Settlement:
        return Again("ill", 0)

    gate = Gate()
    world.answers.update(a=ill, b=gate)
    await world.start({"a": Policy(attempts=2), "b": Policy(concurrency=1, inbox_size=1)})
    assert (await world.finished((await world.accept()).event_id)).attempts == 2
    running = await world.accept("b")
    await until(lambda: len(gate.inside) == 1)
    first = await world.accept("b")
    with pytest.raises(Full):
        await world.accept("b")
    await world.engine.update({"a": Policy(attempts=3), "b": Policy(concurrency=1, inbox_size=2)})
    second = await world.accept("b")
    assert (await world.finished((await world.accept()).event_id)).attempts == 3
    gate.open.set()
    for receipt in (running, first, second):
        assert (await world.finished(receipt.event_id)).status == "done"


@pytest.mark.parametrize("how", ["decide", "retry"])
async def test_what_waited_for_a_person_is_dead_once_decided_when_its_agent_is_gone(world: World, how: str) -> None:
    ask = Ask("0.0", "b", "wipe({})", "wipe")

    async def asking(work: Work) -> Settlement:
        await work.journal.record(ask.step(), committed=True)
        return Waiting("asks")

    world.answers["b"] = asking
    await world.start()
    receipt = await world.accept("b")
    await world.record_when(receipt.event_id, lambda record: record.status == "waiting")
    await world.engine.update(WITHOUT_B)
    record = await world.record(receipt.event_id)
    assert record.status == "waiting"
    if how == "decide":
        assert await world.engine.decide(receipt.event_id, Decision()) == 1
    else:
        assert await world.engine.retry(receipt.event_id) == 1
    record = await world.finished(receipt.event_id)
    assert (record.status, record.error) == ("dead", GONE)


async def test_many_deliveries_are_buried_at_once(world: World) -> None:
    world.answers["b"] = gate = Gate()
    await world.start({**AGENTS, "b": Policy(concurrency=1)})
    receipts = await asyncio.gather(*(world.accept("b") for _ in range(500)))
    await until(lambda: len(gate.inside) == 1)
    await world.engine.update(WITHOUT_B)
    gate.open.set()
    ended: list[EventRecord] = [await world.finished(receipt.event_id) for receipt in receipts]
    assert sorted(record.status for record in ended) == ["dead"] * 499 + ["done"]
    assert len(world.started) == 1


async def test_an_engine_that_hands_nothing_out_has_no_rules_to_change(world: World) -> None:
    with pytest.raises(EngineError, match="started"):
        await world.engine.update(AGENTS)
