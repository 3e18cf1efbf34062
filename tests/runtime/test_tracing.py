"""Spans of runs, tries, tool calls and events: who is whose child, what they say, and that they stay few."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from llm_server import Call, LLMServer, Reply
from serving import until
from traced import below, named, nothing_traced_yet

from llmling import Agent, AgentPool, Event, Message, Team, get_tracer, tracer
from llmling.errors import LimitExceeded, ModelError
from llmling.messages import ToolCallPart
from llmling.models.clients import close_clients
from llmling.protocols import ModelRequest
from llmling.runtime.tracing import Span
from llmling.testing import ScriptedModel

FAST = {"backoff_s": 0.0}
TRACE, SENDER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


__all__ = ["nothing_traced_yet"]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback-0123456789")
        yield server
        await close_clients()


def wants(*tools: str) -> Message:
    """Return an answer that asks for tools without arguments."""
    return Message("assistant", tuple(ToolCallPart(f"c{index}", name, {}) for index, name in enumerate(tools)))


# --- one run -------------------------------------------------------------------------------------------------------


async def test_the_last_span_after_a_run_has_its_model_tokens_cost_and_latency(server: LLMServer) -> None:
    server.replies += [Reply(calls=[Call("add", {"a": 1, "b": 2})]), Reply("three", delay_s=0.05)]

    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    result = await Agent("adder", model="openai/gpt-4o-mini", tools=[add]).run("1 + 2?")
    metadata = get_tracer().get_spans()[-1].metadata
    assert metadata["model"] == "gpt-4o-mini"
    assert metadata["tokens"] == result.tokens_used == 2 * 18
    assert (metadata["input_tokens"], metadata["output_tokens"]) == (22, 14)
    assert metadata["cost_usd"] == pytest.approx(result.cost_usd)
    assert metadata["cost_usd"] > 0
    assert 50 <= result.spans[2].latency_ms <= metadata["latency_ms"]
    assert metadata["latency_ms"] == pytest.approx(result.latency_s * 1000, rel=0.2)
    assert (metadata["retries"], metadata["error"], metadata["provider"]) == (0, None, "openai")
    assert [span.name for span in result.spans] == [
        "chat gpt-4o-mini",
        "execute_tool add",
        "chat gpt-4o-mini",
        "invoke_agent adder",
    ]
    assert list(result.spans) == tracer().spans()


async def test_the_names_are_those_of_opentelemetry_and_nothing_that_was_said_is_kept() -> None:
    model = ScriptedModel([wants("look"), "the secret answer"], name="openai/gpt-4o-mini")

    def look() -> str:
        """Look."""
        return "secret result"

    agent = Agent("scout", model=model, instructions="secret orders", tools=[look], model_settings={"temperature": 0.2})
    result = await agent.run("secret question")
    first, tool, _, run = result.spans
    assert run.operation == run.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert run.attributes["gen_ai.agent.name"] == "scout"
    assert run.attributes["llmling.run_id"] == result.run_id
    assert first.attributes["gen_ai.provider.name"] == "openai"
    assert first.attributes["gen_ai.request.model"] == "gpt-4o-mini"
    assert first.attributes["gen_ai.request.temperature"] == 0.2
    assert first.attributes["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert first.attributes["gen_ai.usage.input_tokens"] > 0
    assert first.attributes["gen_ai.agent.name"] == "scout"
    assert (tool.operation, tool.attributes["gen_ai.tool.name"]) == ("execute_tool", "look")
    assert tool.attributes["gen_ai.tool.call.id"] == "c0"
    text = json.dumps([span.to_dict() for span in result.spans])
    assert "secret" not in text
    assert {len(span.trace_id) for span in result.spans} == {32}
    assert {len(span.span_id) for span in result.spans} == {16}


async def test_every_request_to_the_server_is_one_span_and_failed_tries_are_errors(server: LLMServer) -> None:
    server.replies += [Reply("slow down", status=429, retry_after="0"), Reply("down", status=503), Reply("at last")]
    result = await Agent("a", model="openai/gpt-4o-mini", retries=FAST).run("hello")
    tries = named("chat gpt-4o-mini")
    assert len(tries) == len(server.requests) == 3
    assert [span.status for span in tries] == ["error", "error", "ok"]
    assert [span.attributes.get("error.type") for span in tries] == ["429", "503", None]
    assert [span.metadata["retries"] for span in tries] == [0, 1, 2]
    assert "slow down" in (tries[0].error or "")
    run = result.spans[-1]
    assert (run.status, run.metadata["retries"], run.metadata["tokens"]) == ("ok", 2, 18)


async def test_a_failed_run_is_an_error_and_says_what_it_spent(server: LLMServer) -> None:
    server.replies += [Reply(calls=[Call("nope")]), Reply("bad key", status=401)]
    with pytest.raises(ModelError):
        await Agent("a", model="openai/gpt-4o-mini").run("hello")
    run = tracer().spans()[-1]
    assert (run.name, run.status, run.attributes["error.type"]) == ("invoke_agent a", "error", "401")
    assert "bad key" in (run.error or "")
    assert run.metadata["tokens"] == 18
    assert below(run) == ["chat gpt-4o-mini", "execute_tool nope", "chat gpt-4o-mini"]
    assert "unknown tool" in (named("execute_tool nope")[0].error or "")


async def test_streamed_runs_are_traced_alike_and_leaving_one_is_an_error(server: LLMServer) -> None:
    server.replies += [Reply("one two three"), Reply("one two three", hang_after=1), Reply("one two", cut=True)]
    agent = Agent("a", model="openai/gpt-4o-mini", retries={"attempts": 1})
    async with agent.run_stream("hello") as stream:
        async for _ in stream:
            pass
    assert [span.name for span in stream.result.spans] == ["chat gpt-4o-mini", "invoke_agent a"]
    assert stream.result.spans[0].metadata["tokens"] == 18
    async for event in agent.run_stream("hello"):
        if event.type == "text_delta":
            break
    await until(lambda: len(tracer().spans()) == 4, "the spans of the run that was left")
    assert [span.status for span in tracer().spans()] == ["ok", "ok", "error", "error"]
    with pytest.raises(ModelError):
        async for _ in agent.run_stream("hello"):
            pass
    assert [span.status for span in tracer().spans()[4:]] == ["error", "error"]


async def test_a_run_that_took_too_long_is_an_error() -> None:
    async def slow(request: ModelRequest) -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises((LimitExceeded, ModelError)):
        await Agent("a", model=ScriptedModel(slow), limits={"timeout_s": 0.1}).run("hello")
    assert [span.status for span in tracer().spans()] == ["error", "error"]


async def test_each_model_of_a_fallback_chain_has_spans_of_its_own(server: LLMServer) -> None:
    server.replies += [Reply(status=503), Reply(status=503), Reply("from b")]
    model = {"type": "fallback", "models": ["openai/a", "openai/b"]}
    result = await Agent("a", model=model, retries={"attempts": 2, "backoff_s": 0}).run("hello")
    assert [(span.name, span.status) for span in result.spans] == [
        ("chat a", "error"),
        ("chat a", "error"),
        ("chat b", "ok"),
        ("invoke_agent a", "ok"),
    ]
    assert result.spans[-1].metadata["model"] == "b"


# --- who is whose child ----------------------------------------------------------------------------------------------


async def test_gathered_runs_are_nobodys_children_and_each_has_its_trace() -> None:
    together = asyncio.Barrier(3)

    async def answer(request: ModelRequest) -> str:
        await together.wait()
        return "ok"

    agents = [Agent(name, model=ScriptedModel(answer)) for name in "abc"]
    results = await asyncio.gather(*(agent.run("go") for agent in agents))
    runs = [result.spans[-1] for result in results]
    assert [run.parent_id for run in runs] == [None, None, None]
    assert len({run.trace_id for run in runs}) == 3
    for result in results:
        assert [span.parent_id for span in result.spans] == [result.spans[-1].span_id, None]
        assert tracer().spans(result.spans[-1].trace_id) == list(result.spans)


def test_runs_without_await_and_in_threads_are_seen_under_the_same_names() -> None:
    agent = Agent("a", model=ScriptedModel(lambda request: "ok"))
    assert agent.run_sync("here").content == "ok"

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(agent.run_sync, "there") for _ in range(3)))
        await agent.run("here")

    asyncio.run(main())
    assert [span.name for span in named("invoke_agent a")] == ["invoke_agent a"] * 5
    assert all(run.parent_id is None for run in named("invoke_agent a"))
    assert len({run.trace_id for run in named("invoke_agent a")}) == 5


async def test_runs_inside_tools_are_children_of_the_call_also_in_threads() -> None:
    helper = Agent("helper", model=ScriptedModel(lambda request: "helped"))

    async def here() -> str:
        """Here."""
        return (await helper.run("help")).response

    def in_a_thread() -> str:
        """In a thread."""
        return helper.run_sync("help").response

    model = ScriptedModel([wants("here", "in_a_thread"), "done"])
    result = await Agent("boss", model=model, tools=[here, in_a_thread]).run("go")
    calls = {span.attributes["gen_ai.tool.name"]: span for span in result.spans if span.operation == "execute_tool"}
    assert below(calls["here"]) == below(calls["in_a_thread"]) == ["invoke_agent helper"]
    assert {span.trace_id for span in tracer().spans()} == {result.spans[-1].trace_id}
    assert result.spans[-1].metadata["tokens"] == result.tokens_used


async def test_agents_asked_by_a_model_and_members_of_teams_are_children(tmp_path: Path) -> None:
    script = "- {match: go, tool_calls: [{name: ask_desk, arguments: {prompt: well}}]}\n- reply: done\n"
    (tmp_path / "script.yml").write_text(script)
    (tmp_path / "agents.yml").write_text(
        """
agents:
  boss: {model: demo:script.yml, tools: [{type: agent, name: desk}]}
  one: {model: demo}
  two: {model: demo}
teams:
  desk: {mode: parallel, members: [one, two]}
"""
    )
    async with AgentPool(tmp_path / "agents.yml") as pool:
        result = await pool.get_agent("boss").run("go")
    assert below(named("execute_tool ask_desk")[0]) == ["invoke_workflow desk"]
    desk = named("invoke_workflow desk")[0]
    assert sorted(below(desk)) == ["invoke_agent one", "invoke_agent two"]
    assert desk.metadata["tokens"] > 0
    assert {span.trace_id for span in tracer().spans()} == {result.spans[-1].trace_id}


async def test_teams_hand_over_the_spans_of_their_members() -> None:
    team = Team([Agent(name, model=ScriptedModel(["ok"])) for name in "ab"], mode="sequential", name="desk")
    result = await team.run("go")
    assert [span.name for span in result.spans] == [
        "chat scripted",
        "invoke_agent a",
        "chat scripted",
        "invoke_agent b",
        "invoke_workflow desk",
    ]
    assert result.spans[-1].metadata["tokens"] == result.tokens_used


async def test_a_chain_in_python_is_one_trace_whoever_fills_the_channel_first() -> None:
    first, second, third = (Agent(name, model=ScriptedModel(lambda request: "ok")) for name in "abc")
    first >> second >> third
    results = await asyncio.gather(*(first.run(str(n), wait_for_connections=True) for n in range(5)))
    for result in results:
        spans = {span.name: span for span in tracer().spans(result.spans[-1].trace_id) if "agent" in span.name}
        assert sorted(spans) == ["invoke_agent a", "invoke_agent b", "invoke_agent c"]
        assert spans["invoke_agent b"].parent_id == spans["invoke_agent a"].span_id
        assert spans["invoke_agent c"].parent_id == spans["invoke_agent b"].span_id


async def test_what_is_submitted_belongs_to_its_own_event() -> None:
    agent = Agent("a", model=ScriptedModel(lambda request: "ok"))
    headers = {"Traceparent": f"00-{TRACE}-{SENDER}-01"}
    await agent.submit("one", event=Event("test", "test", headers=headers))
    await agent.submit("two")
    await agent.complete_tasks()
    one, two = named("invoke_agent a")
    assert (one.trace_id, one.parent_id) == (TRACE, SENDER)
    assert two.trace_id != TRACE
    assert two.parent_id is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{SENDER}-01",
        f"00-{'0' * 32}-{SENDER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SENDER}-01",
        f"00-{TRACE}-{SENDER}-01, 00-{TRACE}-{SENDER}-01x\n",
    ],
)
async def test_a_traceparent_that_is_none_is_ignored(header: str) -> None:
    agent = Agent("a", model=ScriptedModel(["ok"]))
    result = await agent.run("go", event=Event("test", "test", headers={"traceparent": header}))
    assert result.spans[-1].trace_id != TRACE
    assert result.spans[-1].parent_id is None


# --- the tracer ------------------------------------------------------------------------------------------------------


async def test_only_the_newest_spans_are_kept() -> None:
    agent = Agent("a", model=ScriptedModel(lambda request: "ok"))
    tracer().keep(10)
    for _ in range(20):
        await agent.run("go")
    assert len(tracer().spans()) == 10
    assert tracer().spans()[-1].name == "invoke_agent a"
    tracer().clear()
    assert tracer().spans() == []


async def test_nothing_grows_with_the_number_of_runs() -> None:
    model = ScriptedModel(lambda request: "ok")
    agent = Agent("a", model=model)
    tracer().keep(100)

    async def runs(count: int) -> int:
        for _ in range(count):
            await agent.run("go")
            model.requests.clear()
            await asyncio.sleep(0)  # the loop forgets timers only when it gets a turn
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    await runs(150)
    tracemalloc.start()
    try:
        before = await runs(150)
        assert await runs(600) - before < 100_000
    finally:
        tracemalloc.stop()


async def test_a_task_left_behind_by_a_tool_does_not_pile_up_spans_in_it() -> None:
    helper, started = Agent("helper", model=ScriptedModel(lambda request: "ok")), list[asyncio.Task[Any]]()

    async def begin() -> str:
        """Begin."""
        started.append(await helper.run_in_background("round", interval=0.0, max_count=30))
        return "begun"

    result = await Agent("boss", model=ScriptedModel([wants("begin"), "done"]), tools=[begin]).run("go")
    await started[0]
    call = next(span for span in result.spans if span.operation == "execute_tool")
    assert below(call).count("invoke_agent helper") == 30
    assert len(result.spans) == 4


async def test_a_listener_hears_every_span_until_it_is_removed_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent, heard = Agent("a", model=ScriptedModel(lambda request: "ok")), list[Span]()

    def broken(span: Span) -> None:
        raise ValueError("no disk")

    remove_broken, remove = tracer().on_span(broken), tracer().on_span(heard.append)
    try:
        with caplog.at_level(logging.CRITICAL, "llmling.tracing"):
            assert (await agent.run("go")).content == "ok"
    finally:
        remove_broken()
    assert heard == tracer().spans()
    remove()
    await agent.run("go")
    assert len(heard) == 2
    assert len(tracer().spans()) == 4
