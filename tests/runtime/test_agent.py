"""Agents in Python: runs, tools, limits, structured answers, streams, sessions."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from llmling import Agent, Message, tool
from llmling.errors import (
    LimitExceeded,
    ManifestError,
    ModelError,
    OutputError,
    StartupError,
    SyncInAsyncError,
    ToolError,
)
from llmling.manifest.knowledge import TextKnowledgeConfig
from llmling.messages import TextPart, ToolCallPart, ToolCallResponsePart, Usage
from llmling.protocols import ModelRequest, ModelResponse
from llmling.runtime.stream import RunStream
from llmling.testing import ScriptedModel


def calls(*named: tuple[str, Mapping[str, Any] | str]) -> Message:
    """Return an answer that asks for tools."""
    parts = tuple(ToolCallPart(f"c{index}", name, arguments) for index, (name, arguments) in enumerate(named))
    return Message("assistant", parts)


def results(request: ModelRequest) -> list[ToolCallResponsePart]:
    """Return the tool results of the last turn a model was shown."""
    return [part for part in request.messages[-1].parts if isinstance(part, ToolCallResponsePart)]


async def test_instructions_and_prompt_reach_the_model() -> None:
    model = ScriptedModel(["Hello Ada."])
    agent = Agent("greeter", model=model, instructions=["You greet.", "You are {{ agent }}."])
    result = await agent.run("Greet Ada.")
    assert result.content == result.response == "Hello Ada."
    assert [turn.role for turn in model.requests[0].messages] == ["system", "user"]
    assert model.requests[0].messages[0].text == "You greet.\n\nYou are greeter."
    assert model.requests[0].messages[1].text == "Greet Ada."
    assert result.agent == "greeter"
    assert result.messages[-1] == result.message
    assert result.run_id
    assert result.latency_s >= 0


def test_the_config_of_each_agent_holds_its_own_instructions() -> None:
    told, other = Agent(model="demo", instructions="Greet."), Agent(model="demo", instructions=["Be {{ agent }}."])
    assert (told.config.instructions, other.config.instructions) == ("Greet.", ["Be {{ agent }}."])
    assert told.config.model_fields_set == {"instructions"}
    assert Agent(model="demo").config.instructions == []


def test_what_is_changed_in_the_config_of_one_agent_is_not_in_that_of_another() -> None:
    for agent in (Agent(model="demo"), Agent(model="demo", instructions="Greet.")):
        agent.config.knowledge.append(TextKnowledgeConfig(type="text", content="mine"))
    assert Agent(model="demo").config.knowledge == []


async def test_tools_sync_and_async_run_in_parallel_and_see_the_context() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    both = threading.Barrier(2, timeout=10)
    loop_thread = threading.get_ident()
    threads: list[int] = []

    def left(x: int) -> str:
        """Left."""
        threads.append(threading.get_ident())
        both.wait()
        return f"{who.get()} {x}"

    def right(x: int) -> str:
        """Right."""
        both.wait()
        return f"{x + 1}"

    async def here() -> dict[str, bool]:
        """Here."""
        return {"loop": threading.get_ident() == loop_thread}

    model = ScriptedModel([calls(("left", {"x": 1}), ("right", {"x": 2}), ("here", {})), "done"])
    who.set("ada")
    result = await Agent("a", model=model, tools=[left, right, here]).run("go")
    assert result.content == "done"
    assert [part.response for part in results(model.requests[1])] == ["ada 1", "3", '{"loop": true}']
    assert threads != [loop_thread]
    assert result.usage.tool_calls == 3
    assert result.usage.requests == 2


async def test_every_tool_failure_becomes_a_result_the_model_sees() -> None:
    def broken() -> str:
        """Broken."""
        raise KeyError("disk")

    def told() -> str:
        """Told."""
        raise ToolError("ask me on Monday")

    def number(x: int) -> int:
        """Number."""
        return x

    model = ScriptedModel(
        [
            calls(
                ("broken", {}),
                ("told", {}),
                ("nope", {}),
                ("number", '{"x": 1'),
                ("number", "[1]"),
                ("number", {"x": "a"}),
            ),
            "sorry",
        ]
    )
    result = await Agent("a", model=model, tools=[broken, told, number]).run("go")
    assert result.content == "sorry"
    answers = results(model.requests[1])
    assert all(answer.failed for answer in answers)
    assert "KeyError" in answers[0].response
    assert answers[1].response == "ask me on Monday"
    assert "unknown tool 'nope'; known tools: broken, number, told" in answers[2].response
    assert "not valid JSON" in answers[3].response
    assert "not a JSON object" in answers[4].response
    assert "x" in answers[5].response


async def test_serial_tools_run_one_after_the_other() -> None:
    order: list[str] = []

    async def step(name: str) -> str:
        """Step."""
        order.append(f"{name} begins")
        await asyncio.sleep(0)
        order.append(f"{name} ends")
        return name

    model = ScriptedModel([calls(("step", {"name": "a"}), ("step", {"name": "b"})), "done"])
    await Agent("a", model=model, tools=[step], parallel_tools=False).run("go")
    assert order == ["a begins", "a ends", "b begins", "b ends"]


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"max_iterations": 2}, "limits.max_iterations"),
        ({"tool_calls": 2}, "limits.tool_calls"),
        ({"total_tokens": 25}, "limits.total_tokens"),
        ({"cost_usd": 0.25}, "limits.cost_usd"),
    ],
)
async def test_limits_end_a_run_and_name_their_key(limits: dict[str, Any], key: str) -> None:
    def step() -> str:
        """Step."""
        return "ok"

    asked = ModelResponse(calls(("step", {})), Usage(10, 1, 1), "m", cost_usd=0.1)
    model = ScriptedModel([asked] * 10)
    with pytest.raises(LimitExceeded, match=key):
        await Agent("a", model=model, tools=[step], limits=limits).run("go")
    assert len(model.requests) <= 3


async def test_a_run_that_takes_too_long_is_cancelled() -> None:
    async def hang() -> str:
        """Hang."""
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel([calls(("hang", {}))])
    with pytest.raises(LimitExceeded, match=r"limits\.timeout_s"):
        await Agent("a", model=model, tools=[hang], limits={"timeout_s": 0.05}).run("go")


class City(BaseModel):
    name: str
    people: int


async def test_structured_output_asks_again_until_it_fits() -> None:
    model = ScriptedModel(["Rome", '{"name": "Rome"}', '```json\n{"name": "Rome", "people": 3}\n```'])
    result = await Agent("a", model=model, output=City).run("Where?")
    assert result.content == City(name="Rome", people=3)
    assert model.requests[0].output_schema == City.model_json_schema()
    assert "people" in model.requests[2].messages[-1].text
    with pytest.raises(OutputError):
        await Agent("a", model=ScriptedModel(["no"] * 5), output=City, retries={"attempts": 2}).run("Where?")


async def test_a_json_schema_is_an_output_too() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    result = await Agent("a", model=ScriptedModel(['{"n": 4}']), output=schema).run("n?")
    assert result.content == {"n": 4}
    assert result.response == '{"n": 4}'


async def test_a_stream_tells_what_happens() -> None:
    def add(x: int, y: int) -> int:
        """Add."""
        return x + y

    model = ScriptedModel([calls(("add", {"x": 1, "y": 2})), "The sum is three."])
    agent = Agent("a", model=model, tools=[add])
    async with agent.run_stream("1+2?") as stream:
        events = [event async for event in stream]
    types = [event.type for event in events]
    assert types[0] == "run_started"
    assert types[-1] == "run_completed"
    assert [t for t in types if t != "text_delta"] == [
        "run_started",
        "model_request",
        "tool_called",
        "tool_result",
        "model_request",
        "run_completed",
    ]
    assert "".join(event.text for event in events) == "The sum is three."
    assert stream.result.content == "The sum is three."
    assert events[-1].result is stream.result
    assert events[2].to_dict()["tool"] == "add"
    last = json.loads(json.dumps(events[-1].to_dict()))
    assert (last["message"], last["stop_reason"]) == ("The sum is three.", "stop")
    assert last["usage"] == stream.result.usage.to_dict()


async def test_leaving_a_stream_early_cancels_the_run() -> None:
    cancelled = asyncio.Event()

    async def hang() -> str:
        """Hang."""
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    agent = Agent("a", model=ScriptedModel([calls(("hang", {}))] * 2), tools=[hang])
    async with agent.run_stream("go") as stream:
        async for event in stream:
            if event.type == "tool_called":
                await asyncio.sleep(0.01)
                break
    await asyncio.wait_for(cancelled.wait(), 30)


async def collect(stream: RunStream, types: list[str]) -> None:
    """Note the types of a stream's events until it ends or fails."""
    async for event in stream:
        types.append(event.type)  # noqa: PERF401 - what came before a failure counts


async def test_a_failed_stream_raises_after_its_last_event() -> None:
    agent = Agent("a", model=ScriptedModel([ModelError("bad key", status=401)]))
    types: list[str] = []
    with pytest.raises(ModelError, match="bad key"):
        await collect(agent.run_stream("go"), types)
    assert types[-1] == "run_failed"


async def test_runs_are_independent_and_concurrent() -> None:
    gate = asyncio.Barrier(50)

    async def reply(request: ModelRequest) -> str:
        await gate.wait()
        return request.messages[-1].text

    agent = Agent("a", model=ScriptedModel([reply] * 50))
    answers = await asyncio.gather(*(agent.run(str(number)) for number in range(50)))
    assert [answer.content for answer in answers] == [str(number) for number in range(50)]


async def test_a_session_keeps_its_history_and_a_failed_turn_leaves_it() -> None:
    model = ScriptedModel(["Hi Ada.", ModelError("no", status=400), "Ada.", "Bob."])
    chat = Agent("a", model=model, instructions="Be kind.").session("user-7")
    await chat.run("I am Ada.")
    before = chat.messages
    with pytest.raises(ModelError):
        await chat.run("x")
    assert chat.messages == before
    fork = chat.fork()
    await chat.run("Who am I?")
    assert [turn.text for turn in chat.messages] == ["I am Ada.", "Hi Ada.", "Who am I?", "Ada."]
    assert [turn.text for turn in model.requests[2].messages] == ["Be kind.", "I am Ada.", "Hi Ada.", "Who am I?"]
    assert fork.messages == before


async def test_turns_of_one_session_queue_up() -> None:
    running = 0

    async def reply(request: ModelRequest) -> str:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        running -= 1
        return str(len(request.messages))

    chat = Agent("a", model=ScriptedModel([reply] * 5)).session("s")
    answers = await asyncio.gather(*(chat.run(str(number)) for number in range(5)))
    assert [answer.content for answer in answers] == ["1", "3", "5", "7", "9"]


def test_run_sync_runs_from_any_thread() -> None:
    agent = Agent("a", model=ScriptedModel(["one", "two"]))
    assert agent.run_sync("x").content == "one"
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(agent.run_sync("x").content))
    thread.start()
    thread.join()
    assert answers == ["two"]


async def test_run_sync_in_a_loop_names_the_way_out_and_the_line() -> None:
    with pytest.raises(SyncInAsyncError, match=r"test_agent\.py:\d+; write `await agent\.run"):
        Agent("a", model=ScriptedModel([])).run_sync("x")


async def test_empty_prompts_are_refused_before_any_request() -> None:
    model = ScriptedModel([])
    agent = Agent("a", model=model)
    with pytest.raises(ValueError, match="empty"):
        await agent.run("")
    with pytest.raises(ValueError, match="empty"):
        agent.run_stream(" ")
    assert model.requests == []


async def test_knowledge_needs_async_with_and_reaches_the_system_message() -> None:
    model = ScriptedModel(["ok"])
    agent = Agent("a", model=model, knowledge=[{"type": "text", "content": "The sky is green."}])
    with pytest.raises(StartupError, match="async with"):
        await agent.run("x")
    async with agent:
        await agent.run("x")
    assert "The sky is green." in model.requests[0].messages[0].text


async def test_answers_of_a_message_prompt_and_tool_decorator() -> None:
    @tool(name="shout", description="Shouts.", idempotent=True)
    def loud(text: str) -> str:
        return text.upper()

    assert loud("a") == "A"
    model = ScriptedModel([calls(("shout", {"text": "hey"})), "done"])
    await Agent("a", model=model, tools=[loud]).run(Message("user", (TextPart("hi"),)))
    assert results(model.requests[1])[0].response == "HEY"
    assert model.requests[0].tools[0].description == "Shouts."


async def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="'limitz'; did you mean 'limits'"):
        Agent("a", model="demo", limitz={})  # pyright: ignore[reportCallIssue]
    with pytest.raises(ManifestError, match=r"unknown key .timeout. in agents\.agent\.limits; write `timeout_s:`"):
        Agent("a", model="demo", limits={"timeout": 3})
