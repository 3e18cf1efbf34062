"""Agents that ask agents: told in the stream, with a history of their own, and paid for by whoever asked."""

from __future__ import annotations

from typing import Any

import pytest
from team_world import KeptJournal, asks, echo, paid, surroundings

from llmling import Agent, Message, Team
from llmling.errors import LimitExceeded, ModelError
from llmling.manifest.tools import AgentToolConfig
from llmling.messages import Usage
from llmling.runtime.node import Node
from llmling.runtime.services import Services
from llmling.testing import ScriptedModel
from llmling.tools.agent import AgentTool
from llmling.wiring import Graph


def asker(replies: list[Any], *asked: Node, name: str = "lead", **options: Any) -> tuple[Agent, ScriptedModel]:
    """Return an agent that may ask others, as a pool builds it, and its model."""
    graph = Graph({node.name: node for node in asked})
    model = ScriptedModel(replies)
    tools = [AgentTool(AgentToolConfig(name=node.name), Services(ask=graph.ask)) for node in asked]
    return Agent(name, model=model, tools=tools, **options), model


async def test_asking_is_told_in_the_stream_and_the_other_ones_events_are_not() -> None:
    lead, _ = asker([asks("ask_helper", prompt="how?"), paid("so")], echo("helper"))
    async with lead.run_stream("x") as stream:
        heard = [event async for event in stream]
    assert [(event.type, event.agent) for event in heard] == [
        ("run_started", "lead"),
        ("model_request", "lead"),
        ("tool_called", "lead"),
        ("handoff", "lead"),
        ("tool_result", "lead"),
        ("model_request", "lead"),
        ("text_delta", "lead"),
        ("run_completed", "lead"),
    ]
    told = heard[3].to_dict()
    assert (told["message"], told["to"], told["tool"], told["call_id"]) == (
        "lead >> helper",
        "helper",
        "ask_helper",
        "c1",
    )


async def test_a_call_that_a_hook_forbids_or_answers_is_no_handoff() -> None:
    class Instead:
        def before_tool(self, call: object, run: object) -> str:
            return "no need"

    lead, _ = asker([asks("ask_helper", prompt="how?"), paid("so")], echo("helper"), hooks=[Instead()])
    async with lead.run_stream("x") as stream:
        types = [event.type async for event in stream]
    assert "tool_result" in types
    assert "handoff" not in types


async def test_the_other_agent_has_a_history_of_its_own() -> None:
    model = ScriptedModel([paid("fine"), paid("fine")])
    lead, _ = asker([paid("hello"), asks("ask_helper", prompt="how?"), paid("so")], Agent("helper", model=model))
    chat = lead.session("s")
    await chat.run("I am Ada.")
    await chat.run("Ask.")
    assert [message.text for message in model.requests[0].messages] == ["how?"]


async def test_what_was_asked_counts_for_the_run_that_asked() -> None:
    inner, _ = asker([asks("ask_leaf", prompt="b"), paid("middle")], echo("leaf"), name="inner")
    lead, _ = asker([asks("ask_inner", prompt="a"), paid("top")], inner)
    result = await lead.run("x")
    assert result.content == "top"
    # Two requests of each of the two that ask, and one of the leaf.
    assert result.usage == Usage(50, 0, requests=5, tool_calls=2)
    assert result.cost_usd == pytest.approx(0.05)


async def test_a_team_that_was_asked_counts_too_and_so_does_what_failed() -> None:
    def broken() -> Agent:
        return Agent("broken", model=ScriptedModel([asks("none"), ModelError("gone", status=404)]))

    team = Team([echo("a"), broken()], name="both")
    lead, model = asker([asks("ask_both", prompt="a"), paid("top")], team)
    result = await lead.run("x")
    assert "(failed: gone)" in str(model.requests[1].messages[-1].parts[0])
    assert result.usage == Usage(40, 0, requests=4, tool_calls=2)
    lead, _ = asker([asks("ask_broken", prompt="a"), paid("top")], broken())
    assert (await lead.run("x")).usage == Usage(30, 0, requests=3, tool_calls=2)


async def test_it_counts_for_the_limits_of_the_run_that_asked_but_tool_calls_do_not() -> None:
    def lead(**limits: float) -> tuple[Agent, ScriptedModel]:
        inner, _ = asker([asks("ask_leaf", prompt="b"), paid("middle")], echo("leaf"), name="inner")
        return asker([asks("ask_inner", prompt="a"), paid("top")], inner, limits=limits)

    agent, model = lead(total_tokens=30)
    with pytest.raises(LimitExceeded, match=r"run of agent 'lead' used 40 tokens, allowed are 30"):
        await agent.run("x")
    # It ends before the next request is paid for.
    assert len(model.requests) == 1
    agent, _ = lead(cost_usd=0.035)
    with pytest.raises(LimitExceeded, match=r"run of agent 'lead' cost 0.0400 USD"):
        await agent.run("x")
    agent, _ = lead(tool_calls=1)
    assert (await agent.run("x")).usage.tool_calls == 2


async def test_after_a_restart_the_result_counts_it_and_the_meter_does_not() -> None:
    journal = KeptJournal()
    lead, _ = asker([asks("ask_helper", prompt="how?"), ModelError("gone", status=404)], echo("helper"))
    first = surroundings(journal)
    with pytest.raises(ModelError):
        await lead.answer(Message.user("x"), first)
    assert (first.meter.usage.requests, first.meter.cost_usd) == (2, 0.02)
    lead, _ = asker([paid("done")], echo("helper"))
    second = surroundings(journal)
    result = await lead.answer(Message.user("x"), second)
    assert (result.usage, result.cost_usd) == (Usage(30, 0, requests=3, tool_calls=1), pytest.approx(0.03))
    assert (second.meter.usage.requests, second.meter.cost_usd) == (1, 0.01)
    assert second.spent.usage == result.usage


async def test_a_question_cut_off_in_the_middle_is_counted_once() -> None:
    journal = KeptJournal()
    leaf = Agent("leaf", model=ScriptedModel([paid("x"), ModelError("gone", status=404)]))
    inner, _ = asker([asks("ask_leaf", prompt="b"), ModelError("gone", status=404)], leaf, name="inner")
    lead, _ = asker([asks("ask_inner", prompt="a")], inner, limits={"max_iterations": 1})
    with pytest.raises(LimitExceeded):
        await lead.answer(Message.user("x"), surroundings(journal))
    # As if the process had died while the question was under way: its result was not recorded.
    del journal.steps["0.0:result"]
    inner, model = asker([paid("middle")], leaf, name="inner")
    lead, _ = asker([paid("top")], inner)
    context = surroundings(journal)
    result = await lead.answer(Message.user("x"), context)
    assert len(model.requests) == 1
    assert result.usage.requests == 5
    assert context.meter.usage.requests == 2
