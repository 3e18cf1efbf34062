"""Plans an agent makes for itself."""

from __future__ import annotations

from typing import Any

import pytest

from llmling import Agent, Message
from llmling.errors import LimitExceeded, ModelError
from llmling.messages import ToolCallPart, Usage
from llmling.protocols import ModelRequest, ModelResponse
from llmling.runtime.stream import RunEvent
from llmling.testing import ScriptedModel


def step(number: int) -> str:
    """Take a step.

    More about it.
    """
    return f"step {number} taken"


def call(number: int) -> Message:
    return Message("assistant", (ToolCallPart(f"c{number}", "step", {"number": number}),))


def plans(request: ModelRequest) -> bool:
    """Whether a request asks for a plan."""
    return request.messages[-1].text.startswith("Do not answer yet.")


def planner(*replies: Any) -> ScriptedModel:
    """Return a model with numbered plans."""
    left, made = list(replies), 0

    def answer(request: ModelRequest) -> Any:
        nonlocal made
        if plans(request):
            made += 1
            return f"1. plan number {made}"
        return left.pop(0)

    return ScriptedModel(answer)


async def events_of(agent: Agent[Any], prompt: str = "Do it.") -> list[RunEvent]:
    async with agent.run_stream(prompt) as stream:
        return [event async for event in stream]


async def test_a_plan_every_two_turns_over_five_turns() -> None:
    model = planner(*(call(number) for number in range(4)), "Done.")
    events = await events_of(Agent("a", model=model, tools=[step], plan={"every": 2}))
    told = [event for event in events if event.type == "plan"]
    assert [event.message for event in told] == [f"1. plan number {number}" for number in (1, 2, 3)]
    assert [event.to_dict()["iteration"] for event in told] == [0, 2, 4]
    assert [plans(request) for request in model.requests] == [True, False, False, True, False, False, True, False]
    assert events[-1].result is not None
    assert events[-1].result.content == "Done."
    assert events[-1].result.usage.requests == len(model.requests) == 8
    assert "".join(event.text for event in events) == "Done."
    kinds = [event.data["purpose"] for event in events if event.type == "model_request"]
    assert kinds == ["plan", "reply", "reply", "plan", "reply", "reply", "plan", "reply"]


async def test_the_plan_stands_in_the_context_and_replaces_the_former_one() -> None:
    model = planner(*(call(number) for number in range(3)), "Done.")
    result = await Agent("a", model=model, instructions="Be quick.", tools=[step], plan={"every": 2}).run("Do it.")
    turns = [request for request in model.requests if not plans(request)]
    seen = ["".join(message.text for message in request.messages) for request in turns]
    assert ["plan number 1" in text for text in seen] == [True, True, False, False]
    assert ["plan number 2" in text for text in seen] == [False, False, True, True]
    assert all(request.messages[1].text.startswith("Do it.") for request in turns)
    first, second = (request for request in model.requests if plans(request))
    assert first.tools == second.tools == ()
    assert "- step: Take a step.\n" in first.messages[-1].text + "\n"
    assert "More about it" not in first.messages[-1].text
    assert "instead of the plan so far" in second.messages[-1].text
    assert "plan number 1" in second.messages[1].text
    assert [message.role for message in second.messages] == ["system", "user", *["assistant", "tool"] * 2, "user"]
    # Plans are notes for the model, no part of the exchange.
    assert all("plan" not in message.text for message in result.messages)


async def test_without_plan_no_plan_is_made() -> None:
    model = planner(call(1), "Done.")
    await Agent("a", model=model, tools=[step]).run("Make a plan, then carry it out step by step.")
    assert not any(plans(request) for request in model.requests)


async def test_an_agent_without_tools_plans_too_and_an_empty_plan_is_none() -> None:
    model = ScriptedModel(["  ", "Done."])
    events = await events_of(Agent("a", model=model, plan={"every": 1}))
    assert "plan" not in [event.type for event in events]
    assert model.requests[1].messages[-1].text == "Do it."


@pytest.mark.parametrize(
    ("limits", "key", "requests"), [({"cost_usd": 0.25}, "cost_usd", 3), ({"total_tokens": 25}, "total_tokens", 3)]
)
async def test_plans_count_for_the_limits(limits: dict[str, Any], key: str, requests: int) -> None:
    asked = ModelResponse(call(1), Usage(9, 1, 1), "m", cost_usd=0.1)
    model = ScriptedModel(lambda request: ModelResponse(Message.assistant("1. go"), Usage(9, 1, 1), "m", cost_usd=0.1)
                          if plans(request) else asked)  # fmt: skip
    with pytest.raises(LimitExceeded, match=rf"limits\.{key}"):
        await Agent("a", model=model, tools=[step], plan={"every": 1}, limits=limits).run("go")
    assert len(model.requests) == requests
    assert plans(model.requests[-1])


async def test_plans_have_no_output_schema_and_are_tried_again() -> None:
    model = ScriptedModel([ModelError("busy", status=503, retryable=True), "1. go", '{"n": 1}'])
    agent = Agent("a", model=model, output={"type": "object"}, plan={"every": 1}, retries={"backoff_s": 0})
    assert (await agent.run("n?")).content == {"n": 1}
    assert [request.output_schema is None for request in model.requests] == [True, True, False]
