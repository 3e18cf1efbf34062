"""Events that wait for leave to call tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from office import Office

from llmling import Agent, Message, tool
from llmling.asks import Decision
from llmling.messages import ToolCallPart, ToolCallResponsePart
from llmling.testing import ScriptedModel
from llmling.trace import trace_of


def calls(*wanted: tuple[str, dict[str, Any]]) -> Message:
    """Return an answer that calls tools."""
    return Message("assistant", tuple(ToolCallPart(f"c{n}", name, args) for n, (name, args) in enumerate(wanted)))


def read(model: ScriptedModel) -> list[tuple[str, bool]]:
    """Return the results a model was shown last, and whether they are failures."""
    parts = model.requests[-1].messages[-1].parts
    return [(part.response, part.failed) for part in parts if isinstance(part, ToolCallResponsePart)]


MANIFEST = """
server: false
engine: {type: ENGINE}
limits: {drain_timeout_s: 0}
agents:
  clerk:
    triggers: [{type: webhook, name: hook, port: PORT}]
    sinks: [{type: file, path: out.md}]
  helper: {}
"""
MEMORY = MANIFEST.replace("ENGINE", "memory")
SQLITE = MANIFEST.replace("ENGINE", "sqlite")


def clerk(office: Office, *replies: Any, **options: Any) -> tuple[Agent[Any], ScriptedModel]:
    model = ScriptedModel(replies)
    return Agent("clerk", model=model, tools=office.tools(), **options), model


async def test_an_event_waits_shows_what_is_wanted_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_TOKEN", "hunter2hunter2")
    monkeypatch.chdir(tmp_path)
    office = Office(tmp_path, MEMORY)
    arguments = {"to": "ada hunter2hunter2 " + "x" * 600, "api_key": "abc", "more": [{"Password": "def"}]}

    @tool(destructive=True)
    def send(to: str, api_key: str, more: list[dict[str, str]]) -> str:
        office.log.append(f"{to.split()[0]} {api_key} {more[0]['Password']}")
        return "sent"

    model = ScriptedModel([calls(("send", arguments)), "all sent"])
    agent = Agent[Any]("clerk", model=model, tools=[send], sinks=[{"type": "file", "path": "out.md"}])
    async with office.open(clerk=agent) as pool:
        event_id = await office.post()
        record = await office.next("waiting")
        assert record.error is not None
        shown, _, how = record.error.partition(" needs approval, agent 'clerk' ")
        assert shown.startswith('send({"to": "ada *** xxx')
        assert len(shown) == len("send()") + 500
        assert how.endswith("(AgentPool.decide in Python)")
        assert "hunter2" not in record.error
        assert office.log == []
        assert not (tmp_path / "out.md").exists()
        assert [ask.tool for ask in await pool.decide(event_id, Decision())] == ["send"]
        await office.next("done")
    # Called once with what the model sent, and the reply was not asked for again.
    assert office.log == ["ada abc def"]
    assert len(model.requests) == 2
    assert (tmp_path / "out.md").read_text() == "all sent\n"


async def test_after_a_no_the_model_reads_the_reason_and_goes_on(tmp_path: Path) -> None:
    office = Office(tmp_path, MEMORY)
    agent, model = clerk(office, calls(("send", {"to": "ada"})), "then not")
    async with office.open(clerk=agent) as pool:
        event_id = await office.post()
        await office.next("waiting")
        await pool.decide(event_id, Decision(approved=False, reason="she is away"))
        assert (await office.next("done")).content == "then not"
    assert read(model) == [("send was not called: a person refused it: she is away", True)]
    assert office.log == []


async def test_no_call_of_a_reply_is_made_before_the_decision(tmp_path: Path) -> None:
    office = Office(tmp_path, MEMORY)
    wanted = calls(("note", {"text": "a"}), ("send", {"to": "ada"}), ("send", {"to": "bob"}))
    agent, model = clerk(office, wanted, "done")
    async with office.open(clerk=agent) as pool:
        event_id = await office.post()
        record = await office.next("waiting")
        assert 'send({"to": "ada"})' in (record.error or "")
        assert 'send({"to": "bob"})' in (record.error or "")
        assert office.log == []
        assert len(await pool.decide(event_id, Decision())) == 2
        await office.next("done")
    assert sorted(office.log) == ["note a", "send ada", "send bob"]
    assert [failed for _, failed in read(model)] == [False, False, False]


async def test_a_call_beside_an_agent_that_asks_is_made_once(tmp_path: Path) -> None:
    office = Office(tmp_path, MEMORY.replace("  clerk:\n", "  clerk:\n    model: demo:clerk.yml\n    tools: TOOLS\n"))
    (tmp_path / "office_tools.py").write_text(
        "def note(text):\n    with open('NOTES', 'a') as file:\n        file.write(text)\n".replace(
            "NOTES", str(tmp_path / "notes.txt")
        )
    )
    office.path.write_text(office.path.read_text().replace("TOOLS", "[{type: agent, name: helper}, office_tools:note]"))
    (tmp_path / "clerk.yml").write_text(
        "- {match: sent it, reply: all settled}\n"
        "- tool_calls:\n"
        "  - {name: ask_helper, arguments: {prompt: Tell Ada}}\n"
        "  - {name: note, arguments: {text: once}}\n"
    )
    model = ScriptedModel([calls(("send", {"to": "ada"})), "sent it"])
    helper = Agent[Any]("helper", model=model, tools=office.tools())
    async with office.open(helper=helper) as pool:
        event_id = await office.post()
        record = await office.next("waiting")
        assert "agent 'helper'" in (record.error or "")
        # The other call was not cut short, and is not in flight.
        assert (tmp_path / "notes.txt").read_text() == "once"
        await pool.decide(event_id, Decision())
        assert (await office.next("done")).content == "all settled"
    assert (tmp_path / "notes.txt").read_text() == "once"
    assert office.log == ["send ada"]
    assert len(model.requests) == 2


async def test_a_restart_while_it_waits_loses_nothing(tmp_path: Path) -> None:
    office = Office(tmp_path, SQLITE)
    agent, _ = clerk(office, calls(("note", {"text": "first"})), calls(("send", {"to": "ada"})))
    async with office.open(clerk=agent):
        event_id = await office.post()
        await office.next("waiting")
    agent, model = clerk(office, "all settled")
    async with office.open(clerk=agent) as pool:
        assert pool.engine is not None
        assert await pool.engine.counts() == {"waiting": 1}
        assert model.requests == []
        await pool.decide(event_id, Decision())
        assert (await office.next("done")).content == "all settled"
    assert office.log == ["note first", "send ada"]
    assert len(model.requests) == 1


async def test_an_answer_that_had_to_be_given_again_is_given_again_after_the_decision(tmp_path: Path) -> None:
    office = Office(tmp_path, MEMORY)
    shape = {"type": "object", "properties": {"sent": {"type": "boolean"}}, "required": ["sent"]}
    agent, model = clerk(office, "no JSON", calls(("send", {"to": "ada"})), '{"sent": true}', output=shape)
    async with office.open(clerk=agent) as pool:
        event_id = await office.post()
        await office.next("waiting")
        await pool.decide(event_id, Decision())
        record = await office.next("done")
    # The first reply was taken from the journal, so the run came to the call that was approved, and made it once.
    assert (office.log, record.content) == (["send ada"], '{"sent": true}')
    assert len(model.requests) == 3
    types = [event.type for event in trace_of(record)]
    assert types.count("run_completed") == 1


async def test_never_and_an_agent_from_outside_the_manifest(tmp_path: Path) -> None:
    office = Office(tmp_path, MEMORY)
    outside = Agent[Any]("outside", model=ScriptedModel([calls(("send", {"to": "bob"})), "over"]), tools=office.tools())
    agent, _ = clerk(office, calls(("send", {"to": "ada"})), "done", approval="never")
    agent.connect_to(outside)
    async with office.open(clerk=agent) as pool:
        event_id = await office.post()
        record = await office.next("waiting")
        assert 'send({"to": "bob"}) needs approval, agent \'outside\'' in (record.error or "")
        assert office.log == ["send ada"]
        await pool.decide(event_id, Decision())
        await office.next("done")
    assert office.log == ["send ada", "send bob"]


TINY = Path(__file__).parents[1] / "tools" / "servers" / "tiny.py"
COLLIDING = f"""
mcp_servers:
  a: {{type: stdio, command: {sys.executable}, args: [{TINY}, a, b_delete]}}
  a_b: {{type: stdio, command: {sys.executable}, args: [{TINY}, a_b, delete]}}
"""


async def test_a_call_that_was_approved_reaches_the_tool_it_was_approved_for(tmp_path: Path) -> None:
    manifest = SQLITE.replace("  clerk:\n", "  clerk:\n    model: demo:clerk.yml\n    mcp_servers: [a, a_b]\n")
    office = Office(tmp_path, COLLIDING + manifest)
    (tmp_path / "clerk.yml").write_text(
        "- {match: delete of a_b, reply: over}\n"
        "- tool_calls: [{name: a_b_delete, arguments: {}}, {name: a_b_delete_2, arguments: {}}]\n"
    )
    async with office.open():
        event_id = await office.post()
        await office.next("waiting")
    # Without the first server its tool's name belongs to the second one.
    (tmp_path / "a.broken").write_text("")
    async with office.open() as pool:
        assert len(await pool.decide(event_id, Decision())) == 2
        record = await office.next("done")
        assert [tool.spec.name for tool in pool.get_agent("clerk").parts.tools()] == ["a_b_delete"]
    results = {step.key: step.data["response"] for step in record.deliveries[0].steps if step.kind == "result"}
    assert results["0.0:result"] == (
        "a_b_delete was not called: the tool that had this name is not on offer now, and another one has it"
    )
    assert results["0.1:result"] == "delete of a_b"
