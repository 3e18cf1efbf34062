"""The trace of an event: each run from its start to its end, also when it failed, was cancelled or killed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from serving import llmling
from stage import Stage, eventually

from llmling import Agent, AgentPool
from llmling.errors import ModelError
from llmling.messages import Message, ToolCallPart
from llmling.protocols import ModelRequest
from llmling.runtime.stream import RunEvent
from llmling.testing import ScriptedModel, fire

MANIFEST = """
server: false
limits: {drain_timeout_s: 0}
agents:
  clerk:
    model: demo:script.yml
    tools: [trace_tools:look, {type: agent, name: helper}]
    session: shared
    redelivery: {attempts: 3, backoff_s: 0}
    triggers: [{type: webhook, port: PORT, prompt: "{{ event.data.text }}"}]
  helper: {model: demo:script.yml}
"""
SCRIPT = """
- {match: unknown tool, tool_calls: [{name: ask_helper, arguments: {prompt: help}}]}
- {match: ^help$, reply: helped}
- {match: ^helped, reply: All done.}
- {match: ^broken, error: 500, times: 9}
- {tool_calls: [{name: look, arguments: {}}, {name: nothing, arguments: {}}]}
"""
TOOLS = '''
def look() -> str:
    """Look."""
    return "seen"
'''


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    stage.write("trace_tools.py", TOOLS)
    stage.write("script.yml", SCRIPT)
    return stage


def told(events: list[RunEvent]) -> list[str]:
    return [f"{event.agent} {event.type}" for event in events]


async def test_a_trace_is_read_back_as_what_happened(stage: Stage) -> None:
    async with stage.pool(MANIFEST) as pool:
        await stage.post({"text": "go"})
        record = (await stage.settled(1))[0]
        trace = await pool.trace(record.id)
        assert await pool.trace("01ARZ3NDEKTSV4RRFFQ69G5FAV") == []
    assert told(trace) == [
        "clerk run_started",
        "clerk model_request",
        "clerk tool_called",
        "clerk tool_called",
        "clerk tool_failed",
        "clerk tool_result",
        "clerk model_request",
        "clerk tool_called",
        "clerk handoff",
        "helper run_started",
        "helper model_request",
        "helper run_completed",
        "clerk tool_result",
        "clerk model_request",
        "clerk run_completed",
    ]
    first, last = trace[0], trace[-1]
    assert (first.data["session"], first.run_id) == ("shared", last.run_id)
    assert last.message == "All done."
    assert (trace[-4].message, trace[-3].message) == ("helped", "helped")
    assert [event.time for event in trace] == sorted(event.time for event in trace)
    assert {event.data["delivery"] for event in trace} == {f"{record.id}/clerk"}
    status, out, _ = await llmling(stage.folder, "events", "show", "agents.yml", record.id, "--trace", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert lines == json.loads(json.dumps([event.to_dict() for event in trace]))


async def test_the_trace_of_a_team_has_its_members_inside(stage: Stage) -> None:
    manifest = """
server: false
agents:
  helper: {model: demo:script.yml}
  clerk: {model: demo:script.yml, tools: [trace_tools:look], retries: {attempts: 1}}
teams:
  desk:
    mode: sequential
    members: [helper, clerk]
    redelivery: {attempts: 1}
    triggers: [{type: webhook, port: PORT, prompt: "{{ event.data.text }}"}]
"""
    stage.write("script.yml", "- {match: ^help$, reply: broken}\n- {error: 500}\n")
    async with stage.pool(manifest) as pool:
        await stage.post({"text": "help"})
        record = (await stage.settled(1))[0]
        trace = await pool.trace(record.id)
    assert told(trace) == [
        "desk run_started",
        "helper run_started",
        "helper model_request",
        "helper run_completed",
        "clerk run_started",
        "clerk run_failed",
        "desk run_failed",
    ]


async def test_a_team_whose_member_waits_for_a_person_waits_too(stage: Stage) -> None:
    manifest = """
server: false
agents:
  clerk: {model: demo:script.yml, tools: [{type: function, function: trace_tools:look, approval: always}]}
teams:
  desk:
    mode: sequential
    members: [clerk]
    triggers: [{type: webhook, name: hook, port: PORT, prompt: "{{ event.data.text }}"}]
"""
    stage.write("script.yml", "- {tool_calls: [{name: look, arguments: {}}]}\n")
    async with stage.pool(manifest) as pool:
        record = await fire(pool, "hook", data={"text": "go"}, timeout_s=60)
        trace = await pool.trace(record.id)
    assert record.status == "waiting"
    assert told(trace)[-2:] == ["clerk run_waiting", "desk run_waiting"]


async def test_every_attempt_that_failed_ends_with_run_failed(stage: Stage) -> None:
    async with stage.pool(MANIFEST.replace("session: shared", "retries: {attempts: 2, backoff_s: 0}")) as pool:
        await stage.post({"text": "broken"})
        record = (await stage.settled(1))[0]
        trace = await pool.trace(record.id)
    assert record.status == "dead"
    assert told(trace) == ["clerk run_started", "clerk retry", "clerk run_failed"] * 3
    assert len({event.run_id for event in trace}) == 3
    assert (trace[-1].data["error"], "500" in trace[-1].message) == ("ModelError", True)


async def test_a_run_that_was_cut_off_says_so_and_the_next_one_goes_on(stage: Stage) -> None:
    asked = asyncio.Event()

    async def hang(request: ModelRequest) -> str:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    def pool(model: ScriptedModel) -> AgentPool[None]:
        path = stage.write("agents.yml", MANIFEST.replace("PORT", str(stage.port)))
        agent = Agent[Any]("clerk", model=model, tools=[look])
        return AgentPool[None](path, agents={"clerk": agent}, on_event=stage.done.append)

    def look() -> str:
        """Look."""
        return "seen"

    call = Message("assistant", (ToolCallPart("c1", "look", {}),))
    async with pool(ScriptedModel([call, hang])):
        await stage.post({"text": "go"})
        await asked.wait()
    async with pool(ScriptedModel(["Done."])) as opened:
        record = (await stage.settled(1))[0]
        trace = await opened.trace(record.id)
    assert [event.type for event in trace] == [
        "run_started",
        "model_request",
        "tool_called",
        "tool_result",
        "run_failed",
        "run_started",
        "model_request",
        "run_completed",
    ]
    assert (trace[4].message, trace[4].data["error"]) == ("the run was cancelled", "CancelledError")
    assert trace[-1].message == "Done."


async def test_a_trace_goes_with_its_event(stage: Stage) -> None:
    async with stage.pool(MANIFEST) as pool:
        await stage.post({"text": "go"})
        record = (await stage.settled(1))[0]
        assert await pool.trace(record.id)
        assert pool.engine is not None
        await pool.engine.drop(record.id)
        assert await pool.trace(record.id) == []
        # The conversation stays.
        assert await pool.get_agent("clerk").session("shared").load()


async def test_hooks_hear_of_every_run_of_python_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"

    def audit(event: RunEvent) -> None:
        with log.open("a") as file:
            file.write(json.dumps(event.to_dict()) + "\n")

    async def hang(request: ModelRequest) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    agent = Agent("a", model=ScriptedModel(["fine", ModelError("no", status=400), hang]), hooks=[audit])
    await agent.run("one", session="s")
    with pytest.raises(ModelError):
        await agent.run("two")
    task = asyncio.create_task(agent.run("three"))
    await eventually(lambda: _lines(log, 8), "the third request in the log")
    task.cancel()
    await asyncio.wait({task})
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    kinds = ["run_completed", "run_failed", "run_failed"]
    assert [line["type"] for line in lines] == [
        type_ for end in kinds for type_ in ("run_started", "model_request", end)
    ]
    assert [line["agent"] for line in lines] == ["a"] * 9
    assert lines[0]["session"] == "s"


async def _lines(log: Path, count: int) -> bool:
    return log.exists() and len(log.read_text().splitlines()) >= count
