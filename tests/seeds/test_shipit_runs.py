"""Seed 001: runs, streams and what they leave behind, over OpenAI's wire format."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterable
from typing import Any

import pytest
from llm_server import Call, LLMServer, Reply, Request

from llmling import Agent
from llmling.errors import ModelError
from llmling.messages import ToolCallResponsePart
from llmling.runtime.stream import RunEvent, RunStream

MODEL = "openai/gpt-4o-mini"
TWO_CALLS = Reply("Let me look.", calls=[Call("search_web", {"query": "news"}), Call("fetch_url", {"url": "x"})])


def search_web(query: str) -> str:
    return f"Results for: {query}"


def fetch_url(url: str) -> str:
    return f"Content of {url}"


def researcher(**options: Any) -> Agent[None]:
    options = {"retries": {"attempts": 1}, "tools": [search_web, fetch_url], **options}
    return Agent("researcher", model=MODEL, instructions="You are a research assistant.", **options)


async def read(stream: RunStream, events: list[RunEvent]) -> None:
    async for event in stream:
        events.append(event)  # noqa: PERF401 - what came before a failure counts


def after_tools(request: Request) -> bool:
    return request.body["messages"][-1]["role"] == "tool"


async def test_a_result_has_text_turns_and_the_sum_of_what_was_used(server: LLMServer) -> None:
    server.replies += [TWO_CALLS, Reply("All is well.", input_tokens=100, output_tokens=9)]
    result = await researcher().run("Research quantum computing advances")
    assert result.content == "All is well."
    assert [turn.role for turn in result.messages] == ["system", "user", "assistant", "tool", "assistant"]
    answers = [part.response for part in result.messages[3].parts if isinstance(part, ToolCallResponsePart)]
    assert answers == ["Results for: news", "Content of x"]
    assert (result.usage.input_tokens, result.usage.output_tokens) == (11 + 100, 7 + 9)
    assert (result.usage.requests, result.usage.tool_calls) == (2, 2)
    assert result.tokens_used == 127
    assert (result.model, result.stop_reason) == (MODEL, "stop")
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_stream_has_its_events_in_order_each_one_line_of_json(server: LLMServer, parallel: bool) -> None:
    server.replies += [TWO_CALLS, Reply("All is well.")]
    async with researcher(parallel_tools=parallel).run_stream("Search for Python news") as stream:
        events = [event async for event in stream]
    assert all(event.message for event in events), "each says something"
    types = [event.type for event in events if event.type != "text_delta"]
    assert types[:2] == ["run_started", "model_request"]
    calls = ["tool_called", "tool_result"] * 2 if not parallel else ["tool_called"] * 2 + ["tool_result"] * 2
    assert types[2:6] == calls if not parallel else sorted(types[2:6]) == calls
    assert types[6:] == ["model_request", "run_completed"]
    assert "".join(event.text for event in events) == "Let me look.All is well."
    result = events[-1].result
    assert result is not None
    assert (result.usage.input_tokens, result.usage.output_tokens) == (22, 14)
    lines = [json.dumps(event.to_dict()) for event in events]
    assert not any("\n" in line for line in lines)
    assert [json.loads(line)["type"] for line in lines] == [event.type for event in events]
    assert all({"type", "message", "time", "run_id", "agent"} <= json.loads(line).keys() for line in lines)


async def test_text_arrives_while_the_model_is_still_writing(server: LLMServer) -> None:
    rest = asyncio.Event()
    server.replies.append(Reply("one two three", hang_after=2, resume=rest))
    pieces: list[str] = []
    async for event in researcher().run_stream("Count."):
        if event.text:
            pieces.append(event.text)
            if len(pieces) == 2:
                assert not rest.is_set(), "the third word is not written yet"
                rest.set()
    assert pieces == ["one", " two", " three"]


async def test_a_single_429_is_told(server: LLMServer) -> None:
    server.replies += [Reply(status=429, retry_after="0"), Reply("there")]
    events: list[RunEvent] = []
    await read(researcher(retries={"attempts": 2, "backoff_s": 0}).run_stream("Hello?"), events)
    types = [event.type for event in events]
    assert types.count("retry") == 1
    assert next(event for event in events if event.type == "retry").data["status"] == 429
    assert types[-1] == "run_completed"
    assert len(server.requests) == 2


async def test_a_hundred_and_twenty_eight_runs_with_blocking_tools_leave_the_hosts_threads_alone(
    server: LLMServer,
) -> None:
    release, in_tools, all_here = threading.Event(), threading.Semaphore(0), asyncio.Event()
    server.answer = lambda request: (
        Reply("done") if after_tools(request) else Reply(calls=[Call("block")], gate=all_here)
    )

    def block() -> str:
        in_tools.release()
        assert release.wait(60)
        return "ok"

    agent = researcher(tools=[block])
    runs = asyncio.gather(*[agent.run(f"q{number}") for number in range(128)])
    await server.wait_for_requests(128)
    assert server.in_flight == 128
    all_here.set()
    try:
        # Our threads are busy to the last one ...
        for _ in range(64):
            assert await asyncio.to_thread(in_tools.acquire, timeout=60)
        # ... and those of the host are free.
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        assert len(server.requests) == 128
    finally:
        release.set()
    assert {result.content for result in await runs} == {"done"}
    assert len(server.requests) == 256


async def first_word(stream: AsyncIterable[RunEvent]) -> str:
    async for event in stream:
        if event.text:
            return event.text
    return ""


@pytest.mark.parametrize("entered", [True, False])
async def test_leaving_a_stream_aborts_the_request(server: LLMServer, entered: bool) -> None:
    server.replies.append(Reply("one two three", hang_after=1))
    if entered:
        async with researcher().run_stream("Count.") as stream:
            assert await first_word(stream) == "one"
    else:
        assert await first_word(researcher().run_stream("Count.")) == "one"
    async with asyncio.timeout(30):
        await server.requests[0].hung_up.wait()


async def test_two_streams_of_one_agent_are_each_complete(server: LLMServer) -> None:
    both = asyncio.Event()

    def answer(request: Request) -> Reply:
        if len(server.requests) == 2:
            both.set()
        return Reply(f"echo: {request.last_text}", gate=both)

    server.answer = answer
    agent = researcher()
    heard: tuple[list[RunEvent], list[RunEvent]] = ([], [])
    await asyncio.gather(*(read(agent.run_stream(f"q{n}"), events) for n, events in enumerate(heard)))
    for number, events in enumerate(heard):
        assert [event.type for event in events if not event.text] == ["run_started", "model_request", "run_completed"]
        assert "".join(event.text for event in events) == f"echo: q{number}"
        assert len({event.run_id for event in events}) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=401),
        Reply("never the whole of it", cut=True),
        Reply("nor this", unfinished=True),
    ],
)
async def test_a_failed_or_cut_stream_is_an_error(server: LLMServer, reply: Reply) -> None:
    server.replies.append(reply)
    events: list[RunEvent] = []
    with pytest.raises(ModelError):
        await read(researcher().run_stream("Hello?"), events)
    assert events[-1].type == "run_failed"
    assert "run_completed" not in {event.type for event in events}
    assert len(server.requests) == 1
