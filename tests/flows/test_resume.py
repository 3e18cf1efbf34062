"""A run that was cut off goes on where it stopped: nothing is paid or done twice, and what is unsure waits."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import eventually, free_port

from llmling import Agent, AgentPool, Message, tool
from llmling.errors import ModelError
from llmling.messages import ToolCallPart, ToolCallResponsePart
from llmling.protocols import Engine, EventRecord, ModelRequest
from llmling.testing import ScriptedModel

MANIFEST = """
server: false
limits: {drain_timeout_s: 0}
agents:
  clerk:
    redelivery: {attempts: 3, backoff_s: 0}
    triggers: [{type: webhook, name: hook, port: %d}]
    connections: [%s]
  helper: {}
  next: {}
"""


class Story:
    """One manifest, started again and again with other models, as after a crash."""

    def __init__(self, folder: Path, *, connections: str = "") -> None:
        self.port = free_port()
        self.path = folder / "agents.yml"
        self.path.write_text(MANIFEST % (self.port, connections))
        self.calls: list[str] = []
        self.hanging = asyncio.Event()

    async def hang(self, request: ModelRequest | None = None) -> str:
        self.hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    def charge(self, order: str) -> str:
        """Charge an order."""
        self.calls.append(order)
        return f"charged {order}"

    async def slow_charge(self, order: str) -> str:
        """Charge an order, slowly."""
        self.calls.append(order)
        return await self.hang()

    @contextlib.asynccontextmanager
    async def pool(self, **agents: Agent[Any]) -> AsyncGenerator[tuple[Engine, asyncio.Queue[EventRecord]]]:
        done: asyncio.Queue[EventRecord] = asyncio.Queue()
        async with AgentPool(self.path, agents=agents, model="demo", on_event=done.put_nowait) as pool:
            assert pool.engine is not None
            yield pool.engine, done

    async def post(self) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{self.port}/webhook", json={"order": 7}) as response,
        ):
            assert response.status == 202
            return (await response.json())["event_id"]


def ask(name: str, **arguments: Any) -> Message:
    """Return an answer that calls one tool."""
    return Message("assistant", (ToolCallPart("c1", name, arguments),))


def named(name: str, function: Callable[[str], Any], *, idempotent: bool = False) -> Callable[..., Any]:
    """Return a tool of that name that calls another function."""

    @tool(name=name, idempotent=idempotent)
    async def charge(order: str) -> str:
        result = function(order)
        return await result if inspect.isawaitable(result) else result

    return charge


def clerk(replies: list[Any], *tools: Callable[..., Any]) -> tuple[Agent[Any], ScriptedModel]:
    """Return the clerk with its model."""
    model = ScriptedModel(replies)
    return Agent("clerk", model=model, tools=tools), model


async def test_recorded_replies_and_tool_results_are_not_made_again(tmp_path: Path) -> None:
    story = Story(tmp_path)
    agent, _ = clerk([ask("charge", order="7"), story.hang], story.charge)
    async with story.pool(clerk=agent):
        event_id = await story.post()
        await asyncio.wait_for(story.hanging.wait(), 10)
    agent, model = clerk(["all settled"], story.charge)
    async with story.pool(clerk=agent) as (_, done):
        record = await asyncio.wait_for(done.get(), 10)
    assert (record.id, record.status, record.attempts) == (event_id, "done", 1)
    assert story.calls == ["7"]
    assert len(model.requests) == 1
    result = model.requests[0].messages[-1].parts[0]
    assert isinstance(result, ToolCallResponsePart)
    assert result.response == "charged 7"


async def test_an_unmarked_call_in_flight_waits_for_a_decision(tmp_path: Path) -> None:
    story = Story(tmp_path)
    agent, _ = clerk([ask("slow_charge", order="7")], story.slow_charge)
    async with story.pool(clerk=agent):
        event_id = await story.post()
        await asyncio.wait_for(story.hanging.wait(), 10)
    agent, model = clerk(["all settled"], story.slow_charge)
    async with story.pool(clerk=agent) as (engine, done):

        async def waiting() -> EventRecord | None:
            record = await engine.inspect(event_id)
            return record if record is not None and record.status == "waiting" else None

        record = await eventually(waiting, "the event to wait for a decision")
        assert "slow_charge" in (record.error or "")
        assert "llmling events retry" in (record.error or "")
        assert story.calls == ["7"]
        assert model.requests == []
    # The decision survives a restart, and `retry` calls the tool again.
    agent, _ = clerk(["all settled"], named("slow_charge", story.charge))
    async with story.pool(clerk=agent) as (engine, done):
        assert await engine.retry(event_id) == 1
        record = await asyncio.wait_for(done.get(), 10)
    assert record.status == "done"
    assert story.calls == ["7", "7"]


async def test_an_idempotent_call_in_flight_is_made_again(tmp_path: Path) -> None:
    story = Story(tmp_path)
    agent, _ = clerk([ask("charge", order="7")], named("charge", story.slow_charge, idempotent=True))
    async with story.pool(clerk=agent):
        await story.post()
        await asyncio.wait_for(story.hanging.wait(), 10)
    agent, _ = clerk(["all settled"], named("charge", story.charge, idempotent=True))
    async with story.pool(clerk=agent) as (_, done):
        assert (await asyncio.wait_for(done.get(), 10)).status == "done"
    assert story.calls == ["7", "7"]


async def test_the_steps_of_an_agent_used_as_a_tool_are_recorded_too(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.path.write_text(
        story.path.read_text().replace("  clerk:\n", "  clerk:\n    tools: [{type: agent, name: helper}]\n")
    )

    text = story.path.read_text()
    story.path.write_text(text.replace("  clerk:\n", "  clerk:\n    model: demo:clerk.yml\n", 1))
    (tmp_path / "clerk.yml").write_text(
        "- {match: charged, reply: all settled}\n"
        "- {match: order, tool_calls: [{name: ask_helper, arguments: {prompt: charge 7}}]}\n"
    )

    @contextlib.asynccontextmanager
    async def pool(helper_replies: list[Any]) -> AsyncGenerator[asyncio.Queue[EventRecord]]:
        done: asyncio.Queue[EventRecord] = asyncio.Queue()
        helper = Agent("helper", model=ScriptedModel(helper_replies), tools=[story.charge])
        async with AgentPool(story.path, agents={"helper": helper}, on_event=done.put_nowait):
            yield done

    async with pool([ask("charge", order="7"), story.hang]):
        await story.post()
        await asyncio.wait_for(story.hanging.wait(), 10)
    async with pool(["charged it"]) as done:
        record = await asyncio.wait_for(done.get(), 10)
    assert record.status == "done"
    assert story.calls == ["7"]


def read(page: str) -> str:
    """Read a page."""
    return f"page {page}: " + "nothing happened here. " * 60


@pytest.mark.parametrize(("hang_at", "kind"), [(5, "summary"), (6, "plan"), (9, "summary"), (14, "turn")])
async def test_plans_and_summaries_are_not_paid_twice_and_the_model_is_shown_the_same(
    hang_at: int, kind: str, tmp_path: Path
) -> None:
    answered: list[str] = []
    story = Story(tmp_path)

    async def answer(request: ModelRequest) -> Any:
        asked = _kind(request)
        if len(answered) == hang_at - 1 and not story.hanging.is_set():
            assert asked == kind
            await story.hang()
        answered.append(asked)
        if asked != "turn":
            return f"{asked} {len(answered)}"
        turn = answered.count("turn")
        return ask("read", page=str(turn)) if turn < 9 else "All read."

    def agent() -> tuple[Agent[Any], ScriptedModel]:
        model = ScriptedModel(answer)
        window = {"window_tokens": 1500, "strategy": "summarise"}
        return Agent("clerk", model=model, tools=[read], context=window, plan={"every": 3}), model

    clerk_before, before = agent()
    async with story.pool(clerk=clerk_before):
        event_id = await story.post()
        await asyncio.wait_for(story.hanging.wait(), 10)
    clerk_after, after = agent()
    async with story.pool(clerk=clerk_after) as (engine, done):
        record = await asyncio.wait_for(done.get(), 10)
        detail = await engine.inspect(event_id)
    assert (record.status, record.attempts) == ("done", 1)
    # The request that was cut off is made again, word for word; nothing before it is.
    assert after.requests[0].messages == before.requests[-1].messages
    assert detail is not None
    kinds = [step.kind for step in detail.deliveries[0].steps if step.key.endswith((":plan", ":summary", ":reply"))]
    assert len(kinds) == len(before.requests) - 1 + len(after.requests) == len(answered)
    assert answered.count("summary") >= 2
    assert answered.count("plan") == 3


def _kind(request: ModelRequest) -> str:
    if request.messages[-1].text.startswith("Do not answer yet"):
        return "plan"
    return "turn" if request.tools else "summary"


async def test_the_last_turn_is_not_asked_for_again(tmp_path: Path) -> None:
    story = Story(tmp_path, connections="")
    text = story.path.read_text()
    sink = "    limits: {max_iterations: 1}\n    sinks: [{type: file, path: 'gone/{{ event.id }}.md'}]\n"
    story.path.write_text(text.replace("  clerk:\n", "  clerk:\n    tools: ['tools:look']\n" + sink))
    (tmp_path / "tools.py").write_text('def look() -> str:\n    """Look."""\n    return \'seen\'\n')
    (tmp_path / "gone").write_text("in the way")
    script = tmp_path / "script.yml"
    script.write_text(
        "- {match: no tool can be called, reply: As far as I got., times: 1}\n- {tool_calls: [{name: look}]}\n"
    )
    done: asyncio.Queue[EventRecord] = asyncio.Queue()
    async with AgentPool(story.path, model="demo:script.yml", on_event=done.put_nowait) as pool:
        assert pool.engine is not None
        event_id = await story.post()
        record = await asyncio.wait_for(done.get(), 30)
        assert (record.status, record.attempts) == ("dead", 3)
        (tmp_path / "gone").unlink()
        await pool.engine.retry(event_id)
        record = await asyncio.wait_for(done.get(), 30)
        detail = await pool.engine.inspect(event_id)
    assert record.status == "done"
    assert detail is not None
    assert detail.content == "As far as I got."


async def test_a_failing_model_is_tried_again_and_dies_with_its_reason(tmp_path: Path) -> None:
    story = Story(tmp_path, connections="next")
    model = ScriptedModel([ModelError("overloaded", status=503, retryable=True)] * 3)
    agent = Agent[Any]("clerk", model=model, retries={"attempts": 1})
    async with story.pool(clerk=agent) as (engine, done):
        event_id = await story.post()
        record = await asyncio.wait_for(done.get(), 10)
        assert (record.id, record.status, record.attempts) == (event_id, "dead", 3)
        assert (record.error or "").endswith("overloaded [3 model requests in 3 tries of the delivery]")
        detail = await engine.inspect(event_id)
        assert detail is not None
        assert [delivery.agent for delivery in detail.deliveries] == ["clerk"]


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_what_cannot_get_better_dies_at_once(tmp_path: Path, status: int) -> None:
    story = Story(tmp_path)
    agent, model = clerk([ModelError("refused", status=status)])
    async with story.pool(clerk=agent) as (_, done):
        await story.post()
        record = await asyncio.wait_for(done.get(), 10)
    assert (record.status, record.attempts, len(model.requests)) == ("dead", 1, 1)


async def test_a_dead_successor_makes_the_event_dead_and_leaves_the_answer(tmp_path: Path) -> None:
    story = Story(tmp_path, connections="next, {to: helper, transform: 'broken:always'}")
    (tmp_path / "broken.py").write_text("def always(message):\n    raise KeyError('gone')\n")
    agent, _ = clerk(["the answer"])
    async with story.pool(clerk=agent) as (engine, done):
        event_id = await story.post()
        record = await asyncio.wait_for(done.get(), 10)
        detail = await engine.inspect(event_id)
        assert detail is not None
    assert record.status == "dead"
    assert "KeyError" in (record.error or "")
    assert detail is not None
    assert {d.agent: d.status for d in detail.deliveries} == {"clerk": "done", "next": "done", "helper": "dead"}
    assert detail.content == "the answer"
