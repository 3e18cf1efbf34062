"""Budgets of a pool: whom they count, what the dead-letter list says, and what survives a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from llm_server import Call, LLMServer, Reply, Request
from serving import free_port, post
from stage import Stage

from llmling import Agent, AgentPool, Manifest
from llmling.errors import BudgetExceeded, EngineError
from llmling.events import Event
from llmling.messages import Message, Usage
from llmling.planning import plan
from llmling.protocols import ModelRequest, ModelResponse
from llmling.testing import ScriptedModel

HOOK = Event("hook", "dev.llmling.webhook")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def costs_a_cent(request: ModelRequest) -> ModelResponse:
    return ModelResponse(Message.assistant("ok"), Usage(10, 0, 1), "m", cost_usd=0.01)


async def test_pool_agent_and_trigger_each_have_theirs() -> None:
    manifest = {
        "engine": {"type": "memory"},
        "budget": {"requests_per_day": 9},
        "agents": {
            "a": {"triggers": [{"type": "webhook", "name": "hook", "budget": {"requests_per_day": 4}}]},
            "b": {"budget": {"requests_per_day": 3}},
        },
    }
    agents = {name: Agent(name, model=ScriptedModel(costs_a_cent)) for name in ("a", "b")}
    async with AgentPool[None](manifest, agents=agents, triggers=False) as pool:
        a, b = pool.get_agent("a"), pool.get_agent("b")
        for _ in range(2):
            await a.run("x", event=HOOK)
            await b.run("x", event=HOOK)
        with pytest.raises(BudgetExceeded, match="budget of trigger 'hook' is spent: 4 of 4 requests"):
            await b.run("x", event=HOOK)
        await b.run("x")
        with pytest.raises(BudgetExceeded, match="budget of agent 'b' is spent: 3 of 3 requests"):
            await b.run("x")
        for _ in range(4):
            await a.run("x")
        with pytest.raises(BudgetExceeded, match="budget of the pool is spent: 9 of 9 requests"):
            await a.run("x")
        found = {(each.name, each.labels.get("budget")): each.value for each in pool.metrics()}
        assert not pool.ready()
    assert found["llmling_budget_spent", "the pool"] == 9
    assert found["llmling_budget_limit", "agent 'b'"] == 3
    assert found["llmling_budget_over_total", "trigger 'hook'"] == 1


async def test_agents_as_tools_and_members_count_for_the_event_and_for_themselves() -> None:
    def answer(request: Request) -> Reply:
        if request.body["model"] == "boss" and request.body["messages"][-1]["role"] != "tool":
            return Reply(calls=[Call("ask_helper", {"prompt": "help"})])
        return Reply("done")

    async with LLMServer(answer) as server:

        def model(name: str) -> dict[str, Any]:
            return {"type": "litellm", "name": f"openai/{name}", "api_base": server.openai_url, "api_key": "k"}

        def asked(name: str) -> int:
            return sum(request.body["model"] == name for request in server.requests)

        manifest = {
            "engine": {"type": "memory"},
            "agents": {
                "boss": {
                    "model": model("boss"),
                    "tools": [{"type": "agent", "name": "helper"}],
                    "triggers": [{"type": "webhook", "name": "hook", "budget": {"requests_per_day": 6}}],
                },
                "helper": {"model": model("helper"), "budget": {"requests_per_day": 2}},
            },
            "teams": {"desk": {"members": ["boss", "helper"], "mode": "sequential"}},
        }
        async with AgentPool[None](manifest, triggers=False) as pool:
            await pool.get_team("desk").run("x", event=HOOK)
            assert (asked("boss"), asked("helper")) == (2, 2)
            # Its own budget is spent, and the model that asks for it reads so.
            await pool.get_agent("boss").run("x", event=HOOK)
            assert asked("helper") == 2
            assert "the budget of agent 'helper' is spent" in server.requests[-1].last_text
            with pytest.raises(BudgetExceeded, match="trigger 'hook' is spent: 6 of 6"):
                await pool.get_agent("boss").run("x", event=HOOK)
            await pool.get_agent("boss").run("x")


async def test_a_team_that_picks_counts_for_pool_and_trigger() -> None:
    def answer(request: Request) -> Reply:
        return Reply('{"member": "a"}' if request.body["model"] == "picker" else "done")

    async with LLMServer(answer) as server:
        model = {"type": "litellm", "name": "openai/picker", "api_base": server.openai_url, "api_key": "k"}
        manifest: dict[str, Any] = {
            "engine": {"type": "memory"},
            "agents": {"a": {"model": {**model, "name": "openai/a"}}, "b": {}},
            "teams": {
                "desk": {
                    "mode": "pick",
                    "members": ["a", "b"],
                    "model": model,
                    "triggers": [{"type": "webhook", "name": "hook", "budget": {"requests_per_day": 3}}],
                }
            },
        }
        async with AgentPool[None](manifest, triggers=False) as pool:
            await pool.get_team("desk").run("x", event=HOOK)
            with pytest.raises(BudgetExceeded, match="trigger 'hook' is spent: 3 of 3"):
                await pool.get_team("desk").run("x", event=HOOK)
    assert [request.body["model"] for request in server.requests] == ["picker", "a", "picker"]


MANIFEST = """
server: false
agents:
  clerk:
    budget: {usd_per_month: LIMIT}
    triggers:
      - {type: webhook, name: orders, port: PORT, prompt: "{{ event.data.order }}"}
"""


async def test_an_event_over_the_budget_is_dead_with_the_key_and_runs_once_that_is_raised(stage: Stage) -> None:
    async with stage.pool(MANIFEST.replace("LIMIT", "0.02"), clerk=costs_a_cent):
        for number in range(3):
            await stage.post({"order": f"o{number}"})
            await stage.settled(number + 1)
    *paid, dead = stage.done
    assert [record.status for record in paid] == ["done", "done"]
    assert dead.status == "dead"
    assert dead.attempts == 1
    assert dead.error is not None
    assert "the budget of agent 'clerk' is spent: 0.02 of 0.02 USD" in dead.error
    assert "raise budget.usd_per_month of agent 'clerk' (" in dead.error
    assert dead.error.endswith("agents.yml:5:14)")
    # What was spent is known to the next process too.
    async with stage.pool(MANIFEST.replace("LIMIT", "0.02"), clerk=costs_a_cent) as pool:
        await stage.post({"order": "o4"})
        assert (await stage.settled(4))[3].status == "dead"
        assert pool.engine is not None
    async with stage.pool(MANIFEST.replace("LIMIT", "0.03"), clerk=costs_a_cent) as pool:
        assert pool.engine is not None
        assert await pool.engine.retry(dead.id) == 1
        assert (await stage.settled(5))[4].status == "done"
        await stage.post({"order": "o5"})
        assert (await stage.settled(6))[5].status == "dead"


async def test_python_runs_of_a_pool_without_triggers_are_kept_too(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("budget: {requests_per_month: 3}\nagents: {a: {}}\n")
    for expected in (2, 1, 0):
        model = ScriptedModel(costs_a_cent)
        async with AgentPool[None](tmp_path / "agents.yml", agents={"a": Agent("a", model=model)}) as pool:
            await pool.get_agent("a").run_many(["x", "x"], return_exceptions=True)
        assert len(model.requests) == expected


async def test_two_processes_share_one_budget(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("budget: {requests_per_month: 10}\nagents: {a: {}}\n")
    models = [ScriptedModel(costs_a_cent), ScriptedModel(costs_a_cent)]
    pools = [AgentPool[None](tmp_path / "agents.yml", agents={"a": Agent("a", model=model)}) for model in models]
    async with pools[0], pools[1]:
        await asyncio.gather(*(pool.get_agent("a").run_many(["x"] * 9, return_exceptions=True) for pool in pools))
    assert sum(len(model.requests) for model in models) == 10


async def test_a_store_that_cannot_be_written_lets_no_request_out(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("budget: {usd_per_month: 10}\nagents: {a: {}}\n")
    model = ScriptedModel(costs_a_cent)
    async with AgentPool[None](tmp_path / "agents.yml", agents={"a": Agent("a", model=model)}) as pool:
        await pool.get_agent("a").run("x")
        hidden = (tmp_path / ".llmling").rename(tmp_path / "gone")
        with pytest.raises(EngineError, match="not writable"):
            await pool.get_agent("a").run("x")
        assert len(model.requests) == 1
        hidden.rename(tmp_path / ".llmling")
        await pool.get_agent("a").run("x")


def test_only_agents_that_may_work_on_its_events_are_told_of_a_triggers_budget(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text(
        "defaults: {model: openai/mine}\n"
        "agents:\n"
        "  a: {connections: [desk], triggers: [{type: webhook, budget: {usd_per_month: 1}}]}\n"
        "  member: {tools: [{type: agent, name: helper}]}\n"
        "  helper: {}\n"
        "  other: {}\n"
        "teams: {desk: {members: [member]}}\n"
    )
    warnings = plan(Manifest.load(tmp_path / "agents.yml"), {"OPENAI_API_KEY": "k"}).warnings
    assert [str(warning.message).partition(":")[0] for warning in warnings if warning.code == "LL503"] == [
        "agent 'a'",
        "agent 'member'",
        "agent 'helper'",
    ]


def test_plan_shows_budgets_and_warns_of_unknown_prices(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text(
        "budget: {usd_per_day: 5}\n"
        "agents:\n"
        "  known: {model: openai/gpt-4o-mini}\n"
        "  unknown: {model: openai/mine, budget: {tokens_per_month: 1000000, mode: audit}}\n"
        "  told: {model: {type: litellm, name: openai/mine, price: {input_per_mtok: 0, output_per_mtok: 0}}}\n"
        "  local: {model: ollama/anything}\n"
    )
    planned = plan(Manifest.load(tmp_path / "agents.yml"), {"OPENAI_API_KEY": "k"})
    assert json.loads(json.dumps(planned.to_dict()["budgets"])) == [
        {"owner": "the pool", "limits": {"usd_per_day": 5}, "mode": "enforce"},
        {"owner": "agent 'unknown'", "limits": {"tokens_per_month": 1000000}, "mode": "audit"},
    ]
    (warning,) = planned.warnings
    assert (warning.line, warning.column, warning.code) == (4, 13, "LL503")
    assert "the price of model 'openai/mine' is not known, so budget.usd_per_day of the pool" in warning.message


async def test_the_metrics_page_shows_what_is_spent(tmp_path: Path) -> None:
    port, server_port = free_port(), free_port()
    manifest = (
        f"server: {{port: {server_port}}}\nengine: {{type: memory}}\nbudget: {{tokens_per_day: 1000}}\n"
        f"agents: {{a: {{model: demo, triggers: [{{type: webhook, port: {port}, reply: result}}]}}}}\n"
    )
    (tmp_path / "agents.yml").write_text(manifest)
    async with AgentPool[None](tmp_path / "agents.yml"), aiohttp.ClientSession() as session:
        assert (await post(session, f"http://127.0.0.1:{port}/webhook", {"x": 1}))[0] == 200
        async with session.get(f"http://127.0.0.1:{server_port}/metrics") as response:
            lines = (await response.text()).splitlines()
    labels = 'budget="the pool",unit="tokens",period="day",mode="enforce"'
    assert f"llmling_budget_limit{{{labels}}} 1000" in lines
    (spent,) = [line for line in lines if line.startswith("llmling_budget_spent{")]
    assert float(spent.rpartition(" ")[2]) > 0
