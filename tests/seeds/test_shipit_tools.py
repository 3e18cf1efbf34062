"""Seed 001: tools, hooks and MCP servers of a run, over OpenAI's and Anthropic's wire formats."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from llm_server import Call, LLMServer, Reply, Request

from llmling import Agent
from llmling.errors import ModelError, Veto
from llmling.messages import ToolCallPart, ToolCallResponsePart
from llmling.protocols import ModelRequest, ModelResponse, RunInfo

MODEL = "openai/gpt-4o-mini"
user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
DONE = Reply("done")


def worker(*tools: Any, **options: Any) -> Agent[None]:
    return Agent("worker", model=MODEL, tools=tools, retries={"attempts": 1}, **options)


def results(request: Request) -> list[str]:
    """Return the tool results at the end of a request, in their order."""
    messages = request.body["messages"]
    last = max(n for n, message in enumerate(messages) if message["role"] == "assistant")
    return [message["content"] for message in messages[last + 1 :]]


def assert_well_formed(request: Request) -> None:
    """Every tool message answers a call of the assistant message before it, and no call is left open."""
    waiting: list[str] = []
    for message in request.body["messages"]:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert waiting == []
        calls: list[dict[str, Any]] = message.get("tool_calls") or []
        waiting = [call["id"] for call in calls]
    assert waiting == []


@pytest.mark.parametrize("count", [2, 24])
async def test_sync_tools_of_one_turn_overlap_and_keep_their_order(server: LLMServer, count: int) -> None:
    together = threading.Barrier(count, timeout=60)

    def meet(n: int) -> str:
        together.wait()  # nobody gets past alone
        return f"{user.get()} {n}"

    user.set("ada")
    server.replies += [Reply(calls=[Call("meet", {"n": n}) for n in range(count)]), DONE]
    assert (await worker(meet).run("go")).content == "done"
    assert results(server.requests[1]) == [f"ada {n}" for n in range(count)]


async def test_switched_off_they_run_one_after_the_other(server: LLMServer) -> None:
    running = threading.Semaphore(1)

    def alone(n: int) -> int:
        assert running.acquire(blocking=False)
        running.release()
        return n

    server.replies += [Reply(calls=[Call("alone", {"n": n}) for n in range(8)]), DONE]
    await worker(alone, parallel_tools=False).run("go")
    assert results(server.requests[1]) == [str(n) for n in range(8)]


async def test_async_tools_are_awaited_on_the_loop_and_sync_ones_run_in_threads(server: LLMServer) -> None:
    here = threading.get_ident()

    async def on_the_loop(text: str) -> str:
        await asyncio.sleep(0)
        return f"{text} {threading.get_ident() == here}"

    def in_a_thread(text: str) -> str:
        return f"{text} {threading.get_ident() == here}"

    calls = [Call("on_the_loop", {"text": "async"}), Call("in_a_thread", {"text": "sync"})]
    server.replies += [Reply(calls=calls), DONE]
    await worker(on_the_loop, in_a_thread).run("go")
    assert results(server.requests[1]) == ["async True", "sync False"]


async def test_the_schema_on_the_wire_is_that_of_the_signature(server: LLMServer) -> None:
    def pick(count: int, names: list[str], exact: bool = False) -> str:
        """Pick some names."""
        return ""

    await worker(pick).run("go")
    (offered,) = server.requests[0].body["tools"]
    properties: dict[str, dict[str, Any]] = offered["function"]["parameters"]["properties"]
    assert offered["function"]["description"] == "Pick some names."
    assert {name: schema["type"] for name, schema in properties.items()} == {
        "count": "integer",
        "names": "array",
        "exact": "boolean",
    }
    assert properties["names"]["items"]["type"] == "string"
    assert offered["function"]["parameters"]["required"] == ["count", "names"]


@pytest.mark.parametrize("model", [MODEL, "anthropic/claude-haiku-4-5"])
async def test_every_exception_of_a_tool_reaches_the_model(server: LLMServer, model: str) -> None:
    def fail(kind: str) -> str:
        raise {"value": ValueError, "key": KeyError, "type": TypeError, "connection": ConnectionError}[kind](kind)

    kinds = ["value", "key", "type", "connection"]
    server.replies += [Reply(calls=[Call("fail", {"kind": kind}) for kind in kinds]), DONE]
    agent = Agent("worker", model=model, tools=[fail])
    assert (await agent.run("go")).content == "done"
    sent = str(server.requests[1].body)
    assert all(name in sent for name in ("ValueError", "KeyError", "TypeError", "ConnectionError"))


async def test_malformed_calls_survive_and_every_request_is_well_formed(server: LLMServer) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    wrong = ['{"x": 1, "y": ', "[1, 2]", {"x": 1, "z": 2}, {"x": "one", "y": 2}]
    server.replies += [
        Reply(calls=[*(Call("add", arguments) for arguments in wrong), Call("unheard_of", {})]),
        Reply(calls=[Call("add", {"x": 1, "y": 2})]),
        DONE,
    ]
    assert (await worker(add).run("1 + 2?")).content == "done"
    for request in server.requests:
        assert_well_formed(request)
    not_json, no_object, missing, no_number, unknown = results(server.requests[1])
    assert "not valid JSON" in not_json
    assert "not a JSON object" in no_object
    assert "y" in missing
    assert "x" in no_number
    assert "unknown tool 'unheard_of'; known tools: add" in unknown
    assert results(server.requests[2]) == ["3"]


async def test_a_flaky_tool_recovers_when_the_model_calls_again(server: LLMServer) -> None:
    tries: list[int] = []

    def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("the line is down")
        return "recovered"

    server.replies += [Reply(calls=[Call("flaky")]), Reply(calls=[Call("flaky")]), DONE]
    assert (await worker(flaky).run("go")).content == "done"
    assert "the line is down" in results(server.requests[1])[0]
    assert results(server.requests[2]) == ["recovered"]


class Watch:
    """Observes; `before_model` and `after_tool` are async."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def before_model(self, request: ModelRequest, run: RunInfo) -> None:
        await asyncio.sleep(0)
        self.seen.append("before_model")

    def after_model(self, response: ModelResponse, run: RunInfo) -> None:
        self.seen.append("after_model")

    def before_tool(self, call: ToolCallPart, run: RunInfo) -> None:
        self.seen.append(f"before_tool {call.arguments}")
        if call.arguments == {"path": "/etc"}:
            raise Veto("not this folder")
        if call.arguments == {"path": "/root"}:
            raise PermissionError("nor this one")

    async def after_tool(self, result: ToolCallResponsePart, run: RunInfo) -> None:
        await asyncio.sleep(0)
        self.seen.append(f"after_tool {result.response}")


async def test_hooks_are_called_in_order_and_a_veto_is_a_tool_error(server: LLMServer) -> None:
    deleted: list[str] = []

    def delete(path: str) -> str:
        deleted.append(path)
        return "gone"

    watch = Watch()
    calls = [Call("delete", {"path": path}) for path in ("/tmp", "/etc", "/root")]
    server.replies += [Reply(calls=calls), DONE]
    assert (await worker(delete, hooks=[watch], parallel_tools=False).run("Tidy up.")).content == "done"
    assert watch.seen == [
        "before_model",
        "after_model",
        "before_tool {'path': '/tmp'}",
        "after_tool gone",
        "before_tool {'path': '/etc'}",
        "before_tool {'path': '/root'}",
        "before_model",
        "after_model",
    ]
    assert deleted == ["/tmp"]
    assert ["not this folder" in result or "nor this one" in result for result in results(server.requests[1])] == [
        False,
        True,
        True,
    ]


async def test_an_mcp_server_is_offered_called_and_gone_after_success_and_failure(server: LLMServer) -> None:
    script = Path(__file__).parents[1] / "tools" / "servers" / "misbehaving.py"
    keys = {"type": "stdio", "command": sys.executable, "args": [str(script), ""]}
    before = set(psutil.Process().children(recursive=True))
    started: set[psutil.Process] = set()

    async def story() -> None:
        async with worker(mcp_servers=[keys]) as agent:
            server.replies += [Reply(calls=[Call("worker_0_files_read_text", {"name": "notes"})]), DONE]
            assert (await agent.run("Read the notes.")).content == "done"
            started.update(set(psutil.Process().children(recursive=True)) - before)
            server.replies.append(Reply(status=400))
            await agent.run("And again.")

    with pytest.raises(ModelError):
        await story()
    offered = [tool["function"]["name"] for tool in server.requests[0].body["tools"]]
    assert "worker_0_files_read_text" in offered
    assert results(server.requests[1]) == ["text of notes"]
    assert started
    assert not any(process.is_running() for process in started)
