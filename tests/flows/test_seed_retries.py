"""Retries as the published systems promise them, kept: requests are counted at the server, and none goes unseen."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from llm_server import Call, LLMServer, Reply, Request

from llmling import Agent
from llmling.errors import LimitExceeded, ModelError
from llmling.runtime.stream import RunEvent

OPENAI, ANTHROPIC = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"
FOUR = [OPENAI, ANTHROPIC, "gemini/gemini-2.5-flash", "ollama/llama3.2"]
FAST: dict[str, Any] = {"attempts": 3, "backoff_s": 0}
BAD_DAYS = [
    *((Reply(status=status), stream) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529) for stream in (0, 1)),
    (Reply("x y", cut=True), 0),  # text that has been streamed is never asked for again
]


async def run(agent: Agent[Any], *, stream: bool) -> list[RunEvent]:
    """Run to the end; return the events heard until it answered or failed."""
    events: list[RunEvent] = []
    if not stream:
        await agent.run("hello")
        return events
    async with agent.run_stream("hello") as running:
        async for event in running:
            events.append(event)  # noqa: PERF401 - what came before a failure counts
    return events


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_no_try_can_mend_is_one_request(server: LLMServer, status: int, stream: bool) -> None:
    server.replies += [Reply(status=status)] * 2
    with pytest.raises(ModelError) as caught:
        await run(Agent("a", model=OPENAI, retries=FAST), stream=stream)
    error = caught.value
    assert (error.status, error.provider, error.attempts, error.retryable) == (status, "openai", 1, False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("reply", "stream"), BAD_DAYS)
async def test_as_many_requests_as_attempts_whatever_the_status(server: LLMServer, reply: Reply, stream: int) -> None:
    server.replies += [reply] * 5
    with pytest.raises(ModelError) as caught:
        await run(Agent("a", model=OPENAI, retries=FAST), stream=bool(stream))
    assert (caught.value.attempts, len(server.requests)) == (3, 3)
    assert "after 3 tries" in str(caught.value)


@pytest.mark.parametrize("name", FOUR)
async def test_no_layer_below_retries_by_itself(server: LLMServer, name: str) -> None:
    server.replies += [Reply(status=503)] * 3
    with pytest.raises(ModelError):
        await Agent("a", model=name, retries={"attempts": 1}).run("hello")
    assert len(server.paths) == 1


async def test_never_sooner_than_the_provider_asks(server: LLMServer) -> None:
    server.replies += [Reply(status=429, retry_after="0.3"), Reply("hello")]
    arrived: list[float] = []

    class Clocked:
        def on_event(self, event: RunEvent) -> None:
            if event.type in {"retry", "run_completed"}:
                arrived.append(event.time.timestamp())

    await Agent("a", model=OPENAI, retries={**FAST, "max_backoff_s": 0}, hooks=[Clocked()]).run("hello")
    assert len(server.requests) == 2
    failed, answered = arrived
    assert answered - failed >= 0.29


async def test_a_wait_longer_than_the_run_may_take_fails_at_once_with_the_reason(server: LLMServer) -> None:
    server.replies += [Reply(status=429, retry_after="600")] * 2
    with pytest.raises(ModelError, match=r"the provider asks to wait 6\d\d\.\d s, but only"):
        await Agent("a", model=OPENAI, retries=FAST, limits={"timeout_s": 60}).run("hello")
    assert len(server.requests) == 1


async def test_a_hanging_server_costs_one_timeout_and_is_let_go(server: LLMServer) -> None:
    server.replies += [Reply(hang=True)] * 2
    agent = Agent("a", model=OPENAI, model_settings={"timeout_s": 0.2}, retries={"attempts": 1})
    with pytest.raises(ModelError, match=r"no answer within 0\.2 s") as caught:
        await agent.run("hello")
    assert (caught.value.attempts, len(server.requests)) == (1, 1)
    await asyncio.wait_for(server.requests[0].hung_up.wait(), 30)


async def test_one_time_limit_holds_over_all_tries(server: LLMServer) -> None:
    await Agent("warm", model=OPENAI).run("hello")  # loading litellm takes longer than this run may
    server.requests.clear()
    server.replies += [Reply(status=503), Reply(status=503), Reply(hang=True), Reply("never")]
    agent = Agent("a", model=OPENAI, retries={**FAST, "attempts": 50}, limits={"timeout_s": 1.5})
    with pytest.raises(LimitExceeded, match=r"limits\.timeout_s"):
        await agent.run("hello")
    assert len(server.requests) <= 3
    await asyncio.wait_for(server.requests[-1].hung_up.wait(), 30)


async def test_a_single_429_is_one_retry_event(server: LLMServer) -> None:
    server.replies += [Reply(status=429), Reply("hello")]
    events = await run(Agent("a", model=OPENAI, retries=FAST), stream=True)
    (event,) = (event for event in events if event.type == "retry")
    assert event.data["status"] == 429
    assert json.loads(json.dumps(event.to_dict()))["type"] == "retry"
    assert len(server.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tries_inside_a_fallback_chain_are_seen_too(server: LLMServer, stream: bool) -> None:
    server.replies += [Reply(status=503), Reply(status=503), Reply(status=401), Reply("hello")]
    heard: list[RunEvent] = []
    chain = {"type": "fallback", "models": [OPENAI, ANTHROPIC, "openai/gpt-4o"]}
    agent = Agent("a", model=chain, retries={"attempts": 2, "backoff_s": 0}, hooks=[heard.append])
    await run(agent, stream=stream)
    assert [event.data["status"] for event in heard if event.type == "retry"] == [503, 503, 401]
    assert [request.wire for request in server.requests] == ["openai", "openai", "anthropic", "openai"]


# --- an exchange that is too long -----------------------------------------------------------------------------------


TOO_LONG = {
    "openai": '{"error": {"message": "Too big.", "type": "invalid_request_error", "code": "context_length_exceeded"}}',
    "anthropic": '{"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9"}}',
    "gemini": '{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token count (9) exceeds the '
    'maximum number of tokens allowed (8)."}}',
    "ollama": '{"error": "the input length exceeds the context length"}',
}


def look(page: int) -> str:
    """Look at a page."""
    return f"page {page} " + "nothing of note " * 60


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FOUR)
async def test_too_long_is_one_compaction_and_one_more_request(name: str, stream: bool, server: LLMServer) -> None:
    pages = iter(range(1, 5))

    def answer(request: Request) -> Reply:
        if len(json.dumps(request.body)) > 4000:
            return Reply(status=400, raw=TOO_LONG[request.wire])
        page = next(pages, None)
        return Reply("Nothing.") if page is None else Reply(calls=[Call("look", {"page": page})])

    server.answer = answer
    events: list[RunEvent] = []
    agent = Agent("a", model=name, instructions="Be brief.", tools=[look], hooks=[events.append])
    await run(agent, stream=stream)
    assert events[-1].message == "Nothing."
    sizes = [len(json.dumps(request.body)) for request in server.requests]
    refused = sum(size > 4000 for size in sizes)
    assert refused > 0
    assert len(sizes) == 5 + refused
    for size, following in itertools.pairwise(sizes):
        assert size <= 4000 or following <= 4000
    assert all("hello" in json.dumps(request.body) for request in server.requests)
    assert sum(event.type == "compacted" for event in events) == refused


async def test_too_long_twice_fails_after_two_requests(server: LLMServer) -> None:
    server.replies += [
        Reply(calls=[Call("look", {"page": 1})]),
        *[Reply(status=400, raw=TOO_LONG["anthropic"])] * 3,
    ]
    with pytest.raises(ModelError, match="prompt is too long") as caught:
        await Agent("a", model=ANTHROPIC, tools=[look]).run("hello")
    assert caught.value.too_long
    assert len(server.requests) == 3


@pytest.mark.parametrize("name", FOUR)
async def test_the_last_turn_has_no_tools_of_ours_on_any_wire(name: str, server: LLMServer) -> None:
    server.replies += [
        Reply(calls=[Call("look", {"page": 1})]),
        Reply(calls=[Call("look", {"page": 2})]),
        Reply("So far nothing."),
    ]
    result = await Agent("a", model=name, tools=[look], limits={"max_iterations": 2}).run("hello")
    assert (result.content, result.stop_reason) == ("So far nothing.", "max_iterations")
    offered = ["Look at a page." in json.dumps(request.body.get("tools")) for request in server.requests]
    assert offered == [True, True, False]
