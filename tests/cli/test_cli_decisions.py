"""What a person says to events that wait, and to runs at a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from serving import until

from llmling import Agent
from llmling.errors import RunError
from llmling.firing import fire
from llmling.manifest import load
from llmling_cli import main
from llmling_cli.person import attending
from llmling_cli.plan import show

Command: TypeAlias = Callable[..., tuple[int, str, str]]

POOL = """\
server: false
agents:
  clerk:
    model: demo:clerk.yml
    triggers: [{type: webhook, name: hook, port: PORT}]
    tools: [{type: function, function: "letters:send", destructive: true}]
  boss:
    model: human
    instructions: May we buy it?
    output: {type: object, properties: {buy: {type: boolean}}, required: [buy]}
    triggers: [{type: webhook, name: ask, port: PORT, path: /ask}]
"""
CLERK = """\
- {match: "was not called", reply: I did not.}
- {match: sent to, reply: I did.}
- {tool_calls: [{name: send, arguments: {to: Ada}}]}
"""
TOOL = """\
from pathlib import Path

def send(to: str) -> str:
    Path("sent.txt").write_text(to)
    return f"sent to {to}"
"""


@pytest.fixture
def project(tmp_path: Path, free_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "agents.yml").write_text(POOL.replace("PORT", str(free_tcp_port)))
    (tmp_path / "clerk.yml").write_text(CLERK)
    (tmp_path / "letters.py").write_text(TOOL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmling", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def fired(trigger: str) -> str:
    """Send an event through the pool until it waits, and return its id."""
    result = asyncio.run(fire(load("agents.yml"), trigger, data="Tell Ada."))
    assert result.record is not None
    assert result.record.status == "waiting"
    return result.event.id


def finished(event_id: str, command: Command) -> dict[str, object]:
    """Let the pool go on, by another event, and return what became of this one."""
    asyncio.run(fire(load("agents.yml"), "hook", data="was not called"))
    _, out, _ = command("events", "show", "agents.yml", event_id, "--json")
    return json.loads(out)


def test_what_waits_is_shown_and_denied_with_a_reason(command: Command, project: Path) -> None:
    event_id = fired("hook")
    _, out, _ = command("events", "list", "agents.yml", "--status", "waiting")
    assert 'send({"to": "Ada"}) needs approval, agent \'clerk\'' in out
    _, out, _ = command("events", "show", "agents.yml", event_id)
    assert '  asked  send({"to": "Ada"})\n  why  send({"to": "Ada"}) needs approval' in out
    assert f"llmling events approve agents.yml {event_id}" in out
    code, out, _ = command("events", "answer", "agents.yml", event_id, "yes")
    how = f"`llmling events approve agents.yml {event_id}` or `llmling events deny agents.yml {event_id}`"
    assert (code, out.splitlines()[0]) == (1, f"{event_id} waits for no answer; use {how}")
    assert out.splitlines()[1].startswith("still waiting  send(")
    code, out, _ = command("events", "deny", "agents.yml", event_id, "--reason", "she is away")
    assert (code, out) == (0, 'denied  send({"to": "Ada"})\n')
    code, out, _ = command("events", "approve", "agents.yml", event_id)
    assert (code, out.partition("; ")[0]) == (1, f"{event_id} is pending and asks nothing right now")
    record = finished(event_id, command)
    assert (record["status"], record["content"]) == ("done", "I did not.")
    assert not (project / "sent.txt").exists()
    _, out, _ = command("events", "show", "agents.yml", event_id)
    assert "  said   denied she is away\n" in out


@pytest.mark.parametrize(("act", "printed"), [("approve", {"approve": 1}), ("retry", {"retry": 1})])
def test_an_event_is_approved_by_either_command(act: str, printed: dict[str, int], command: Command) -> None:
    event_id = fired("hook")
    code, out, _ = command("events", act, "agents.yml", event_id, "--json")
    assert (code, json.loads(out)) == (0, {"id": event_id, **printed})
    assert finished(event_id, command)["content"] == "I did."
    assert Path("sent.txt").read_text() == "Ada"


def test_a_retry_of_all_that_wait_approves_nothing(command: Command) -> None:
    event_id = fired("hook")
    assert command("events", "retry", "agents.yml", "--status", "waiting")[1] == "1 event to be tried again\n"
    assert finished(event_id, command)["status"] == "waiting"
    assert command("events", "drop", "agents.yml", event_id)[1] == "1 event dropped\n"
    assert not Path("sent.txt").exists()


def test_an_answer_must_fit_and_may_come_from_standard_input(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    event_id = fired("ask")
    code, out, err = command("events", "answer", "agents.yml", event_id, '{"sell": 1}')
    assert (code, out) == (2, "")
    assert "'buy' is a required property" in err
    assert 'Answer with JSON such as {"buy": true}' in err
    _, out, _ = command("events", "show", "agents.yml", event_id)
    assert '  asked  Tell Ada.\n  told   May we buy it?\n  wants  JSON such as {"buy": true}\n  schema {' in out
    [ask] = json.loads(command("events", "show", "agents.yml", event_id, "--json")[1])["asks"]
    assert (ask["agent"], ask["tool"], ask["text"], ask["about"]) == ("boss", None, "Tell Ada.", "May we buy it?")
    assert ask["output_schema"]["required"] == ["buy"]
    code, out, _ = command("events", "approve", "agents.yml", event_id)
    assert (code, out.splitlines()[1]) == (1, "still waiting  question to 'boss': Tell Ada.")
    (tmp_path / "answer.txt").write_text('{"buy": true}')
    with (tmp_path / "answer.txt").open() as answer:
        monkeypatch.setattr(sys, "stdin", answer)
        assert command("events", "answer", "agents.yml", event_id)[:2] == (0, "answered  Tell Ada.\n")
    record = finished(event_id, command)
    assert (record["status"], record["content"], record["cost_usd"]) == ("done", '{"buy": true}', 0.0)


def test_a_question_is_answered_and_not_tried_again_and_says_what_became_of_it(command: Command) -> None:
    event_id = fired("ask")
    code, _, err = command("events", "retry", "agents.yml", event_id)
    assert code == 1
    assert f"waits for the answer to a question; use `llmling events answer agents.yml {event_id} TEXT`" in err
    command("events", "drop", "agents.yml", event_id)
    code, out, _ = command("events", "answer", "agents.yml", event_id, '{"buy": true}')
    retry = f"`llmling events retry agents.yml {event_id}` runs it again"
    reason = f"{event_id} is dead: dropped by operator; {retry}"
    assert (code, out) == (1, f"{reason}\n")
    code, out, _ = command("events", "approve", "agents.yml", event_id, "--json")
    assert json.loads(out) == {"id": event_id, "approve": 0, "reason": reason}


@pytest.mark.parametrize("act", ["approve", "deny", "answer"])
def test_an_unknown_event_is_exit_code_1(act: str, command: Command) -> None:
    fired("ask")
    code, out, err = command("events", act, "agents.yml", "01UNKNOWN", *(["x"] if act == "answer" else []))
    assert (code, out) == (1, "")
    assert "no event '01UNKNOWN'; `llmling events list` shows those there are" in err


async def test_a_run_at_a_terminal_asks_there(project: Path) -> None:
    """One process: the call is refused with a reason, then the boss is asked."""
    text = (project / "agents.yml").read_text().replace("  clerk:\n", "  clerk:\n    connections: [boss]\n")
    (project / "agents.yml").write_text(text.replace("{type: boolean}", "{enum: [Fine., Never.]}"))
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmling_cli", "run", "agents.yml", "clerk", "Tell Ada.", "--stream", "--json",
        stdin=follower, stderr=follower, stdout=asyncio.subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(follower)
    shown = bytearray()
    loop = asyncio.get_running_loop()

    def look() -> None:
        try:
            shown.extend(os.read(leader, 4096))
        except OSError:
            loop.remove_reader(leader)

    loop.add_reader(leader, look)
    await until(lambda: b"allow it? y, or n, or why not: " in shown, "the question about the call", 60)
    os.write(leader, b"she is away\n")
    await until(lambda: b"answer: " in shown, "the question to the boss", 60)
    os.write(leader, b"\n")
    await until(lambda: shown.count(b"answer: ") == 2, "the question again, after an empty line", 60)
    os.write(leader, b"Fine.\n")
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    loop.remove_reader(leader)
    os.close(leader)
    events = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0
    assert b'agent \'clerk\' wants to call send({"to": "Ada"})' in shown
    told = b"May we buy it?\r\nquestion to 'boss': I did not.\r\nanswer with one of: Fine., Never.\r\n"
    assert told in shown
    assert "send was not called: a person refused it: she is away" in [event.get("message") for event in events]
    assert not (project / "sent.txt").exists()


ASKING = """\
mcp_servers: {shelf: {type: stdio, command: python}}
agents:
  a:
    mcp_servers: [shelf]
    tools:
      - rules:read
      - rules:wipe
      - {type: function, function: "rules:send", name: post}
      - {type: function, function: "rules:read", name: look, destructive: true}
      - {type: function, function: "rules:wipe", name: clear, approval: never}
      - {type: agent, name: c}
  b: {approval: always, tools: [rules:read, {type: agent, name: c}], mcp_servers: [shelf]}
  c: {approval: never, tools: [rules:wipe, rules:send], mcp_servers: [shelf]}
  d: {model: human}
"""


def test_plan_tells_which_tools_will_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.yml").write_text(ASKING)
    (tmp_path / "rules.py").write_text("""\
from llmling import tool

def read(): ...

@tool(destructive=True)
def wipe(): ...

@tool(approval="always")
def send(): ...
""")
    show(load(tmp_path / "m.yml"), json=False)
    assert [line for line in capsys.readouterr().out.splitlines() if " asks a person before " in line] == [
        "a asks a person before wipe, post, look, tools not marked as harmless of MCP shelf",
        "b asks a person before read, ask_c, all tools of MCP shelf",
        "c asks a person before send",
    ]


async def test_a_terminal_that_is_closed_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with (
        os.fdopen(leader, "wb", buffering=0) as keyboard,
        os.fdopen(follower, "r") as typed,
        open(os.ttyname(follower), "w") as screen,  # noqa: PTH123 - a terminal
    ):
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(sys, "stderr", screen)
        keyboard.write(b"\x04")
        with pytest.raises(RunError, match="the terminal was closed before a person answered"):
            await Agent("boss", model="human", **attending()).run("Shall we?")


def test_nobody_is_asked_without_a_terminal() -> None:
    assert attending() == {}
