"""Events that wait for a person: for leave to call tools, and for the answers of a node that is a person."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import Serve, free_port, llmling, post, until

from llmling import Agent, AgentPool, Message, tool
from llmling.asks import Decision
from llmling.errors import OutputError
from llmling.messages import ToolCallPart, ToolCallResponsePart
from llmling.protocols import EventRecord
from llmling.testing import ScriptedModel
from llmling.trace import trace_of


def calls(*wanted: tuple[str, dict[str, Any]]) -> Message:
    """Return an answer that calls tools."""
    return Message("assistant", tuple(ToolCallPart(f"c{n}", name, args) for n, (name, args) in enumerate(wanted)))


def read(model: ScriptedModel) -> list[tuple[str, bool]]:
    """Return the results a model was shown last, and whether they are failures."""
    parts = model.requests[-1].messages[-1].parts
    return [(part.response, part.failed) for part in parts if isinstance(part, ToolCallResponsePart)]


class Office:
    """A pool started again and again on one manifest, and what its tools did."""

    def __init__(self, folder: Path, manifest: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.path = folder / "agents.yml"
        self.path.write_text(manifest.replace("PORT", str(self.port)))
        self.log: list[str] = []
        self.told: asyncio.Queue[EventRecord] = asyncio.Queue()
        self.pool: AgentPool[None]

    def tools(self) -> list[Callable[..., Any]]:
        @tool(destructive=True)
        def send(to: str) -> str:
            self.log.append(f"send {to}")
            return f"sent to {to}"

        def note(text: str) -> str:
            self.log.append(f"note {text}")
            return "noted"

        return [send, note]

    @contextlib.asynccontextmanager
    async def open(self, **agents: Agent[Any]) -> AsyncGenerator[AgentPool[None]]:
        async with AgentPool[None](self.path, agents=agents, on_event=self.told.put_nowait) as self.pool:
            yield self.pool

    async def post(self) -> str:
        async with aiohttp.ClientSession() as session:
            status, body = await post(session, f"http://127.0.0.1:{self.port}/webhook", "Tell Ada.")
        assert status == 202
        return body["event_id"]

    async def next(self, status: str) -> EventRecord:
        """Return the next event that is settled or waits, which has this status."""
        record = await asyncio.wait_for(self.told.get(), 30)
        assert record.status == status, record
        assert self.pool.engine is not None
        full = await self.pool.engine.inspect(record.id)
        assert full is not None
        return full


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


# --- a person as a node ----------------------------------------------------------------------------------------------

PEOPLE = """
server: false
engine: {type: memory}
agents:
  writer:
    model: demo:writer.yml
    triggers: [{type: webhook, name: hook, port: PORT}]
    tools: [WRITERS]
    connections: [CONNECTIONS]
  boss: {model: human, instructions: Say yes or no., OUTPUT sinks: [{type: file, path: out.md}]}
  critic: {model: demo:critic.yml}
  printer: {model: demo:critic.yml}
teams:
  desk: {mode: parallel, members: [critic, boss]}
"""


def people(folder: Path, *, tools: str = "", connections: str = "", output: str = "") -> Office:
    (folder / "writer.yml").write_text(
        "- {match: Buy it, reply: The boss agrees.}\n"
        + ("- {tool_calls: [{name: ask_boss, arguments: {prompt: Shall we?}}]}\n" if tools else "")
        + "- {reply: A draft.}\n"
    )
    (folder / "critic.yml").write_text("- {reply: I do not mind.}\n")
    text = PEOPLE.replace("WRITERS", tools).replace("CONNECTIONS", connections)
    return Office(folder, text.replace("OUTPUT", output and f"output: {output},"))


async def test_a_person_at_the_end_of_a_connection(tmp_path: Path) -> None:
    office = people(tmp_path, connections="boss")
    async with office.open() as pool:
        event_id = await office.post()
        record = await office.next("waiting")
        assert record.error == ("question to 'boss': A draft. (AgentPool.decide in Python)")
        assert await pool.decide(event_id, Decision()) == ()
        (ask,) = await pool.decide(event_id, Decision(answer="Buy it."))
        assert (ask.text, ask.about) == ("A draft.", "Say yes or no.")
        record = await office.next("done")
    assert (tmp_path / "out.md").read_text() == "Buy it.\n"
    assert record.deliveries[-1].content == "Buy it."
    assert record.cost_usd == 0.0


async def test_a_person_as_a_tool(tmp_path: Path) -> None:
    office = people(tmp_path, tools="{type: agent, name: boss}")
    async with office.open() as pool:
        event_id = await office.post()
        assert "Shall we?" in ((await office.next("waiting")).error or "")
        await pool.decide(event_id, Decision(answer="Buy it."))
        assert (await office.next("done")).content == "The boss agrees."


async def test_a_person_in_a_team(tmp_path: Path) -> None:
    office = people(tmp_path, connections="desk")
    async with office.open() as pool:
        event_id = await office.post()
        await office.next("waiting")
        await pool.decide(event_id, Decision(answer="Buy it."))
        record = await office.next("done")
    assert record.deliveries[-1].content == "## critic\n\nI do not mind.\n\n## boss\n\nBuy it."


async def test_a_person_picks_who_answers(tmp_path: Path) -> None:
    office = people(tmp_path, connections="choice")
    manifest = office.path.read_text() + "  choice: {mode: pick, model: human, members: [critic, printer]}\n"
    office.path.write_text(manifest)
    async with office.open() as pool:
        event_id = await office.post()
        record = await office.next("waiting")
        assert "question to 'choice': " in (record.error or "")
        with pytest.raises(OutputError):
            await pool.decide(event_id, Decision(answer='{"member": "boss"}'))
        with pytest.raises(OutputError, match="Answer with one of: critic, printer"):
            await pool.decide(event_id, Decision(answer="boss"))
        await pool.decide(event_id, Decision(answer="critic"))
        record = await office.next("done")
    assert record.deliveries[-1].content == "I do not mind."


async def test_a_question_is_shown_and_answered_over_http_when_only_this_process_has_it(tmp_path: Path) -> None:
    shape = "{type: object, properties: {buy: {enum: ['yes', 'no']}}, required: [buy]}"
    office = people(tmp_path, connections="boss", output=shape)
    office.path.write_text(office.path.read_text().replace("server: false", f"server: {{port: {free_port()}}}"))
    async with office.open() as pool, aiohttp.ClientSession() as session:
        event_id = await office.post()
        record = await office.next("waiting")
        url = f"{pool.report.server_url}/events/{event_id}"
        assert record.error == f"question to 'boss': A draft. (POST {url}/answer {{\"text\": TEXT}}, one of: yes, no)"
        async with session.get(url) as response:
            [asked] = (await response.json())["asks"]
        assert asked.pop("output_schema")["required"] == ["buy"]
        assert asked == {"agent": "boss", "tool": None, "text": "A draft.", "about": "Say yes or no."}
        assert (await post(session, f"{url}/answer", {"text": "no"}))[0] == 200
        await office.next("done")
        async with session.get(url) as response:
            assert "asks" not in await response.json()
    assert (tmp_path / "out.md").read_text() == '{\n  "buy": "no"\n}\n'


async def test_an_answer_must_have_the_shape_of_the_output(tmp_path: Path) -> None:
    shape = "{type: object, properties: {buy: {type: boolean}}, required: [buy]}"
    office = people(tmp_path, connections="boss", output=shape)
    async with office.open() as pool:
        event_id = await office.post()
        await office.next("waiting")
        with pytest.raises(OutputError, match="buy"):
            await pool.decide(event_id, Decision(answer='{"sell": 1}'))
        await pool.decide(event_id, Decision(answer='{"buy": true}'))
        await office.next("done")
    assert (tmp_path / "out.md").read_text() == '{\n  "buy": true\n}\n'


# --- with the command line and a real process ------------------------------------------------------------------------

SERVED = """
server: {port: ADMIN}
limits: {drain_timeout_s: 1}
agents:
  clerk:
    model: demo:clerk.yml
    triggers: [{type: webhook, name: hook, port: PORT}]
    tools: [{type: function, function: letters:send, approval: always}]
    connections: [boss]
  boss:
    model: human
    output: {type: object, properties: {file: {type: boolean}}, required: [file]}
    sinks: [{type: file, path: out.json}]
"""


async def test_approved_denied_and_answered_by_command_line_and_http(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    (tmp_path / "agents.yml").write_text(SERVED.replace("PORT", str(port)).replace("ADMIN", str(admin)))
    (tmp_path / "letters.py").write_text(
        "from pathlib import Path\ndef send(to: str) -> str:\n    with Path('sent.txt').open('a') as sent:\n"
        "        sent.write(to + '\\n')\n    return 'sent'\n"
    )
    (tmp_path / "clerk.yml").write_text(
        "- {match: she is away, reply: Not sent.}\n"
        "- {match: sent, reply: Sent.}\n"
        "- {tool_calls: [{name: send, arguments: {to: Ada}}]}\n"
    )

    async def waiting(serve: Serve, count: int) -> dict[str, Any]:
        lines: list[dict[str, Any]] = await until(
            lambda: found if len(found := [line for line in serve.lines if line["type"] == "waiting"]) >= count else [],
            f"{count} lines of waiting events",
        )
        return lines[count - 1]

    async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
        _, body = await post(session, f"http://127.0.0.1:{port}/webhook", "one")
        first = await waiting(serve, 1)
        assert first["id"] == body["event_id"]
        assert 'send({"to": "Ada"}) needs approval' in first["error"]
        await serve.kill()
        # Nobody serves: the decision is kept.
        code, out, _ = await llmling(tmp_path, "events", "approve", "agents.yml", first["id"])
        assert (code, out) == (0, 'approved  send({"to": "Ada"})\n')
        await serve.start()
        asked = await waiting(serve, 2)
        assert "question to 'boss': Sent." in asked["error"]
        assert (tmp_path / "sent.txt").read_text() == "Ada\n"
        # Somebody serves: it hears of it.
        code, out, err = await llmling(tmp_path, "events", "answer", "agents.yml", first["id"], "yes")
        assert (code, out) == (2, "")
        assert "contains no JSON" in err
        code, out, _ = await llmling(tmp_path, "events", "answer", "agents.yml", first["id"], stdin='{"file": true}')
        assert (code, out) == (0, "answered  Sent.\n")
        await until(lambda: serve.events, "the end of the first event")
        assert (tmp_path / "out.json").read_text() == '{\n  "file": true\n}\n'

        _, body = await post(session, f"http://127.0.0.1:{port}/webhook", "two")
        second = await waiting(serve, 3)
        url = f"http://127.0.0.1:{admin}/events/{second['id']}"
        assert await post(session, f"{url}/approve", {}, Origin="https://evil.example") == (
            401,
            {"error": "web pages of other sites may not post here; set `server.token`"},
        )
        assert await post(session, f"{url}/deny", {"reason": "she is away"}) == (
            200,
            {"event_id": second["id"], "deny": ['send({"to": "Ada"})']},
        )
        asked = await waiting(serve, 4)
        assert "question to 'boss': Not sent." in asked["error"]
        assert (await post(session, f"{url}/answer", {"text": "no"}))[0] == 400
        assert (await post(session, f"{url}/answer", {"text": '{"file": false}'}))[0] == 200
        await until(lambda: len(serve.events) == 2, "the end of the second event")
        assert (tmp_path / "sent.txt").read_text() == "Ada\n"
