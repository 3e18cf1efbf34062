from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmling.errors import DecisionNeeded, LimitExceeded, ToolError
from llmling.manifest.tools import AgentToolConfig
from llmling.messages import Message, RunResult, Usage
from llmling.runtime.services import Services
from llmling.tools.agent import MAX_DEPTH, AgentTool


def answer(text: str) -> RunResult:
    message = Message.assistant(text)
    return RunResult(text, message, (message,), Usage(), "demo", "summarizer", "run-1")


async def test_it_asks_the_agent_and_returns_its_text() -> None:
    async def ask(name: str, prompt: str) -> RunResult:
        return answer(f"{name} says {prompt}")

    made = AgentTool(AgentToolConfig(name="summarizer"), Services(ask=ask), "Makes things short")
    assert made.spec.name == "ask_summarizer"
    assert made.spec.description == "Makes things short"
    assert made.spec.parameters["required"] == ["prompt"]
    assert made.repeatable
    assert await made.call({"prompt": "hello"}) == "summarizer says hello"


def test_the_manifests_description_wins_and_odd_names_become_safe() -> None:
    made = AgentTool(AgentToolConfig(name="my agent.v2", description="Mine."), Services(), "theirs")
    assert (made.spec.name, made.spec.description) == ("ask_my_agent_v2", "Mine.")
    assert "my agent" in AgentTool(AgentToolConfig(name="my agent"), Services()).spec.description


@pytest.mark.parametrize("arguments", [{}, {"prompt": "  "}, {"prompt": 3}, {"prompt": "a", "more": 1}])
async def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match="takes one argument, 'prompt'"):
        await AgentTool(AgentToolConfig(name="a"), Services()).call(arguments)


async def test_a_failed_run_is_an_error_the_model_can_read() -> None:
    async def ask(name: str, prompt: str) -> RunResult:
        raise LimitExceeded("the run made 20 requests: raise limits.max_iterations")

    with pytest.raises(ToolError, match="agent 'a' failed: the run made 20 requests"):
        await AgentTool(AgentToolConfig(name="a"), Services(ask=ask)).call({"prompt": "x"})

    async def undecided(name: str, prompt: str) -> RunResult:
        raise DecisionNeeded("tool 'send' was in flight")

    with pytest.raises(DecisionNeeded):
        await AgentTool(AgentToolConfig(name="a"), Services(ask=undecided)).call({"prompt": "x"})
    with pytest.raises(ToolError, match="there is no pool to find it in"):
        await AgentTool(AgentToolConfig(name="a"), Services()).call({"prompt": "x"})


async def test_a_limit_of_time_cancels_the_run() -> None:
    cancelled = asyncio.Event()

    async def ask(name: str, prompt: str) -> RunResult:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return answer("")

    with pytest.raises(ToolError, match=r"agent 'a' took longer than 0.05 s \(timeout_s\)"):
        await AgentTool(AgentToolConfig(name="a", timeout_s=0.05), Services(ask=ask)).call({"prompt": "x"})
    assert cancelled.is_set()


async def test_agents_that_ask_one_another_in_a_circle_end() -> None:
    depth = 0

    async def ask(name: str, prompt: str) -> RunResult:
        nonlocal depth
        depth += 1
        other = AgentTool(AgentToolConfig(name="b" if name == "a" else "a"), Services(ask=ask))
        # Real runs make tasks of their own; the chain must survive that.
        return answer(await asyncio.create_task(other.call({"prompt": prompt})))

    with pytest.raises(ToolError, match="too deep"):
        await AgentTool(AgentToolConfig(name="a"), Services(ask=ask)).call({"prompt": "x"})
    assert depth == MAX_DEPTH
