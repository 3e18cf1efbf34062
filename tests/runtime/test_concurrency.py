"""Many runs at once: how many are in flight, what bounds them, and what they leave alone."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import anyio
import anyio.to_thread
import pytest
from llm_server import LLMServer, Reply
from serving import until

from llmling import Agent, AgentPool
from llmling.errors import ModelError, SyncInAsyncError
from llmling.manifest.agents import AgentConfig
from llmling.manifest.budgets import BudgetConfig
from llmling.messages import Message, ToolCallPart
from llmling.protocols import ModelRequest
from llmling.runtime.batch import Progress
from llmling.runtime.clock import SYSTEM_CLOCK
from llmling.runtime.gate import Bounds, agent_budget
from llmling.runtime.services import Services
from llmling.runtime.shares import Limits
from llmling.runtime.threads import LIMIT
from llmling.testing import FakeClock, ScriptedModel

LARGE = BudgetConfig(requests_per_day=1_000_000)


def served(server: LLMServer, name: str = "openai/mine", **more: Any) -> dict[str, Any]:
    return {"type": "litellm", "name": name, "api_base": server.openai_url, "api_key": "k", **more}


class Crowd:
    """Answers when it is let, and knows how many have been inside at once, by agent."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.asked = 0
        self.open = asyncio.Event()

    def of(self, name: str) -> ScriptedModel:
        async def answer(request: ModelRequest) -> str:
            self.asked += 1
            self.inside.update([name, "all"])
            self.most |= self.inside
            try:
                await self.open.wait()
                await asyncio.sleep(0)
            finally:
                self.inside.subtract([name, "all"])
            return "ok"

        return ScriptedModel(answer, name=name)


# --- in flight -------------------------------------------------------------------------------------------------------


async def test_two_hundred_runs_are_in_flight_at_once() -> None:
    gate = asyncio.Event()
    async with LLMServer(lambda request: Reply("ok", gate=gate)) as server:
        agent = Agent("a", model=served(server), budget={"requests_per_day": 1000})
        batch = asyncio.create_task(agent.run_many(["hello"] * 200))
        # None has been answered, so all that have arrived are in flight.
        await server.wait_for_requests(200, 60)
        gate.set()
        assert len(await batch) == 200


async def test_blocking_tools_of_many_runs_leave_the_hosts_threads_alone() -> None:
    release, started = threading.Event(), list[int]()

    def block(number: int) -> str:
        """Wait."""
        started.append(number)
        assert release.wait(60)
        return str(number)

    def answer(request: ModelRequest) -> Any:
        if request.messages[-1].role == "tool":
            return "done"
        return Message("assistant", (ToolCallPart("c", "block", {"number": 1}),))

    agent = Agent("a", model=ScriptedModel(answer), tools=[block])
    batch = asyncio.create_task(agent.run_many(["hello"] * 128))
    try:
        # All threads for tools are taken and wait for us; the loop and its own threads are free.
        await until(lambda: len(started) == LIMIT, "a full house")
        assert await asyncio.to_thread(lambda: "free") == "free"
        assert len(started) == LIMIT
    finally:
        release.set()
    assert [result.content for result in await batch] == ["done"] * 128


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_a_model_bounds_all_agents_that_name_it() -> None:
    gate = asyncio.Event()
    async with LLMServer(lambda request: Reply("ok", gate=gate)) as server:
        shared = served(server, concurrency=3)
        manifest = {
            "engine": {"type": "memory"},
            "agents": {
                "a": {"model": shared},
                "b": {"model": served(server)},
                "c": {"model": {"type": "fallback", "models": [served(server)]}},
                "other": {"model": served(server, "openai/other")},
            },
        }
        async with AgentPool[None](manifest) as pool:
            batches = [asyncio.create_task(pool.get_agent(name).run_many(["x"] * 5)) for name in pool.agents]
            await server.wait_for_requests(8, 60)
            for _ in range(100):
                await asyncio.sleep(0)
            assert Counter(request.body["model"] for request in server.requests) == {"mine": 3, "other": 5}
            gate.set()
            await asyncio.gather(*batches)
    assert len(server.requests) == 20


async def test_a_pool_bounds_all_its_agents_and_serves_them_in_their_order() -> None:
    crowd = Crowd()
    manifest: dict[str, Any] = {
        "engine": {"type": "memory"},
        "limits": {"requests_at_once": 4},
        "agents": {"a": {}, "b": {}},
    }
    agents = {name: Agent(name, model=crowd.of(name)) for name in ("a", "b")}
    async with AgentPool[None](manifest, agents=agents) as pool:
        batches = [asyncio.create_task(pool.get_agent(name).run_many(["x"] * 300)) for name in ("a", "b")]
        await until(lambda: crowd.inside["all"] == 4, "four in flight")
        crowd.open.set()
        await asyncio.gather(*batches)
    assert crowd.most["all"] == 4
    assert crowd.asked == 600


async def test_those_who_wait_for_several_limits_do_not_send_one_another_away() -> None:
    crowd = Crowd()
    crowd.open.set()
    limits = {"one": Limits(at_once=2), "two": Limits(at_once=3)}
    bounds = Bounds(SYSTEM_CLOCK, pool=Limits(at_once=4), models=limits, budgets=[agent_budget("a", LARGE)])
    agents = [Agent("a", model=crowd.of(name)) for name in ("one", "two", "two", "free")]
    for agent in agents:
        agent.share(bounds)
    results = await asyncio.gather(*(agent.run_many(["x"] * 100) for agent in agents))
    assert sum(len(batch) for batch in results) == crowd.asked == 400
    assert crowd.most["one"] <= 2
    assert crowd.most["two"] <= 3
    assert crowd.most["all"] <= 4


async def test_cancelling_those_who_wait_costs_nobody_a_turn() -> None:
    crowd = Crowd()
    manifest: dict[str, Any] = {"engine": {"type": "memory"}, "limits": {"requests_at_once": 1}, "agents": {"a": {}}}
    async with AgentPool[None](manifest, agents={"a": Agent("a", model=crowd.of("a"))}) as pool:
        runs = [asyncio.create_task(pool.get_agent("a").run("x")) for _ in range(6)]
        await until(lambda: crowd.asked == 1, "the first request")
        for number in (1, 3):
            runs[number].cancel()
        crowd.open.set()
        # The next one is cancelled in the very moment it gets its turn.
        await until(runs[0].done, "the first answer")
        runs[2].cancel()
        outcomes = await asyncio.gather(*runs, return_exceptions=True)
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds[1] == kinds[3] == "CancelledError"
    assert kinds[4:] == ["RunResult"] * 2


@pytest.mark.parametrize("at", ["agent", "model", "pool"])
async def test_so_many_requests_a_minute(at: str) -> None:
    clock = FakeClock()
    model = ScriptedModel(lambda request: "ok")
    if at == "agent":
        config = AgentConfig.model_validate({"limits": {"requests_per_minute": 2}})
        agent = Agent[Any].from_config("a", config, Services(clock=clock), model=model)
    else:
        limits = Limits(per_minute=2)
        bounds = Bounds(clock, pool=limits) if at == "pool" else Bounds(clock, models={"scripted": limits})
        agent = Agent[Any].from_config("a", AgentConfig(), Services(clock=clock, bounds=bounds), model=model)
    batch = asyncio.create_task(agent.run_many(["x"] * 5))
    for expected in (2, 4, 5):
        await until(lambda expected=expected: len(model.requests) == expected, f"{expected} requests")
        await clock.advance(59)
        assert len(model.requests) == expected
        await clock.advance(1)
    assert len(await batch) == 5


async def test_a_try_counts_like_a_request() -> None:
    clock = FakeClock()
    model = ScriptedModel([ModelError("busy", status=429, retryable=True), "ok", "ok"])
    config = AgentConfig.model_validate({"limits": {"requests_per_minute": 2}, "retries": {"backoff_s": 0}})
    agent = Agent[Any].from_config("a", config, Services(clock=clock), model=model)
    await agent.run("x")
    second = asyncio.create_task(agent.run("x"))
    await clock.asleep()
    assert len(model.requests) == 2
    await clock.advance(60)
    await second


async def test_runs_on_threads_and_loops_of_their_own_share_the_places() -> None:
    inside = most = 0
    together = threading.Barrier(2)

    async def answer(request: ModelRequest) -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        # Each waits for another one inside: with one place none would ever leave.
        await asyncio.to_thread(together.wait, 30)
        inside -= 1
        return "ok"

    agent = Agent("a", model=ScriptedModel(answer))
    agent.share(Bounds(SYSTEM_CLOCK, pool=Limits(at_once=2)))
    results = await asyncio.gather(*(asyncio.to_thread(agent.run_sync, "x") for _ in range(20)))
    assert len(results) == 20
    assert most == 2


# --- batches ---------------------------------------------------------------------------------------------------------


async def test_a_batch_tells_how_far_it_has_come() -> None:
    async with LLMServer() as server:
        server.replies += [Reply("one", input_tokens=10, output_tokens=10), Reply(status=400), Reply("three")]
        model = served(server, price={"input_per_mtok": 50, "output_per_mtok": 50})
        agent = Agent("a", model=model)
        heard: list[Progress] = []
        outcomes = await agent.run_many(
            ["1", "2", "3"], max_concurrency=1, return_exceptions=True, on_progress=heard.append
        )
    assert [type(outcome).__name__ for outcome in outcomes] == ["RunResult", "ModelError", "RunResult"]
    assert [(each.done, each.failed, each.total) for each in heard] == [(1, 0, 3), (1, 1, 3), (2, 1, 3)]
    assert [each.cost_usd for each in heard] == pytest.approx([0.001, 0.001, 0.0019])
    assert 0 <= heard[0].elapsed_s <= heard[2].elapsed_s
    with pytest.raises(AttributeError):
        heard[0].done = 7  # type: ignore[misc]


async def test_a_listener_that_fails_ends_the_batch() -> None:
    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    crowd = Crowd()
    crowd.open.set()
    with pytest.raises(ZeroDivisionError):
        await Agent("a", model=crowd.of("a")).run_many(["x"] * 5, max_concurrency=1, on_progress=fail)
    assert crowd.asked <= 2
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "llmling batch"]


async def test_cancelling_a_batch_hangs_up_and_leaves_no_task() -> None:
    async with LLMServer(lambda request: Reply(hang=True)) as server:
        agent = Agent("a", model=served(server))
        before = asyncio.all_tasks()
        batch = asyncio.create_task(agent.run_many(["x"] * 5, max_concurrency=3))
        await server.wait_for_requests(3, 60)
        batch.cancel()
        await asyncio.wait({batch})
        assert batch.cancelled()
        async with asyncio.timeout(30):
            for request in server.requests:
                await request.hung_up.wait()
        assert len(server.requests) == 3
        left = {task for task in asyncio.all_tasks() - before if "llmling" in task.get_name()}
        assert not left


# --- the sync face ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opened", [False, True])
def test_run_sync_works_on_threads_of_either_runner(opened: bool) -> None:
    agent = Agent("a", model=ScriptedModel(lambda request: "ok"))

    async def story() -> list[str]:
        if opened:
            await agent.open()
        first = await asyncio.to_thread(agent.run_sync, "x")
        second = await anyio.to_thread.run_sync(agent.run_sync, "x")
        if opened:
            await agent.aclose()
        return [first.response, second.response]

    assert agent.run_sync("x").response == "ok"
    assert asyncio.run(story()) == ["ok", "ok"]
    assert anyio.run(story) == ["ok", "ok"]


async def test_the_guard_of_run_sync_names_the_line_that_called() -> None:
    agent = Agent("a", model=ScriptedModel([]))
    with pytest.raises(SyncInAsyncError) as error:
        agent.run_sync("x")
    line = error.traceback[0].lineno + 1
    assert f"{__file__}:{line}; write `await agent.run" in str(error.value)


async def test_a_run_that_never_got_its_turn_is_no_slow_run() -> None:
    model = ScriptedModel(["fine", "fine"])
    agent = Agent("a", model=model, limits={"requests_per_minute": 1, "timeout_s": 0.3})
    await agent.run("first")
    with pytest.raises(ModelError, match=r"no turn before the run's time was over.*raise that limit") as caught:
        await agent.run("second")
    # An event is tried again for it, and no request was made.
    assert (caught.value.retryable, caught.value.attempts, len(model.requests)) == (True, 0, 1)


async def test_a_run_that_is_cut_off_while_it_waits_for_its_turn_says_that() -> None:
    # By this clock the time for its requests is never over, so it is the limit of the whole run that ends it.
    clock, model = FakeClock(), ScriptedModel(["fine", "fine"])
    config = AgentConfig.model_validate({"limits": {"requests_per_minute": 1, "timeout_s": 0.3}})
    agent = Agent[Any].from_config("a", config, Services(clock=clock), model=model)
    await agent.run("first")
    with pytest.raises(ModelError, match=r"no turn before the run's time was over.*raise that limit") as caught:
        await agent.run("second")
    assert (caught.value.retryable, caught.value.attempts, len(model.requests)) == (True, 0, 1)
