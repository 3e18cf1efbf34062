"""Many runs of one agent: batches, and rounds in the background."""

from __future__ import annotations

import asyncio

import pytest

from llmling import Agent, RunResult
from llmling.errors import (
    ModelError,
)
from llmling.protocols import ModelRequest
from llmling.testing import ScriptedModel


async def test_run_many_keeps_order_and_bounds_what_is_in_flight() -> None:
    active = peak = 0

    async def reply(request: ModelRequest) -> str:
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        await asyncio.sleep(0.001)
        active -= 1
        if request.messages[-1].text == "3":
            raise ModelError("three", status=400)
        return request.messages[-1].text

    agent = Agent("a", model=ScriptedModel([reply] * 20))
    outcomes = await agent.run_many([str(n) for n in range(8)], max_concurrency=3, return_exceptions=True)
    assert [o.content if isinstance(o, RunResult) else str(o) for o in outcomes[:3]] == ["0", "1", "2"]
    assert isinstance(outcomes[3], ModelError)
    assert peak == 3
    with pytest.raises(ModelError, match="three"):
        await agent.run_many(["3"])


async def test_as_completed_yields_in_the_order_of_completion() -> None:
    release = [asyncio.Event() for _ in range(3)]

    async def reply(request: ModelRequest) -> str:
        number = int(request.messages[-1].text)
        await release[number].wait()
        return str(number)

    agent = Agent("a", model=ScriptedModel([reply] * 3))
    release[2].set()
    order: list[int] = []
    async for index, outcome in agent.as_completed(["0", "1", "2"]):
        assert isinstance(outcome, RunResult)
        order.append(index)
        release[(index + 2) % 3].set()
    assert order == [2, 1, 0]


async def test_a_slow_prompt_of_a_batch_times_out_alone() -> None:
    async def reply(request: ModelRequest) -> str:
        if request.messages[-1].text == "slow":
            await asyncio.Event().wait()
        return "ok"

    agent = Agent("a", model=ScriptedModel([reply] * 2))
    slow, quick = await agent.run_many(["slow", "quick"], timeout_s=0.05, return_exceptions=True)
    assert isinstance(slow, TimeoutError)
    assert isinstance(quick, RunResult)


async def test_background_rounds_go_on_after_a_failure_and_stop_with_the_last_result() -> None:
    three = asyncio.Event()

    def third(request: ModelRequest) -> str:
        three.set()
        return "third"

    model = ScriptedModel(["first", ModelError("no", status=400), third, *["later"] * 1000])
    agent = Agent("a", model=model)
    task = await agent.run_in_background("Monitor", interval=0)
    await asyncio.wait_for(three.wait(), 30)
    await agent.stop()
    result = await task
    assert result is not None
    assert result.content in {"third", "later"}
    assert not task.cancelled()


async def test_background_rounds_end_by_count_and_a_second_call_replaces() -> None:
    agent = Agent("a", model=ScriptedModel([str(n) for n in range(10)]))
    first = await agent.run_in_background("x", interval=3600)
    task = await agent.run_in_background("x", interval=0, max_count=3)
    assert (await first) is None or first.done()
    result = await task
    assert result is not None
    assert int(result.content) >= 2
    with pytest.raises(ValueError, match="empty"):
        await agent.run_in_background(" ", interval=1)


async def test_of_background_rounds_that_begin_at_once_one_is_left() -> None:
    gate = asyncio.Event()

    async def hang(request: ModelRequest) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            # Takes its time to end, and others begin meanwhile.
            await asyncio.sleep(0)
            raise
        raise AssertionError

    agent = Agent("a", model=ScriptedModel(hang))
    tasks = [await agent.run_in_background("x", interval=0)]
    tasks += await asyncio.gather(*(agent.run_in_background("x", interval=0) for _ in range(3)))
    assert sum(not task.done() for task in tasks) == 1
    await agent.stop()
    assert all(task.done() for task in tasks)


async def test_leaving_an_agent_ends_its_background_rounds() -> None:
    async with Agent("a", model=ScriptedModel(["x"] * 5)) as agent:
        task = await agent.run_in_background("x", interval=3600)
        await asyncio.sleep(0)
    assert task.done()
