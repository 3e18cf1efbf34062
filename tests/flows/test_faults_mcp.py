"""An MCP server that is killed again and again under events that call its tool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest
from chaos import Trial
from llm_server import Call, LLMServer, Reply, Request
from serving import Serve, free_port, post, until

FULL = bool(os.environ.get("CHAOS"))
EVENTS = 3_000 if FULL else 40
EVERY_S = 0.02 if FULL else 0.08
KILL_EVERY_S = 2.0 if FULL else 0.7
LIBRARY = Path(__file__).parents[2] / "examples" / "library_server.py"
TINY = Path(__file__).parents[1] / "tools" / "servers" / "tiny.py"
# One that is up at once leaves the suite more kills than pauses.
SERVER = [str(LIBRARY)] if FULL else [str(TINY), "tiny", "word"]
MANIFEST = """
server: false
mcp_servers:
  library: {{type: stdio, command: {python}, args: {args}, call_timeout_s: 5}}
agents:
  a:
    model: openai/test-model
    concurrency: 20
    inbox: {{size: 5000}}
    mcp_servers: [library]
    approval: never
    triggers: [{{type: webhook, name: hook, port: {port}}}]
"""


def answer(request: Request) -> Reply:
    """Call the first tool there is, then repeat what it said."""
    last = request.body["messages"][-1]
    if last["role"] == "tool":
        return Reply(str(last["content"]), delay_s=0.1)
    tool = request.body["tools"][0]["function"]["name"]
    return Reply(calls=[Call(tool, {"text": "two words"})], delay_s=0.1)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_events_end_whatever_happens_to_the_server(tmp_path: Path) -> None:
    trial, kills, port = Trial("MCP server killed under load (P2)"), 0, free_port()
    (tmp_path / "agents.yml").write_text(MANIFEST.format(python=sys.executable, args=SERVER, port=port))
    async with LLMServer(answer) as server, aiohttp.ClientSession() as session:
        serve = Serve(tmp_path, env={"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": "test"})
        await serve.start()
        await until(serve.children, "the server")
        handles = psutil.Process(serve.pid).num_fds()

        def served() -> int:
            turns = [request.body["messages"][-1] for request in server.requests]
            return sum(turn["role"] == "tool" and "is not available" not in str(turn["content"]) for turn in turns)

        async def killer() -> None:
            nonlocal kills
            while True:
                # On a busy machine it takes its time to start; killed before it has, nothing would be left to test.
                before = served()
                await until(lambda before=before: served() > before, "an answer of the tool", 120)
                await asyncio.sleep(KILL_EVERY_S)
                kills += 1
                for child in serve.children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()

        killing = asyncio.create_task(killer())
        for number in range(EVENTS):
            assert (await post(session, f"http://127.0.0.1:{port}/webhook", {"n": number}))[0] == 202
            await asyncio.sleep(EVERY_S)
        await until(lambda: len(serve.events) == EVENTS, "every event", 400)
        killing.cancel()
        assert {(event["status"], event["attempts"]) for event in serve.events} == {("done", 1)}
        assert all(request.body.get("tools") for request in server.requests), "an agent lost its tools meanwhile"
        await until(serve.children, "the server again", 60)
        children = serve.children()
        # Those of the engine and of the model's connections come with the first events; none stays of a killed server.
        assert psutil.Process(serve.pid).num_fds() <= handles + 40
        await serve.kill()
        await serve.start()
        await until(lambda: not alive(children), "the orphans to be gone", 20)
        await until(serve.children, "the server of the new process")
        children = serve.children()
        assert await serve.stop() == 0
        assert not alive(children)
    trial.holds(events=EVENTS, kills=kills)
