"""Facts: kept once, found by their words, offered to the model when the manifest says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmling import Agent, AgentPool
from llmling.errors import StartupError
from llmling.messages import Message, ToolCallPart
from llmling.testing import ScriptedModel


def call(name: str, **arguments: object) -> Message:
    return Message("assistant", (ToolCallPart("c", name, arguments),))


async def test_two_facts_one_is_found_and_both_survive(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    async with Agent("a", model="demo", store=file) as agent:
        await agent.memory.remember("Ada Lovelace prefers mail over phone.")
        await agent.memory.remember("The office is closed on Fridays.")
        assert await agent.memory.recall("How does Ada prefer to be written to?") == [
            "Ada Lovelace prefers mail over phone."
        ]
    async with Agent("a", model="demo", store=file) as agent, Agent("b", model="demo", store=file) as other:
        assert await agent.memory.recall("offices") == ["The office is closed on Fridays."]
        assert await agent.memory.facts() == [
            "Ada Lovelace prefers mail over phone.",
            "The office is closed on Fridays.",
        ]
        assert await other.memory.facts() == []


async def test_the_same_fact_twice_is_one() -> None:
    memory = Agent("a", model="demo").memory
    await memory.remember("Ada likes tea.")
    await memory.remember("Bob likes coffee.")
    await memory.remember("  ada likes\n TEA. ")
    assert await memory.facts() == ["Ada likes tea.", "Bob likes coffee."]
    await memory.forget("ADA likes tea.")
    await memory.forget("what was never known")
    assert await memory.facts() == ["Bob likes coffee."]
    await memory.clear()
    assert await memory.facts() == await memory.recall("coffee") == []


async def test_what_makes_no_fact_is_refused() -> None:
    memory = Agent("a", model="demo").memory
    with pytest.raises(ValueError, match="empty"):
        await memory.remember(" \n")
    with pytest.raises(ValueError, match="at most 2000 characters, this one 3000"):
        await memory.remember("x" * 3000)


async def test_the_best_come_first_and_no_query_is_an_error() -> None:
    memory = Agent("a", model="demo").memory
    for fact in ("Red wine is for Ada.", "Wine wine, wine.", "Nothing of that.", "猫が好きです。", "odd \udce9 text"):
        await memory.remember(fact)
    assert (await memory.recall("red wine", 2)) == ["Red wine is for Ada.", "Wine wine, wine."]
    assert await memory.recall("猫") == ["猫が好きです。"]
    assert await memory.recall('wine" OR text:* NEAR(') != []
    assert await memory.recall("zebra") == []
    assert await memory.recall("", 1) == ["odd \udce9 text"]
    assert await memory.recall("wine", 0) == await memory.recall("", -1) == []


async def test_the_model_remembers_and_recalls(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("agents: {a: {memory: {facts: true}, model: demo}, b: {model: demo}}\n")
    script = [
        call("remember", fact="Ada prefers mail."),
        "I keep that in mind.",
        call("recall", query="Ada"),
        "Mail.",
        call("recall", query="Bob", limit=1),
        call("remember", fact=" "),
        "I do not know.",
    ]
    model = ScriptedModel(script)
    agent = Agent("a", model=model, memory={"facts": True})
    async with AgentPool(tmp_path / "agents.yml", agents={"a": agent}) as pool:
        await agent.run("Ada prefers mail.")
        await agent.run("How do I reach Ada?")
        result = await agent.run("And Bob?")
        results = [
            part.response for turn in result.messages for part in turn.parts if part.type == "tool_call_response"
        ]
        assert results == ["nothing that was remembered has one of these words", "the fact is empty"]
        assert "- Ada prefers mail." in str(model.requests[3].messages[-1])
        assert [tool.name for tool in model.requests[0].tools] == ["remember", "recall"]
        assert pool.get_agent("b").parts.tools() == []
        assert all(tool.repeatable for tool in agent.parts.tools())
    async with AgentPool(tmp_path / "agents.yml") as pool:
        assert await pool.get_agent("a").memory.facts() == ["Ada prefers mail."]


def test_a_tool_of_the_same_name_is_refused() -> None:
    def recall() -> str:
        """Recall."""
        return ""

    with pytest.raises(StartupError, match="'recall'"):
        Agent("a", model="demo", tools=[recall], memory={"facts": True})
