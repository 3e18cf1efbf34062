"""The pool as a whole: what it reports, how it degrades, drains, and what its pages say."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from serving import eventually, free_port, until

from llmling import Agent, AgentPool, Message
from llmling.errors import EngineBusy, LLMlingError, ManifestError, StartupError
from llmling.protocols import EventRecord, ModelRequest
from llmling.testing import ScriptedModel

LIBRARY = Path(__file__).parents[2] / "examples" / "library_server.py"


def write(folder: Path, text: str) -> Path:
    path = folder / "agents.yml"
    path.write_text(text)
    return path


async def test_a_dead_mcp_server_degrades_one_agent_only(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"""
mcp_servers:
  library: {{type: stdio, command: {sys.executable}, args: ["{LIBRARY}"]}}
  gone: {{type: stdio, command: no-such-command}}
agents:
  whole: {{model: demo, mcp_servers: [library]}}
  half: {{model: demo, mcp_servers: [gone, library]}}
  plain: {{model: demo}}
""",
    )
    before = asyncio.all_tasks()
    async with AgentPool(path) as pool:
        states = {agent.name: agent for agent in pool.report.agents}
        assert {name: agent.state for name, agent in states.items()} == {
            "whole": "ready",
            "half": "degraded",
            "plain": "ready",
        }
        assert "no-such-command" in states["half"].reason
        assert states["whole"].tools > 0
        servers = {server.name: server for server in pool.report.servers}
        assert servers["library"].state == "ready"
        assert servers["gone"].state == "broken"
        assert (await pool.get_agent("half").run("hello there")).content
    assert psutil.Process().children(recursive=True) == []
    await until(lambda: asyncio.all_tasks() <= before, "every task to be gone")


async def test_a_required_mcp_server_that_does_not_start_is_fatal_and_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "mcp_servers:\n  gone: {type: stdio, command: no-such-command, required: true}\nagents: {a: {model: demo}}\n",
    )
    with pytest.raises(StartupError, match=r"'gone' is required.*no-such-command"):
        async with AgentPool(path):
            pass


async def test_unknown_agents_are_named_with_those_there_are(tmp_path: Path) -> None:
    async with AgentPool(write(tmp_path, "agents: {a: {model: demo}, b: {model: demo}}\n")) as pool:
        with pytest.raises(LookupError, match="no agent 'c' in the pool; agents: a, b"):
            pool.get_agent("c")
    with pytest.raises(ManifestError):
        AgentPool({"agents": {"a": {"modle": "demo"}}})


WEBHOOK = """
engine: {{type: {engine}}}
limits: {{drain_timeout_s: {drain}}}
agents:
  a:
    redelivery: {{attempts: 2, backoff_s: 0}}
    inbox: {{size: 3}}
    concurrency: 1
    triggers:
      - {{type: webhook, name: hook, port: {port}, filter: "event.data.n != 13"}}
"""


async def test_pages_of_the_server_tell_what_happened(tmp_path: Path) -> None:
    port = free_port()
    path = write(tmp_path, WEBHOOK.format(engine="sqlite", drain=8, port=port))
    async with AgentPool(path, model="demo") as pool, aiohttp.ClientSession() as session:
        url = pool.report.server_url

        async def get(page: str) -> tuple[int, Any]:
            async with session.get(f"{url}{page}") as response:
                body = await response.json() if "json" in response.content_type else await response.text()
                return response.status, body

        assert (await get("/healthz"))[0] == 200
        assert await get("/readyz") == (200, {"ready": True, "reasons": []})
        async with session.post(f"http://127.0.0.1:{port}/webhook", json={"n": 1}) as response:
            assert response.status == 202
            accepted = await response.json()
        async with session.post(f"http://127.0.0.1:{port}/webhook", json={"n": 13}) as response:
            assert response.status == 202
            filtered = await response.json()
        assert accepted["status_url"] == f"{url}/events/{accepted['event_id']}"

        async def settled() -> dict[str, Any] | None:
            async with session.get(accepted["status_url"]) as response:
                body = await response.json()
            return body if body["status"] == "done" else None

        body = await eventually(settled, "the event to be done")
        assert body["outcome"] == "ran"
        assert '"n": 1' in body["content"]
        assert [hop["agent"] for hop in body["hops"]] == ["a"]
        assert (await get(f"/events/{filtered['event_id']}"))[1]["outcome"] == "filtered"
        assert (await get("/events/nope"))[0] == 404
        metrics = (await get("/metrics"))[1]
        assert 'llmling_events{status="done"} 2' in metrics
        assert 'llmling_runs_total{agent="a",status="done"} 1' in metrics


@pytest.mark.parametrize("engine", ["sqlite", "memory"])
async def test_leaving_drains_what_runs_and_a_full_inbox_answers_503(tmp_path: Path, engine: str) -> None:
    port = free_port()
    path = write(tmp_path, WEBHOOK.format(engine=engine, drain=30, port=port))
    running, release = asyncio.Event(), asyncio.Event()

    async def reply(request: ModelRequest) -> str:
        running.set()
        await release.wait()
        return "done"

    done: list[EventRecord] = []
    agent = Agent("a", model=ScriptedModel([reply] * 10))
    async with aiohttp.ClientSession() as session:
        async with AgentPool(path, agents={"a": agent}, on_event=done.append):
            statuses: list[int] = []
            for number in range(6):
                async with session.post(f"http://127.0.0.1:{port}/webhook", json={"n": number}) as response:
                    statuses.append(response.status)
                    if response.status == 503:
                        assert int(response.headers["Retry-After"]) >= 1
                if number == 0:
                    await asyncio.wait_for(running.wait(), 10)
            assert statuses[0] == 202
            assert statuses[-1] == 503
            asyncio.get_running_loop().call_later(0.2, release.set)
        assert len(done) >= 1
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://127.0.0.1:{port}/webhook", json={"n": 1})


async def test_two_pools_on_one_file_or_one_folder_refuse(tmp_path: Path) -> None:
    agents = "a: {{model: demo, triggers: [{{type: file, paths: [inbox]}}]}}"
    text = f"server: false\nagents:\n  {agents}\nengine: {{{{path: {{db}}}}}}\n"
    (tmp_path / "inbox").mkdir()
    first = write(tmp_path, text.format(db="one.db"))
    second = tmp_path / "second.yml"
    second.write_text(text.format(db="two.db"))
    async with AgentPool(first):
        with pytest.raises(EngineBusy, match=r"one\.db"):
            async with AgentPool(first):
                pass
        with pytest.raises(StartupError, match="inbox") as caught:
            async with AgentPool(second):
                pass
        assert caught.value.usage
    async with AgentPool(second) as pool:
        assert pool.ready() == []


async def test_a_port_in_use_names_the_trigger(tmp_path: Path) -> None:
    port = free_port()
    path = write(tmp_path, WEBHOOK.format(engine="memory", drain=1, port=port))
    refused = pytest.raises(StartupError, match=f"port {port}.*'hook'")
    with socket.create_server(("127.0.0.1", port)), refused as caught:
        async with AgentPool(path, model="demo"):
            pass
    assert caught.value.usage


async def test_teams_take_events_and_answers_reach_sinks_and_successors(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
server: false
agents:
  left: {model: demo}
  right: {model: demo}
  editor:
    model: demo
    sinks: [{type: file, path: "out/{{ event.data.name }}.txt"}]
teams:
  desk:
    members: [left, right]
    triggers: [{type: file, paths: [inbox], settle_s: 0.1}]
    connections: [editor]
    sinks: [{type: file, path: out/all.txt, mode: append}]
""",
    )
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.md").write_text("The harbour is closed on Monday.")
    done: list[EventRecord] = []
    async with AgentPool(path, on_event=done.append) as pool:
        await until(lambda: done, "the event")
        assert pool.engine is not None
        detail = await pool.engine.inspect(done[0].id)
    assert done[0].status == "done"
    assert detail is not None
    assert [delivery.agent for delivery in detail.deliveries] == ["desk", "editor"]
    assert "## left" in (tmp_path / "out" / "all.txt").read_text()
    assert "harbour" in (tmp_path / "out" / "a.md.txt").read_text()


async def test_a_cycle_in_events_ends_with_one_record(tmp_path: Path) -> None:
    port = free_port()
    path = write(
        tmp_path,
        f"""
server: false
limits: {{max_hops: 3}}
agents:
  a: {{model: demo, connections: [b], triggers: [{{type: webhook, port: {port}}}]}}
  b: {{model: demo, connections: [a]}}
""",
    )
    done: list[EventRecord] = []
    async with AgentPool(path, on_event=done.append) as pool, aiohttp.ClientSession() as session:
        await session.post(f"http://127.0.0.1:{port}/webhook", json={})
        await until(lambda: done, "the event")
        assert pool.engine is not None
        detail = await pool.engine.inspect(done[0].id)
    assert done[0].status == "dead"
    assert "raise limits.max_hops" in (done[0].error or "")
    assert detail is not None
    assert [(d.agent, d.status) for d in detail.deliveries] == [
        ("a", "done"),
        ("b", "done"),
        ("a", "done"),
        ("b", "done"),
        ("a", "dead"),
    ]


async def test_errors_of_the_library_have_one_root(tmp_path: Path) -> None:
    assert issubclass(ManifestError, LLMlingError)
    assert issubclass(StartupError, LLMlingError)
    assert issubclass(EngineBusy, LLMlingError)


async def test_leaving_lets_messages_between_agents_arrive(tmp_path: Path) -> None:
    path = write(tmp_path, "agents: {a: {model: demo, connections: [b]}, b: {model: demo}}\n")
    heard: list[str] = []

    async def slowly(message: Message) -> None:
        await asyncio.sleep(0.2)
        heard.append(message.name or "")

    async with AgentPool(path) as pool:
        pool.get_agent("b") >> slowly
        await pool.get_agent("a").run("hello there")
    assert heard == ["b"]
