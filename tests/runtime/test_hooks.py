"""Hooks around model requests and tool calls: they look, replace, veto, fail and listen."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import pytest

from llmling import Agent, Event, Message
from llmling.errors import HookError, Veto
from llmling.messages import ToolCallPart, ToolCallResponsePart, Usage
from llmling.protocols import ModelRequest, ModelResponse, RunInfo
from llmling.runtime.stream import RunEvent
from llmling.testing import ScriptedModel

FAST = {"backoff_s": 0.0}


def wants(**arguments: Any) -> Message:
    """Return an answer that asks for the tool `add`."""
    return Message("assistant", (ToolCallPart("c1", "add", arguments),))


def shown(request: ModelRequest) -> ToolCallResponsePart:
    """Return the tool result of the last turn a model was shown."""
    part = request.messages[-1].parts[0]
    assert isinstance(part, ToolCallResponsePart)
    return part


class Adder:
    """The tool `add`, and what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def agent(self, *hooks: Any, replies: list[Any] | None = None) -> tuple[Agent[None], ScriptedModel]:
        """Return an agent with hooks, that adds 1 and 2 and then says so."""

        def add(a: int, b: int) -> int:
            """Add."""
            self.calls.append((a, b))
            return a + b

        model = ScriptedModel(replies or [wants(a=1, b=2), "done"])
        return Agent("a", model=model, tools=[add], hooks=hooks, retries=FAST), model


class Watch:
    """Looks at everything, changes nothing; sync and async methods mixed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def before_model(self, request: ModelRequest, run: RunInfo) -> None:
        self.seen.append(f"before_model {len(request.messages)}")

    async def after_model(self, response: ModelResponse, run: RunInfo) -> None:
        await asyncio.sleep(0)
        self.seen.append(f"after_model {response.message.text}")

    async def before_tool(self, call: ToolCallPart, run: RunInfo) -> None:
        await asyncio.sleep(0)
        self.seen.append(f"before_tool {call.name} {call.arguments}")

    def after_tool(self, result: ToolCallResponsePart, run: RunInfo) -> None:
        self.seen.append(f"after_tool {result.response} {run.agent} {run.event.source}")


async def test_each_method_is_called_in_order_and_as_often_as_it_happens() -> None:
    watch, adder = Watch(), Adder()
    agent, _ = adder.agent(watch)
    assert (await agent.run("1 + 2?", event=Event("desk", "test"))).content == "done"
    assert watch.seen == [
        "before_model 1",
        "after_model ",
        "before_tool add {'a': 1, 'b': 2}",
        "after_tool 3 a desk",
        "before_model 3",
        "after_model done",
    ]


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Veto("not on Sundays"), PermissionError("not on Sundays")])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_veto_reaches_the_model_as_a_tool_error_and_the_tool_does_not_run(
    error: Exception, waits: bool
) -> None:
    class Guard:
        def before_tool(self, call: ToolCallPart, run: RunInfo) -> None:
            raise error

    class SlowGuard:
        async def before_tool(self, call: ToolCallPart, run: RunInfo) -> None:
            raise error

    adder = Adder()
    agent, model = adder.agent(SlowGuard if waits else Guard)
    result = await agent.run("go")
    assert (result.content, adder.calls) == ("done", [])
    assert shown(model.requests[1]) == ToolCallResponsePart("c1", "add", "add was not called: not on Sundays", True)
    assert [span.status for span in result.spans if span.operation == "execute_tool"] == ["error"]


async def test_arguments_and_results_can_be_replaced_and_later_hooks_see_it() -> None:
    class Double:
        def before_tool(self, call: ToolCallPart, run: RunInfo) -> dict[str, Any]:
            assert isinstance(call.arguments, dict)
            return {name: value * 2 for name, value in call.arguments.items()}

        async def after_tool(self, result: ToolCallResponsePart, run: RunInfo) -> str:
            return f"<{result.response}>"

    adder = Adder()
    agent, model = adder.agent(Double(), Double())
    await agent.run("go")
    assert adder.calls == [(4, 8)]
    assert shown(model.requests[1]).response == "<<12>>"


async def test_a_hook_may_answer_for_a_tool() -> None:
    class Cache:
        def before_tool(self, call: ToolCallPart, run: RunInfo) -> str:
            return "from the cache"

    adder = Adder()
    agent, model = adder.agent(Cache())
    await agent.run("go")
    assert (adder.calls, shown(model.requests[1]).response) == ([], "from the cache")
    assert not shown(model.requests[1]).failed


@pytest.mark.parametrize("outcome", [KeyError("rules"), 42])
async def test_a_guard_that_fails_lets_nothing_through(outcome: Any, caplog: pytest.LogCaptureFixture) -> None:
    def given(*_: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    class Before:
        def before_tool(self, call: ToolCallPart, run: RunInfo) -> Any:
            return given()

    class After:
        def after_tool(self, result: ToolCallResponsePart, run: RunInfo) -> Any:
            return given()

    adder = Adder()
    with caplog.at_level(logging.ERROR, "llmling.hooks"):
        agent, model = adder.agent(Before())
        await agent.run("go")
        assert adder.calls == []
        assert "was not called: a hook failed" in shown(model.requests[1]).response
        agent, model = adder.agent(After())
        await agent.run("go")
    assert adder.calls == [(1, 2)]
    assert shown(model.requests[1]).failed
    assert "its result is withheld: a hook failed" in shown(model.requests[1]).response
    assert "3" not in shown(model.requests[1]).response
    assert len(caplog.records) == 2


# --- models ----------------------------------------------------------------------------------------------------------


async def test_a_request_can_be_replaced() -> None:
    class Redact:
        def before_model(self, request: ModelRequest, run: RunInfo) -> ModelRequest:
            hidden = tuple(Message.user(turn.text.replace("4711", "****")) for turn in request.messages)
            return dataclasses.replace(request, messages=hidden)

    agent, model = Adder().agent(Redact(), replies=["fine"])
    await agent.run("my pin is 4711")
    assert model.requests[0].messages[-1].text == "my pin is ****"


@pytest.mark.parametrize("given", ["cached", ModelResponse(Message.assistant("cached"), Usage(), cost_usd=0.0)])
async def test_a_hook_may_answer_for_the_model(given: Any) -> None:
    class Cache:
        async def before_model(self, request: ModelRequest, run: RunInfo) -> Any:
            return given

    agent, model = Adder().agent(Cache())
    result = await agent.run("go")
    assert (result.content, model.requests, result.usage.requests) == ("cached", [], 0)
    async with agent.run_stream("go") as stream:
        assert "".join([event.text async for event in stream]) == "cached"


async def test_an_answer_can_be_replaced_and_keeps_its_cost() -> None:
    class Polite:
        def after_model(self, response: ModelResponse, run: RunInfo) -> str | None:
            return None if response.message.tool_calls else f"{response.message.text}, please"

    agent, _ = Adder().agent(Polite())
    result = await agent.run("go")
    assert result.content == "done, please"
    assert result.usage.requests == 2
    assert result.messages[-1].text == "done, please"


async def test_a_vetoed_request_ends_the_run_for_good_and_a_broken_hook_for_now() -> None:
    class Guard:
        def before_model(self, request: ModelRequest, run: RunInfo) -> None:
            raise Veto("too late in the day")

    class Broken:
        def after_model(self, response: ModelResponse, run: RunInfo) -> int:
            raise KeyError("rules")

    class Wrong:
        def after_model(self, response: ModelResponse, run: RunInfo) -> int:
            return 42

    agent, model = Adder().agent(Guard())
    with pytest.raises(HookError, match=r"agent 'a': hook .*Guard vetoed in before_model: too late") as caught:
        await agent.run("go")
    assert (caught.value.retryable, model.requests) == (False, [])
    agent, _ = Adder().agent(Broken())
    with pytest.raises(HookError, match=r"after_model of hook .*Broken failed: KeyError: 'rules'") as caught:
        await agent.run("go")
    assert caught.value.retryable
    agent, _ = Adder().agent(Wrong())
    with pytest.raises(HookError, match=r"returned int, not a ModelResponse, a text or None"):
        await agent.run("go")


# --- events ----------------------------------------------------------------------------------------------------------


async def test_on_event_hears_all_in_order_before_the_run_returns_and_its_errors_break_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []

    async def audit(event: RunEvent) -> None:
        await asyncio.sleep(0.001)
        heard.append(event.type)

    def broken(event: RunEvent) -> None:
        raise OSError("disk full")

    agent, _ = Adder().agent(broken, audit)
    with caplog.at_level(logging.CRITICAL, "llmling.hooks"):
        await agent.run("go")
    expected = ["run_started", "model_request", "tool_called", "tool_result", "model_request", "run_completed"]
    assert heard == expected
    agent, _ = Adder().agent(audit)
    async with agent.run_stream("go") as stream:
        streamed = [event.type async for event in stream]
    assert heard[len(expected) :] == streamed


async def test_the_last_event_of_a_failed_run_is_heard() -> None:
    heard: list[RunEvent] = []
    agent, _ = Adder().agent(heard.append, replies=[ValueError("bug")])
    with pytest.raises(ValueError, match="bug"):
        await agent.run("go")

    class Guard:
        def before_model(self, request: ModelRequest, run: RunInfo) -> None:
            raise Veto("no")

    agent, _ = Adder().agent(heard.append, Guard())
    with pytest.raises(HookError):
        await agent.run("go")
    assert heard[-1].type == "run_failed"


async def test_a_cancelled_run_does_not_wait_long_for_a_listener_that_hangs() -> None:
    started = asyncio.Event()

    async def hangs(event: RunEvent) -> None:
        started.set()
        await asyncio.Event().wait()

    async def never(request: ModelRequest) -> str:
        await asyncio.Event().wait()
        return ""

    before = asyncio.all_tasks()
    run = asyncio.create_task(Agent("a", model=ScriptedModel(never), hooks=[hangs]).run("go"))
    await started.wait()
    run.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await run
    assert asyncio.all_tasks() == before
