"""The page that describes the asynchronous pool, as printed but for its typos."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import aiohttp
import pytest
from serving import free_port, until

from llmling import Agent, AgentPool, Message
from llmling.protocols import EventRecord

MANIFEST = """
agents:
  analyzer: {model: demo}
  summarizer: {model: demo}
"""

EVENTS = """
server: false
agents:
  file_processor:
    model: demo
    triggers:
      - type: file
        name: watch_docs
        paths: ["docs/**/*.md"]
        extensions: [".md"]
        enabled: true
  api_handler:
    model: demo
    triggers:
      - type: webhook
        name: api_endpoint
        port: %d
        path: "/webhook"
        enabled: true
      - type: webhook
        name: switched_off
        port: 1
        path: /off
        enabled: false
"""


@pytest.fixture
def agents_yml(tmp_path: Path) -> Path:
    path = tmp_path / "agents.yml"
    path.write_text(MANIFEST)
    return path


async def test_basic_usage(agents_yml: Path) -> None:
    async with Agent("assistant", model="demo") as agent:
        result = await agent.run("What can you do?")
        assert "What can you do?" in result.content

    async with AgentPool[None](str(agents_yml)) as pool:
        analyzer = pool.get_agent("analyzer")
        summarizer = pool.get_agent("summarizer")
        results = await asyncio.gather(analyzer.run("Analyze this text"), summarizer.run("Summarize this text"))
        assert [result.agent for result in results] == ["analyzer", "summarizer"]


async def test_agent_connections_and_waiting(agents_yml: Path) -> None:
    heard: list[Message] = []
    async with AgentPool[None](agents_yml) as pool:
        analyzer, summarizer = pool.get_agent("analyzer"), pool.get_agent("summarizer")
        analyzer >> summarizer
        summarizer >> heard.append
        await analyzer.run("Analyze", wait_for_connections=True)
        assert len(heard) == 1
        await analyzer.run("Analyze", wait_for_connections=False)
        await summarizer.complete_tasks()
    assert heard[0].name == "summarizer"


async def test_parallel_initialization(agents_yml: Path, tmp_path: Path) -> None:
    pool = AgentPool[None](str(agents_yml), parallel_load=True)
    (tmp_path / "config.yml").write_text("name: solo\nmodel: demo\n")
    agent = Agent[None](str(tmp_path / "config.yml"), parallel_init=True)
    async with pool, agent:
        assert pool.report.agents[0].state == "ready"
        assert (await agent.run("hi")).agent == "solo"


async def test_background_operations(agents_yml: Path) -> None:
    async with AgentPool[None](agents_yml) as pool:
        agent = pool.get_agent("analyzer")
        result = await (await agent.run_in_background("Monitor this", interval=0.01, max_count=3))
        assert result is not None
        assert "Monitor this" in result.content
        endless = await agent.run_in_background("Monitor this", interval=5.0)
        await agent.stop()
        assert endless.done()
        left = await agent.run_in_background("Monitor this", interval=5.0)
    assert left.done()


async def test_events_are_set_up_and_cancellation_is_a_clean_shutdown(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "agents.yml"
    config.write_text(EVENTS % port)
    done: list[EventRecord] = []
    armed = asyncio.Event()
    before = asyncio.all_tasks()

    async def program() -> None:
        async with AgentPool[None](config, on_event=done.append) as pool:
            assert {trigger.name for trigger in pool.report.triggers} == {"watch_docs", "api_endpoint"}
            armed.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = asyncio.create_task(program())
    await asyncio.wait_for(armed.wait(), 30)
    # The folder does not exist yet; it is waited for.
    (tmp_path / "docs" / "guide").mkdir(parents=True)
    (tmp_path / "docs" / "guide" / "intro.md").write_text("The guide begins here.")
    (tmp_path / "docs" / "top.md").write_text("The top page.")
    (tmp_path / "docs" / "data.csv").write_text("not for us")
    url = f"http://127.0.0.1:{port}/webhook"
    async with aiohttp.ClientSession() as session, session.post(url, json={"action": "opened"}) as response:
        assert response.status == 202
        body = json.loads(await response.text())
    await until(lambda: len(done) >= 3, "two files and one POST")
    task.cancel()
    await task
    assert sorted(record.event.subject for record in done) == ["/webhook", "docs/guide/intro.md", "docs/top.md"]
    assert body["event_id"] in {record.id for record in done}
    assert {record.status for record in done} == {"done"}
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - {task} <= before


async def test_an_agent_file_runs_its_own_triggers(tmp_path: Path) -> None:
    port = free_port()
    path = tmp_path / "solo.yml"
    path.write_text(f"name: solo\nmodel: demo\ntriggers:\n  - {{type: webhook, port: {port}, reply: result}}\n")
    async with Agent[None](path), aiohttp.ClientSession() as session:
        response = await session.post(f"http://127.0.0.1:{port}/webhook", json={"text": "Where is the report?"})
        assert response.status == 200
        assert "Where is the report?" in (await response.json())["content"]
