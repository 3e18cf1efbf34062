"""Plans an agent makes for itself, and the last turn of a run that has used up its turns."""

from __future__ import annotations

from typing import Any

import pytest

from llmling import Agent, Message
from llmling.errors import LimitExceeded, ModelError, NotAsked
from llmling.messages import ToolCallPart, ToolCallResponsePart, Usage
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


# --- the last turn --------------------------------------------------------------------------------------------------


async def test_after_the_last_turn_one_request_without_tools_answers() -> None:
    model = ScriptedModel([*(call(number) for number in range(4)), "As far as I got."])
    agent = Agent("a", model=model, tools=[step], limits={"max_iterations": 4})
    events = await events_of(agent)
    result = events[-1].result
    assert result is not None
    assert (result.content, result.stop_reason) == ("As far as I got.", "max_iterations")
    assert len(model.requests) == 5
    assert [bool(request.tools) for request in model.requests] == [True, True, True, True, False]
    last = model.requests[-1]
    # The calls of the last turn were made, and their results are there to answer from.
    assert isinstance(part := last.messages[-2].parts[0], ToolCallResponsePart)
    assert part.response == "step 3 taken"
    assert "no tool can be called any more" in last.messages[-1].text
    assert [message.role for message in result.messages] == ["user", *["assistant", "tool"] * 4, "assistant"]
    assert (result.usage.requests, result.usage.tool_calls) == (5, 4)
    assert [event.data["purpose"] for event in events if event.type == "model_request"][-1] == "final"
    assert "".join(event.text for event in events) == "As far as I got."


async def test_an_answer_in_the_last_turn_needs_no_further_request() -> None:
    model = ScriptedModel([call(1), "Done."])
    result = await Agent("a", model=model, tools=[step], limits={"max_iterations": 2}).run("go")
    assert (result.stop_reason, len(model.requests)) == ("stop", 2)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (call(9), "it is empty"),
        ("  ", "it is empty"),
        (ModelError("refused", status=400), "refused"),
    ],
)
async def test_a_last_turn_without_an_answer_names_the_limit(last: Any, words: str) -> None:
    model = ScriptedModel([call(1), call(2), last, "never"])
    with pytest.raises(LimitExceeded, match=rf"made 2 model requests .*{words}.*raise limits\.max_iterations"):
        await Agent("a", model=model, tools=[step], limits={"max_iterations": 2}).run("go")
    assert len(model.requests) == 3


async def test_a_provider_that_is_down_in_the_last_turn_may_be_asked_again_later() -> None:
    model = ScriptedModel([call(1), ModelError("busy", status=503, retryable=True)])
    with pytest.raises(ModelError, match="busy") as caught:
        await Agent("a", model=model, tools=[step], limits={"max_iterations": 1}, retries={"attempts": 1}).run("go")
    assert caught.value.retryable


async def test_a_test_that_may_not_ask_is_told_so_in_the_last_turn_too() -> None:
    model = ScriptedModel([call(1), NotAsked("not in the cassette")])
    with pytest.raises(NotAsked):
        await Agent("a", model=model, tools=[step], limits={"max_iterations": 1}).run("go")


async def test_calls_nobody_can_make_leave_no_orphans_in_a_history() -> None:
    both = Message("assistant", (*Message.assistant("Nearly done.").parts, *call(9).parts))
    model = ScriptedModel([call(1), both, "Hello."])
    chat = Agent("a", model=model, tools=[step], limits={"max_iterations": 1}).session("s")
    assert (await chat.run("go")).content == "Nearly done."
    await chat.run("and now?")
    assert not any(message.tool_calls for message in model.requests[-1].messages[3:])


async def test_the_last_turn_keeps_the_shape_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    model = ScriptedModel([call(1), '{"n": 4}', call(1), '{"m": 4}'])
    agent = Agent("a", model=model, tools=[step], output=schema, limits={"max_iterations": 1})
    assert (await agent.run("n?")).content == {"n": 4}
    assert model.requests[1].output_schema == schema
    with pytest.raises(LimitExceeded, match=r"limits\.max_iterations"):
        await agent.run("n?")


async def test_a_plan_is_not_made_for_the_last_turn() -> None:
    model = planner(call(1), call(2), "Done.")
    result = await Agent("a", model=model, tools=[step], plan={"every": 1}, limits={"max_iterations": 2}).run("go")
    assert result.stop_reason == "max_iterations"
    assert [plans(request) for request in model.requests] == [True, False, True, False, False]
    assert "plan number 2" in model.requests[-1].messages[0].text
