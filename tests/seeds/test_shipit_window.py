"""Seed 001: context window, plans and the last turn of a run, counted at the server."""

from __future__ import annotations

from typing import Any

import pytest
from llm_server import Call, LLMServer, Reply, Request

from llmling import Agent
from llmling.runtime.stream import RunEvent

WINDOW = 2000
QUESTION = "How many bridges does the river have, and which is the oldest?"
PAGE = "The river has many bridges, says this page among other things. " * 64  # about 1,000 tokens


def read_page(number: int) -> str:
    """Read a page of the book."""
    return f"Page {number}. {PAGE}"


def reader(**options: Any) -> Agent[None]:
    return Agent(
        "reader",
        model="openai/gpt-4o-mini",
        instructions="You read books.",
        tools=[read_page],
        retries={"attempts": 1},
        **options,
    )


def messages(request: Request) -> list[dict[str, Any]]:
    return request.body["messages"]


def tokens(request: Request) -> int:
    """Return what the server counts: a token for each four characters of all that was said and asked."""
    texts = [f"{message.get('content') or ''}{message.get('tool_calls') or ''}" for message in messages(request)]
    return sum(map(len, texts)) // 4


def read_on(turns: int) -> Any:
    """Return an answer that reads one page after the other, and sums up or plans what has no tools on offer."""
    pages = iter(range(turns))

    def answer(request: Request) -> Reply:
        used = tokens(request)
        if "tools" not in request.body:
            return Reply("1. Read on. 2. Answer.", input_tokens=used)
        number = next(pages, None)
        if number is None:
            return Reply("Seven; the stone one.", input_tokens=used)
        call = Call("read_page", {"number": number})
        return Reply(calls=[call], input_tokens=used)

    return answer


def assert_sound(request: Request) -> None:
    """The question is there, and every tool message answers a call of the message before it."""
    assert any(QUESTION in str(message["content"]) for message in messages(request) if message["role"] == "user")
    open_calls: list[str] = []
    for message in messages(request):
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert open_calls == []
        calls: list[dict[str, Any]] = message.get("tool_calls") or []
        open_calls = [call["id"] for call in calls]
    assert open_calls == []


async def events_of(agent: Agent[None]) -> list[RunEvent]:
    return [event async for event in agent.run_stream(QUESTION)]


@pytest.mark.parametrize("strategy", ["shorten", "summarise"])
async def test_no_request_is_over_the_window_and_the_question_stays(server: LLMServer, strategy: str) -> None:
    server.answer = read_on(8)
    events = await events_of(reader(context={"window_tokens": WINDOW, "strategy": strategy}))
    assert events[-1].message == "Seven; the stone one."
    assert max(map(tokens, server.requests)) <= WINDOW
    turns = [request for request in server.requests if "tools" in request.body]
    assert len(turns) == 9
    for request in turns:
        assert_sound(request)
    assert any(event.type == "compacted" for event in events)
    if strategy == "summarise":
        assert len(server.requests) > len(turns)
        assert "1. Read on." in str(messages(turns[-1]))
    result = events[-1].result
    assert result is not None
    assert sum(turn.role == "tool" for turn in result.messages) == 8, "the result has everything"


async def test_without_a_window_everything_is_sent(server: LLMServer) -> None:
    server.answer = read_on(8)
    events = await events_of(reader())
    assert "compacted" not in {event.type for event in events}
    assert tokens(server.requests[-1]) > 8000


async def test_the_last_turn_fits_too_has_no_tools_and_says_why_it_stopped(server: LLMServer) -> None:
    server.answer = read_on(100)
    agent = reader(context={"window_tokens": WINDOW}, limits={"max_iterations": 4})
    result = await agent.run(QUESTION)
    assert len(server.requests) == 5
    assert ["tools" in request.body for request in server.requests] == [True] * 4 + [False]
    assert max(map(tokens, server.requests)) <= WINDOW
    assert_sound(server.requests[-1])
    assert result.content == "1. Read on. 2. Answer."
    assert result.stop_reason == "max_iterations"


async def test_a_plan_is_made_by_the_model_and_stands_in_what_follows(server: LLMServer) -> None:
    server.answer = read_on(4)
    events = await events_of(reader(plan={"every": 2}))
    plans = [event.message for event in events if event.type == "plan"]
    assert plans == ["1. Read on. 2. Answer."] * 3, "before turns 1, 3 and 5"
    assert len(server.requests) == 5 + 3
    assert all("1. Read on." in str(messages(request)) for request in server.requests[1:])
    for request in server.requests:
        assert_sound(request)
