"""Budgets: what may start, what it counts for, and what happens at the limit."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from llm_server import LLMServer, Reply, Request
from priced_models import costing, outcomes, priced
from serving import until

from llmling import Agent
from llmling.errors import BudgetExceeded, ModelError
from llmling.events import Event
from llmling.manifest.agents import AgentConfig
from llmling.manifest.budgets import BudgetConfig
from llmling.manifest.models import Price
from llmling.messages import Message, Usage
from llmling.protocols import ModelRequest, ModelResponse
from llmling.runtime.gate import Bounds, agent_budget
from llmling.runtime.services import Services
from llmling.runtime.stores import MemoryStore
from llmling.testing import FakeClock, ScriptedModel

PRICE = {"input_per_mtok": 100, "output_per_mtok": 1000}


# --- the limit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "answered"),
    [
        ({"usd_per_day": 0.05}, 5),
        ({"usd_per_month": 0.05}, 5),
        ({"tokens_per_day": 41}, 5),
        ({"tokens_per_month": 30}, 3),
        ({"requests_per_day": 4}, 4),
        ({"requests_per_month": 7, "usd_per_day": 100}, 7),
        ({"usd_per_day": 0.03, "mode": "audit"}, 12),
    ],
)
async def test_each_limit_bounds_what_is_spent(budget: dict[str, Any], answered: int) -> None:
    model = ScriptedModel(costing(0.01))
    agent = Agent("a", model=model, budget=budget)
    found = await outcomes(agent, 12)
    assert found.count("RunResult") == len(model.requests) == answered
    assert found.count("BudgetExceeded") == 12 - answered


async def test_the_message_names_the_key_the_place_and_the_end() -> None:
    clock = FakeClock(dt.datetime(2026, 2, 28, 22, tzinfo=dt.UTC))
    config = AgentConfig.model_validate({"budget": {"usd_per_day": 0.01, "tokens_per_month": 1000}})
    model = ScriptedModel(costing(0.02))
    agent = Agent[Any].from_config("clerk", config, Services(clock=clock), model=model)
    await agent.run("one")
    with pytest.raises(BudgetExceeded) as error:
        await agent.run("two")
    assert str(error.value) == (
        "the budget of agent 'clerk' is spent: 0.02 of 0.01 USD in 2026-02-28, which ends 2026-03-01 00:00 UTC; raise "
        "budget.usd_per_day of agent 'clerk'"
    )
    assert not error.value.retryable
    await clock.advance(2 * 3600)
    await agent.run("a new day")
    assert len(model.requests) == 2


async def test_what_began_yesterday_counts_for_yesterday() -> None:
    clock, gate = FakeClock(dt.datetime(2026, 2, 28, 23, tzinfo=dt.UTC)), asyncio.Event()
    config = AgentConfig.model_validate({"budget": {"usd_per_day": 0.01}})
    model = ScriptedModel([costing(0.05, gate=gate), costing(0.01), costing(0.01)])
    agent = Agent[Any].from_config("a", config, Services(clock=clock), model=model)
    late = asyncio.create_task(agent.run("late"))
    await until(lambda: model.requests, "the first request")
    await clock.advance(2 * 3600)
    await agent.run("today")
    gate.set()
    await late
    with pytest.raises(BudgetExceeded, match=r"spent: 0\.01 of 0\.01 USD in 2026-03-01"):
        await agent.run("too much today")


async def test_requests_wait_for_those_under_way_before_any_is_refused() -> None:
    # Nothing is known of a first call, so it goes alone; then each is taken for as large as the largest.
    gate = asyncio.Event()
    model = ScriptedModel(costing(0.01, gate=gate))
    agent = Agent("a", model=model, budget={"usd_per_day": 0.035})
    runs = asyncio.create_task(outcomes(agent, 10))
    await until(lambda: model.requests, "the first request")
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(model.requests) == 1
    gate.set()
    found = await runs
    assert found.count("RunResult") == len(model.requests) == 4


async def test_what_the_first_answer_teaches_lets_all_who_waited_go_at_once() -> None:
    first, others = asyncio.Event(), asyncio.Event()

    async def answer(request: ModelRequest) -> ModelResponse:
        await (first if len(model.requests) == 1 else others).wait()
        return ModelResponse(Message.assistant("ok"), Usage(10, 0, 1), "m", cost_usd=0.01)

    model = ScriptedModel(answer)
    agent = Agent("a", model=model, budget={"usd_per_day": 100})
    runs = asyncio.create_task(outcomes(agent, 20))
    await until(lambda: model.requests, "the first request")
    first.set()
    await until(lambda: len(model.requests) == 20, "all of them in flight")
    others.set()
    assert await runs == ["RunResult"] * 20


async def test_calls_of_known_size_go_at_once_and_never_reach_beyond_the_limit_by_more_than_one() -> None:
    def answer(request: Request) -> Reply:
        return Reply("x", delay_s=0.02, input_tokens=10, output_tokens=1 + len(server.requests) % 10)

    async with LLMServer(answer) as server:
        model = priced(server, price=PRICE)
        agent = Agent("a", model=model, model_settings={"max_tokens": 10}, budget={"usd_per_day": 0.1})
        found = await outcomes(agent, 60)
    served = found.count("RunResult")
    assert len(server.requests) == served
    most = 10 * PRICE["input_per_mtok"] / 1e6 + 10 * PRICE["output_per_mtok"] / 1e6
    spent = sum(10 * 100 + (1 + n % 10) * 1000 for n in range(1, served + 1)) / 1e6
    assert 0.1 <= spent <= 0.1 + most


@pytest.mark.parametrize("longest", [20, 10_000, 130_000])
async def test_answers_that_grow_do_not_go_over_the_limit_by_more_than_one(longest: int) -> None:
    sent: list[int] = []

    def answer(request: Request) -> Reply:
        sent.append(longest if len(sent) > 2 else 1)
        return Reply("x", delay_s=0.02, input_tokens=1, output_tokens=sent[-1])

    async with LLMServer(answer) as server:
        model = priced(server, price={"input_per_mtok": 0, "output_per_mtok": 0.02 / longest * 1e6})
        found = await outcomes(Agent("a", model=model, budget={"usd_per_day": 0.1}), 60)
    assert found.count("RunResult") == len(sent)
    assert 0.1 <= sum(sent) * 0.02 / longest <= 0.1 + 0.021


async def test_as_many_go_at_once_as_there_is_room_for_the_longest_answers() -> None:
    class Known(ScriptedModel):
        async def price(self) -> Price:
            return Price(input_per_mtok=0, output_per_mtok=1000)

        async def most_output_tokens(self) -> int:
            return 10

    gate = asyncio.Event()
    model = Known(costing(0.001, gate=gate))
    agent = Agent("a", model=model, budget={"usd_per_day": 0.095})
    runs = asyncio.create_task(outcomes(agent, 20))
    # Nine times 0.01 fit, and one more may go over.
    await until(lambda: len(model.requests) == 10, "ten in flight")
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(model.requests) == 10
    gate.set()
    assert await runs == ["RunResult"] * 20


async def test_many_wait_and_all_are_served_when_there_is_room() -> None:
    model = ScriptedModel(costing(0.001))
    agent = Agent("a", model=model, budget={"usd_per_day": 10})
    assert await outcomes(agent, 500) == ["RunResult"] * 500


async def test_cancelling_one_that_waits_leaves_the_others_their_turn() -> None:
    gate = asyncio.Event()
    model = ScriptedModel(costing(0.01, gate=gate))
    agent = Agent("a", model=model, budget={"usd_per_day": 1})
    first = asyncio.create_task(agent.run("first"))
    await until(lambda: model.requests, "the first request")
    waiting = [asyncio.create_task(agent.run(f"{n}")) for n in range(4)]
    for _ in range(50):
        await asyncio.sleep(0)
    waiting[0].cancel()
    gate.set()
    waiting[1].cancel()
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["RunResult", "CancelledError", "CancelledError"] + [
        "RunResult"
    ] * 2


# --- what counts -----------------------------------------------------------------------------------------------------


async def test_a_refused_try_costs_nothing_and_is_a_request() -> None:
    async with LLMServer() as server:
        server.replies += [Reply(status=500), Reply("ok", input_tokens=10, output_tokens=10)]
        retries = {"attempts": 2, "backoff_s": 0}
        agent = Agent("a", model=priced(server, price=PRICE), retries=retries, budget={"requests_per_day": 3})
        await agent.run("hello")
        await agent.run("again")
        with pytest.raises(BudgetExceeded, match="3 of 3 requests"):
            await agent.run("over")
        money = Agent("b", model=priced(server, price=PRICE), retries=retries, budget={"usd_per_day": 0.011})
        server.replies += [Reply(status=429), Reply("ok", input_tokens=1, output_tokens=1)]
        await money.run("hello")
        server.replies += [Reply(status=400)]
        with pytest.raises(ModelError):
            await money.run("hello")
        assert (await money.run("fits")).content == "echo: fits"


async def test_an_answer_that_is_cut_off_counts_as_reserved() -> None:
    async with LLMServer() as server:
        model = priced(server, price={"input_per_mtok": 0, "output_per_mtok": 1000})
        settings = {"max_tokens": 10}
        agent = Agent("a", model=model, model_settings=settings, retries={"attempts": 1}, budget={"usd_per_day": 0.015})
        server.replies += [Reply("half of an answer", cut=True)]
        with pytest.raises(ModelError):
            await agent.run("hello")
        server.replies += [Reply(hang=True)]
        run = asyncio.create_task(agent.run("hello"))
        await server.wait_for_requests(2, 60)
        run.cancel()
        await asyncio.wait({run})
        with pytest.raises(BudgetExceeded, match=r"0\.02 of 0\.015 USD"):
            await agent.run("hello")


async def test_a_first_answer_that_is_cut_off_counts_as_a_long_one() -> None:
    async with LLMServer() as server:
        model = priced(server, price={"input_per_mtok": 0, "output_per_mtok": 1000})
        agent = Agent("a", model=model, retries={"attempts": 1}, budget={"usd_per_day": 4})
        server.replies += [Reply("half of an answer", cut=True)]
        with pytest.raises(ModelError):
            await agent.run("hello")
        with pytest.raises(BudgetExceeded, match=r"4\.096 of 4 USD"):
            await agent.run("hello")


async def test_a_cancellation_while_it_is_reserved_gives_it_back(tmp_path: Path) -> None:
    class Slow(MemoryStore):
        entered = asyncio.Event()
        may_go = asyncio.Event()

        async def add(self, *args: Any, **more: Any) -> tuple[bool, dict[str, float]]:
            self.entered.set()
            await self.may_go.wait()
            return await super().add(*args, **more)

    store = Slow()
    budget = agent_budget("a", BudgetConfig(requests_per_day=1))
    bounds = Bounds(FakeClock(), budgets=[budget], store=store)
    await bounds.open()
    gate = bounds.gate("a")
    assert gate is not None
    entry = gate.entry(ScriptedModel([]), ModelRequest((Message.user("x"),)), Event("test", "test"))
    opening = asyncio.create_task(entry.open())
    await store.entered.wait()
    opening.cancel()
    store.may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    # The one request of the day is still there.
    await gate.entry(ScriptedModel([]), ModelRequest((Message.user("x"),)), Event("test", "test")).open()
    assert list((await store.items("budget")).values()) == [1]


async def test_a_server_that_is_not_there_costs_nothing() -> None:
    model = {"type": "litellm", "name": "openai/mine", "api_base": "http://127.0.0.1:9/v1", "price": PRICE}
    agent = Agent("a", model=model, retries={"attempts": 1}, budget={"requests_per_day": 1, "tokens_per_day": 1})
    for _ in range(3):
        with pytest.raises(ModelError):
            await agent.run("hello")


async def test_a_stream_counts_like_a_run() -> None:
    async with LLMServer(lambda request: Reply("one two three", input_tokens=5, output_tokens=5)) as server:
        agent = Agent("a", model=priced(server, price=PRICE), budget={"tokens_per_day": 20})
        for _ in range(2):
            async with agent.run_stream("hello") as stream:
                assert [event.type async for event in stream][-1] == "run_completed"
        assert await outcomes(agent, 1) == ["BudgetExceeded"]
    assert len(server.requests) == 2


async def test_an_answer_without_usage_is_estimated() -> None:
    def answer(request: Request) -> Reply:
        return Reply("word " * 100, input_tokens=0, output_tokens=0)

    async with LLMServer(answer) as server:
        agent = Agent("a", model=priced(server, price=PRICE), budget={"usd_per_day": 0.1, "tokens_per_month": 10_000})
        await agent.run("hello")
        with pytest.raises(BudgetExceeded):
            await agent.run("hello")


async def test_every_model_of_a_chain_counts() -> None:
    async with LLMServer() as server:
        server.replies += [Reply(status=500), Reply("ok", input_tokens=10, output_tokens=10)]
        chain = {
            "type": "fallback",
            "models": [priced(server, price=PRICE), priced(server, price=PRICE, name="openai/b")],
        }
        agent = Agent("a", model=chain, retries={"attempts": 1}, budget={"requests_per_day": 2})
        await agent.run("hello")
        with pytest.raises(BudgetExceeded):
            await agent.run("hello")
    assert [request.body["model"] for request in server.requests] == ["mine", "b"]


async def test_what_replays_or_is_answered_by_a_hook_costs_nothing() -> None:
    class Answering:
        def before_model(self, request: ModelRequest, run: Any) -> str:
            return "from the hook"

    agent = Agent("a", model=ScriptedModel(costing(1)), hooks=[Answering()], budget={"requests_per_day": 1})
    assert [(await agent.run("hello")).content for _ in range(3)] == ["from the hook"] * 3
