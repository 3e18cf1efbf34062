"""What is a hook, and what is refused as one; hooks of a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import free_port, post, until

from llmling import Agent, AgentPool, tracer
from llmling.errors import ManifestError, StartupError
from llmling.manifest import check
from llmling.messages import ToolCallPart
from llmling.protocols import EventRecord
from llmling.runtime.stream import RunEvent


class Short:
    """A hook that takes too little."""

    def before_tool(self, call: ToolCallPart) -> None:
        """Look."""


class Needs:
    """A hook that cannot be made without arguments."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_event(self, event: RunEvent) -> None:
        """Listen."""


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (42, "none of the methods of a hook"),
        (dict, "class without any method of a hook"),
        (Short(), r"cannot be called as before_tool\(call, run\): it takes \(call"),
        (Needs, "cannot be made without arguments: TypeError"),
        (lambda: None, r"cannot be called as on_event\(event\)"),
        ("nothing_like_it:audit", "no module 'nothing_like_it'"),
    ],
)
def test_what_is_no_hook_is_refused_when_the_agent_is_built(hook: Any, reason: str) -> None:
    with pytest.raises(StartupError, match=reason):
        Agent("a", model="demo", hooks=[hook])


MODULE = '''
from llmling.errors import Veto

heard = []

def audit(event):
    heard.append((event.agent, event.type))

class Guard:
    """Made once for each agent that names it."""

    def before_tool(self, call, run):
        if run.event.source == "inbox":
            raise Veto(f"{call.name} is not for strangers")

def send(text: str) -> str:
    """Send."""
    return "sent"

number = 42
'''

MANIFEST = """
agents:
  mailer:
    model: demo:script.yml
    tools: [hooks_of_a_test:send]
    hooks: [hooks_of_a_test:audit, hooks_of_a_test:Guard]
    triggers: [{type: webhook, name: inbox, port: PORT, auth: {type: none}}]
engine: {type: memory}
server: false
"""


async def test_hooks_of_a_manifest_guard_the_runs_of_its_triggers(tmp_path: Path) -> None:
    port, done = free_port(), list[EventRecord]()
    (tmp_path / "hooks_of_a_test.py").write_text(MODULE)
    (tmp_path / "script.yml").write_text(
        "- {match: is not for strangers, reply: refused}\n- {match: sent, reply: ok}\n"
        "- {tool_calls: [{name: send, arguments: {text: hi}}]}\n"
    )
    (tmp_path / "agents.yml").write_text(MANIFEST.replace("PORT", str(port)))
    async with AgentPool(tmp_path / "agents.yml", on_event=done.append) as pool, aiohttp.ClientSession() as session:
        assert (await pool.get_agent("mailer").run("send it")).content == "ok"
        await post(session, f"http://127.0.0.1:{port}/webhook", {"say": "send it"})
        await until(lambda: done, "the event to settle")
        assert pool.engine is not None
        record = await pool.engine.inspect(done[0].id)
        audit: Any = pool.agents["mailer"].config.hooks
    assert record is not None
    assert record.content == "refused"
    assert audit == ["hooks_of_a_test:audit", "hooks_of_a_test:Guard"]
    tracer().clear()


def test_validate_names_the_place_of_a_hook_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "hooks_of_a_test_too.py").write_text(MODULE)
    hooks = "[hooks_of_a_test_too:audti, hooks_of_a_test_too:number, hooks_of_a_test_too:send]"
    (tmp_path / "agents.yml").write_text(f"agents:\n  a:\n    model: demo\n    hooks: {hooks}\n")
    problems = check(tmp_path / "agents.yml")
    assert [(problem.line, problem.column, problem.code) for problem in problems] == [
        (4, 13, "LL309"),
        (4, 40, "LL309"),
    ]
    assert "did you mean 'audit'" in problems[0].message
    assert "has none of the methods of a hook" in problems[1].message
    with pytest.raises(ManifestError):
        AgentPool(tmp_path / "agents.yml")
    (tmp_path / "agents.yml").write_text("agents:\n  a:\n    model: demo\n    hooks: [hooks_of_a_test_too]\n")
    assert [problem.line for problem in check(tmp_path / "agents.yml")] == [4]
