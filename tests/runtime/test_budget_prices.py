"""Budgets in money: prices that are known, free, or known to nobody; and budgets that only tell."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Any

import pytest
from llm_server import LLMServer, Reply
from priced_models import costing, outcomes, priced

from llmling import Agent
from llmling.errors import BudgetExceeded
from llmling.manifest.agents import AgentConfig
from llmling.messages import Message, Usage
from llmling.protocols import ModelResponse
from llmling.runtime.services import Services
from llmling.testing import FakeClock, ScriptedModel

PRICE = {"input_per_mtok": 100, "output_per_mtok": 1000}


@pytest.mark.parametrize("model", ["demo", "script"])
async def test_models_that_ask_nobody_are_free(model: str, tmp_path: Path) -> None:
    (tmp_path / "script.yml").write_text("- {reply: hello, usage: {input_tokens: 1000000, output_tokens: 1000000}}\n")
    name: Any = model if model == "demo" else {"type": "script", "path": str(tmp_path / "script.yml")}
    agent = Agent("a", model=name, budget={"usd_per_day": 0.001})
    assert await outcomes(agent, 5) == ["RunResult"] * 5


async def test_a_person_who_answers_is_no_provider() -> None:
    agent = Agent("boss", model="human", ask=lambda question, run: "yes", budget={"requests_per_day": 1})
    assert await outcomes(agent, 3) == ["RunResult"] * 3


async def test_local_models_are_free_and_known_ones_have_their_price(monkeypatch: pytest.MonkeyPatch) -> None:
    async with LLMServer(lambda request: Reply("x", input_tokens=100_000, output_tokens=100_000)) as server:
        monkeypatch.setenv("OLLAMA_API_BASE", server.url)
        local = Agent("a", model="ollama/llama3.2", budget={"usd_per_day": 0.001})
        assert await outcomes(local, 3) == ["RunResult"] * 3
        known = priced(server, name="openai/gpt-4o-mini")
        agent = Agent("b", model=known, budget={"usd_per_day": 0.05})
        result = await agent.run("hello")
        assert result.cost_usd == pytest.approx(0.075)
        with pytest.raises(BudgetExceeded, match=r"0\.075 of 0\.05 USD"):
            await agent.run("hello")


async def test_a_price_nobody_knows_is_an_error_that_names_the_key(caplog: pytest.LogCaptureFixture) -> None:
    async with LLMServer() as server:
        agent = Agent("a", model=priced(server), budget={"usd_per_day": 1})
        with pytest.raises(
            BudgetExceeded, match=r"the price of model 'openai/mine' is not known.*price: \{input_per_m"
        ):
            await agent.run("hello")
        assert not server.requests
        audited = Agent("b", model=priced(server), budget={"usd_per_day": 1, "mode": "audit"})
        for _ in range(2):
            await audited.run("hello")
        assert [record.message.partition(":")[0] for record in caplog.records] == ["agent 'b'"]
        tokens = Agent("c", model=priced(server), budget={"tokens_per_day": 100})
        await tokens.run("hello")


async def test_a_model_object_that_says_no_cost_is_asked_once() -> None:
    silent = ScriptedModel(lambda request: ModelResponse(Message.assistant("ok"), Usage(1, 1, 1), "m"))
    agent = Agent("a", model=silent, budget={"usd_per_day": 1})
    await agent.run("hello")
    with pytest.raises(BudgetExceeded, match="price of model 'scripted' is not known"):
        await agent.run("hello")


# --- audit -----------------------------------------------------------------------------------------------------------


async def test_audit_warns_once_in_a_period(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock(dt.datetime(2026, 12, 31, 12, tzinfo=dt.UTC))
    config = AgentConfig.model_validate({"budget": {"usd_per_month": 0.01, "mode": "audit"}})
    agent = Agent[Any].from_config("a", config, Services(clock=clock), model=ScriptedModel(costing(0.01)))
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            await agent.run("hello")
        (record,) = caplog.records
        assert record.message == (
            "the budget of agent 'a' is spent: 0.01 of 0.01 USD in 2026-12, which ends 2027-01-01 00:00 UTC; raise "
            "budget.usd_per_month of agent 'a'; mode is audit, so it goes on"
        )
        await clock.advance(24 * 3600)
        for _ in range(3):
            await agent.run("hello")
    assert len(caplog.records) == 2
