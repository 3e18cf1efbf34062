"""Nodes that are a person: at the end of a connection, as a tool, in a team, over HTTP and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from office import Office
from serving import Serve, free_port, llmling, post, until

from llmling.asks import Decision
from llmling.errors import OutputError

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
