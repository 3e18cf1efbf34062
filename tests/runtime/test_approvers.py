"""Approval in runs that no engine keeps: who is asked for a call, when, and what the model reads after a no."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmling import Agent, AgentPool, Message, tool
from llmling.errors import ManifestError, RunError
from llmling.messages import ToolCallPart, ToolCallResponsePart
from llmling.protocols import RunInfo
from llmling.testing import ScriptedModel


def calls(*names: str, **arguments: Any) -> Message:
    """Return an answer that calls these tools."""
    return Message("assistant", tuple(ToolCallPart(name, name, arguments) for name in names))


def read(model: ScriptedModel) -> list[str]:
    """Return what the model read about its calls, failed ones marked."""
    parts = [part for part in model.requests[-1].messages[-1].parts if isinstance(part, ToolCallResponsePart)]
    return [f"! {part.response}" if part.failed else part.response for part in parts]


class Desk:
    """Tools that note their calls, and a person that notes what it is asked."""

    def __init__(self, *said: Any) -> None:
        self.log: list[str] = []
        self.runs: list[RunInfo] = []
        self._said = list(said)

    def tools(self) -> list[Callable[..., Any]]:
        def read_only() -> str:
            return self._done("read_only")

        @tool(destructive=True)
        def wipe() -> str:
            return self._done("wipe")

        @tool(approval="always")
        def send() -> str:
            return self._done("send")

        @tool(approval="never", destructive=True)
        def tidy() -> str:
            return self._done("tidy")

        @tool(approval="destructive")
        def look() -> str:
            return self._done("look")

        return [read_only, wipe, send, tidy, look]

    def _done(self, name: str) -> str:
        self.log.append(name)
        return f"{name} done"

    async def approve(self, call: ToolCallPart, run: RunInfo) -> Any:
        self.log.append(f"{call.name}?")
        self.runs.append(run)
        said = self._said.pop(0) if self._said else True
        if isinstance(said, Exception):
            raise said
        return said

    def agent(self, *replies: Message, **options: Any) -> tuple[Agent[Any], ScriptedModel]:
        model = ScriptedModel([*replies, "done"])
        return Agent("clerk", model=model, tools=self.tools(), parallel_init=True, **options), model


ALL = calls("read_only", "wipe", "send", "tidy", "look")


@pytest.mark.parametrize(
    ("approval", "asked"),
    [
        ("always", ["read_only?", "wipe?", "send?"]),
        ("destructive", ["wipe?", "send?"]),
        ("never", ["send?"]),
        (None, ["wipe?", "send?"]),
    ],
)
async def test_whom_a_person_is_asked_for(approval: Any, asked: list[str]) -> None:
    desk = Desk()
    options = {} if approval is None else {"approval": approval}
    agent, model = desk.agent(ALL, approve=desk.approve, **options)
    await agent.run("go")
    # All are asked for before any call is made.
    assert desk.log[: len(asked)] == asked
    assert sorted(desk.log[len(asked) :]) == ["look", "read_only", "send", "tidy", "wipe"]
    assert desk.runs[0].agent == "clerk"
    assert read(model)[0] == "read_only done"


@pytest.mark.parametrize(
    ("said", "reads"),
    [
        (True, "wipe done"),
        (False, "! wipe was not called: a person refused it"),
        ("too late", "! wipe was not called: a person refused it: too late"),
        ("", "! wipe was not called: a person refused it"),
        (KeyError("gone"), "! wipe was not called: asking a person failed: KeyError: 'gone'"),
    ],
)
async def test_what_the_model_reads(said: Any, reads: str) -> None:
    desk = Desk(said)
    agent, model = desk.agent(calls("wipe"), approve=desk.approve)
    await agent.run("go")
    assert read(model) == [reads]
    assert ("wipe" in desk.log) == (said is True)


async def test_an_approver_that_decides_nothing_fails_the_run() -> None:
    desk = Desk(None)
    agent, _ = desk.agent(calls("wipe"), approve=desk.approve)
    with pytest.raises(RunError, match=r"^`approve` of agent 'clerk' returned None for wipe: return True, False or "):
        await agent.run("go")
    assert desk.log == ["wipe?"]


async def test_a_sync_approver_sees_the_call() -> None:
    desk, seen = Desk(), list[tuple[str, Any]]()

    def approve(call: ToolCallPart, run: RunInfo) -> bool:
        seen.append((call.name, call.arguments))
        return False

    agent, _ = desk.agent(calls("wipe", disk="sda"), approve=approve)
    await agent.run("go")
    assert seen == [("wipe", {"disk": "sda"})]


async def test_without_a_person_only_what_always_asks_is_refused() -> None:
    desk = Desk()
    agent, model = desk.agent(ALL)
    await agent.run("go")
    assert sorted(desk.log) == ["look", "read_only", "tidy", "wipe"]
    refused = read(model)[2]
    assert refused.startswith("! send was not called: it needs a person's approval (approval: always)")
    assert "`approve=`" in refused


async def test_calls_that_cannot_be_made_are_not_asked_for() -> None:
    desk = Desk()
    broken = Message("assistant", (ToolCallPart("1", "unknown", {}), ToolCallPart("2", "wipe", "{no json")))
    agent, model = desk.agent(broken, approve=desk.approve)
    await agent.run("go")
    assert desk.log == []
    assert all(line.startswith("! ") for line in read(model))


async def test_a_pool_asks_for_its_agents_and_for_agents_as_tools(tmp_path: Path) -> None:
    (tmp_path / "desk_tools.py").write_text("def send(): return 'sent'\n")
    (tmp_path / "a.yml").write_text("[{match: sent, reply: done}, {tool_calls: [{name: send}]}]")
    (tmp_path / "b.yml").write_text(
        "[{match: done, reply: over}, {tool_calls: [{name: ask_a, arguments: {prompt: x}}]}]"
    )
    manifest = tmp_path / "m.yml"
    manifest.write_text("""
agents:
  a:
    model: demo:a.yml
    tools: [{type: function, function: desk_tools:send, destructive: true}]
  b:
    model: demo:b.yml
    tools: [{type: agent, name: a, approval: always}]
""")
    desk = Desk()
    async with AgentPool(manifest, approve=desk.approve) as pool:
        result = await pool.get_agent("b").run("go")
    assert result.response == "over"
    assert desk.log == ["ask_a?", "send?"]
    assert [run.agent for run in desk.runs] == ["b", "a"]


def test_what_is_misspelt_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'aprove'"):
        AgentPool({"agents": {}}, aprove=print)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="'aprove'; did you mean 'approve'"):
        Agent("a", aprove=print)  # pyright: ignore[reportCallIssue]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ManifestError, match="always"):
        Agent("a", model="demo", approval="sometimes")  # pyright: ignore[reportArgumentType]


SERVER = """
from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("marked", log_level="WARNING")
for name, hints in {
    "bare": None,
    "empty": ToolAnnotations(),
    "idempotent": ToolAnnotations(idempotent_hint=True),
    "destroys": ToolAnnotations(read_only_hint=False, destructive_hint=True),
    "reads": ToolAnnotations(read_only_hint=True),
    "adds": ToolAnnotations(destructive_hint=False),
    "odd": ToolAnnotations(read_only_hint=True, destructive_hint=True),
}.items():
    server.add_tool(lambda name=name: name, name=name, annotations=hints)
server.run()
"""


async def test_the_annotations_of_mcp_tools_decide(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    server = {"type": "stdio", "command": sys.executable, "args": [str(tmp_path / "server.py")]}
    names = ("bare", "empty", "idempotent", "destroys", "reads", "adds", "odd")
    model = ScriptedModel([calls(*(f"clerk_0_{name}" for name in names)), "done"])
    desk = Desk()
    async with Agent("clerk", model=model, mcp_servers=[server], approve=desk.approve) as agent:
        await agent.run("go")
    assert desk.log == [f"clerk_0_{name}?" for name in ("bare", "empty", "idempotent", "destroys")]
    assert read(model) == list(names)
