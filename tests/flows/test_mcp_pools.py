"""MCP servers of a pool that keep silent, talk nonsense or change: what the agents beside them notice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from serving import until

from llmling import Agent, AgentPool, RunResult
from llmling.messages import ToolCallResponsePart
from llmling.tools.mcp import McpServer

TINY = Path(__file__).parents[1] / "tools" / "servers" / "tiny.py"


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    tasks = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - tasks <= {asyncio.current_task()}
    assert psutil.Process().children(recursive=True) == []


def tiny(*args: str) -> dict[str, Any]:
    return {"type": "stdio", "command": sys.executable, "args": [str(TINY), *args]}


def pool(folder: Path, servers: dict[str, Any], script: str, **agents: Any) -> AgentPool[None]:
    (folder / "script.yml").write_text(script)
    a = {"model": "demo:script.yml", "approval": "never", "mcp_servers": [*servers], "trust": "a test"}
    path = folder / "agents.yml"
    path.write_text(yaml.safe_dump({"server": False, "mcp_servers": servers, "agents": {"a": a, **agents}}))
    return AgentPool[None](path)


def results(result: RunResult) -> dict[str, str]:
    """Return what the model read of each tool."""
    parts = [part for message in result.messages for part in message.parts]
    return {part.name: part.response for part in parts if isinstance(part, ToolCallResponsePart)}


def offered(agent: Agent[Any]) -> set[str]:
    return {tool.spec.name for tool in agent.parts.tools()}


async def test_a_silent_server_is_given_up_and_its_agent_works_without_it(tmp_path: Path) -> None:
    silent = {"type": "stdio", "command": sys.executable, "args": ["-c", "import time; time.sleep(600)"]}
    servers = {"good": tiny("good", "word"), "silent": {**silent, "start_timeout_s": 0.5}}
    script = "- {match: word of good, reply: done}\n- {tool_calls: [{name: good_word, arguments: {}}]}\n"
    async with pool(tmp_path, servers, script, b={"model": "demo"}) as entered:
        states = {agent.name: (agent.state, agent.reason) for agent in entered.report.agents}
        assert states["a"][0] == "degraded"
        assert "'silent': no answer within 0.5 s (start_timeout_s)" in states["a"][1]
        assert states["b"] == ("ready", "")
        assert (await entered.get_agent("a").run("go")).content == "done"


async def test_only_the_server_that_talks_nonsense_fails_and_only_for_a_while(tmp_path: Path) -> None:
    servers = {"good": tiny("good", "word"), "bad": tiny("bad", "junk", "flood")}
    calls = "[{name: bad_junk, arguments: {}}, {name: bad_flood, arguments: {}}, {name: good_word, arguments: {}}]"
    script = (
        "- {match: go, times: 1, tool_calls: [{name: bad_junk, arguments: {}}]}\n"
        f"- {{match: junk of bad, times: 1, tool_calls: {calls}}}\n"
        "- {match: again, times: 1, tool_calls: [{name: bad_junk, arguments: {}}]}\n"
        "- {reply: done}\n"
    )
    async with pool(tmp_path, servers, script) as entered:
        agent = entered.get_agent("a")
        read = results(await agent.run("go"))
        assert read["bad_junk"] == "junk of bad"
        assert read["good_word"] == "word of good"
        broke = "MCP server 'bad' broke during this call: it sent a line longer than 33,554,432 bytes"
        assert read["bad_flood"].startswith(broke)
        # The next call waits for the server that is being started anew; the other one has not noticed anything.
        assert results(await agent.run("again")) == {"bad_junk": "junk of bad"}
        starts = {server.name: server.starts for server in agent.parts.providers if isinstance(server, McpServer)}
        assert starts == {"good": 1, "bad": 2}


async def test_the_next_run_sees_a_tool_that_was_added(tmp_path: Path) -> None:
    script = (
        "- {match: grow, times: 1, tool_calls: [{name: good_grow, arguments: {}}]}\n"
        "- {match: use it, times: 1, tool_calls: [{name: good_grown, arguments: {}}]}\n"
        "- {reply: done}\n"
    )
    async with pool(tmp_path, {"good": tiny("good", "grow")}, script) as entered:
        agent = entered.get_agent("a")
        assert offered(agent) == {"good_grow"}
        await agent.run("grow")
        await until(lambda: offered(agent) == {"good_grow", "good_grown"}, "the new tool")
        assert results(await agent.run("use it")) == {"good_grown": "grown of good"}
