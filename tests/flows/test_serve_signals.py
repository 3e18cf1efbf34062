"""`llmling serve` and its signals: it drains, loses nothing, leaves no child, and says so by its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import aiohttp
import psutil
import pytest
from chaos import Trial
from serving import Serve, free_port, llmling, post, until

ROUNDS = 50 if os.environ.get("CHAOS") else 4
MCP_UP = 'llmling_mcp_up{server="library"} 1'
LIBRARY = Path(__file__).parents[2] / "examples" / "library_server.py"

MANIFEST = f"""
limits: {{{{drain_timeout_s: {{drain_s}}}}}}
mcp_servers:
  library: {{{{type: stdio, command: {sys.executable}, args: ["{LIBRARY}"]}}}}
agents:
  a:
    model: demo:slow.yml
    concurrency: 20
    inbox: {{{{size: 10000}}}}
    mcp_servers: [library]
    triggers: [{{{{type: webhook, name: hook, port: {{port}}}}}}]
    connections: [b]
  b: {{{{model: demo}}}}
"""


def project(folder: Path, delay_s: float, *, drain_s: float = 4) -> int:
    """Write the manifest of a pool with a slow model and return its port."""
    port = free_port()
    (folder / "agents.yml").write_text(MANIFEST.format(port=port, drain_s=drain_s))
    (folder / "slow.yml").write_text(f"- {{match: '.', reply: done, delay_s: {delay_s}}}\n")
    return port


def statuses(folder: Path) -> dict[str, str]:
    """Return the status of every event in the engine's file."""
    with sqlite3.connect(f"file:{folder}/.llmling/pool.db?mode=ro", uri=True) as connection:
        found = dict(connection.execute("select id, status from event").fetchall())
    connection.close()
    return found


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_sigterm_under_load_drains_and_loses_nothing(tmp_path: Path) -> None:
    trial, port = Trial("SIGTERM under load (O1)"), project(tmp_path, 0.05)
    accepted, longest_s = set[str](), 0.0
    for _ in range(ROUNDS):
        serve = Serve(tmp_path)
        await serve.start()
        children = await until(serve.children, "the MCP server")
        stopping = asyncio.Event()

        async def sender(session: aiohttp.ClientSession, stopping: asyncio.Event = stopping) -> None:
            while True:
                status, body = await post(session, f"http://127.0.0.1:{port}/webhook", {"n": 1})
                if status == 202:
                    accepted.add(body["event_id"])
                elif status == 0 and stopping.is_set():
                    return
                else:
                    assert status in {0, 503}

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(sender(session))
            before = len(accepted)
            await until(lambda before=before: len(accepted) > before + 20, "some load")
            stopping.set()
            began = time.monotonic()
            assert await serve.stop(timeout_s=4 + 2 + 10) == 0
            longest_s = max(longest_s, time.monotonic() - began)
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    async with Serve(tmp_path):
        await until(lambda: set(statuses(tmp_path).values()) == {"done"}, "everything accepted to be done", 60)
    assert set(statuses(tmp_path)) == accepted
    trial.holds(events=len(accepted), kills=ROUNDS, measured=f"stopped in {longest_s:.1f} s at most, 4 s are allowed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_idle_pool_stops_at_once_and_a_second_signal_forces(tmp_path: Path, number: signal.Signals) -> None:
    # On a machine that stands still for a while the second signal must not come after the drain.
    port = project(tmp_path, 3600, drain_s=300)
    serve = Serve(tmp_path)
    await serve.start()
    assert serve.process is not None
    serve.process.send_signal(number)
    async with asyncio.timeout(20):
        assert await serve.process.wait() == 0
    await serve.start()
    async with aiohttp.ClientSession() as session:
        # While its agent waits for its MCP server an event waits too, and draining has nothing to wait for.
        async with asyncio.timeout(60):
            while MCP_UP not in await (await session.get(f"{serve.server_url}/metrics")).text():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await post(session, f"http://127.0.0.1:{port}/webhook", {}))[0] == 202
    await until(lambda: "running" in statuses(tmp_path).values(), "the run")
    serve.process.send_signal(number)
    await asyncio.sleep(0.3)
    assert serve.running
    serve.process.send_signal(number)
    async with asyncio.timeout(20):
        assert await serve.process.wait() == 128 + number


async def test_what_cannot_start_exits_with_2_and_one_actionable_line(tmp_path: Path) -> None:
    port = project(tmp_path, 0)
    async with Serve(tmp_path):
        code, out, err = await llmling(tmp_path, "serve", "agents.yml")
        assert code == 2
        assert "pool.db" in err
        assert "Traceback" not in out + err
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "agents.yml").write_text(
            f"server: false\nagents: {{a: {{model: demo, triggers: [{{type: webhook, port: {port}}}]}}}}\n"
        )
        code, out, err = await llmling(tmp_path / "other", "serve", "agents.yml")
        assert code == 2
        assert f"port {port}" in err
        assert "Traceback" not in out + err
    (tmp_path / "broken.yml").write_text("agents: {a: {modle: demo}}\n")
    code, out, err = await llmling(tmp_path, "serve", "broken.yml")
    assert code == 2
    assert "broken.yml:1:14" in err
    assert 'did you mean "model"' in err
    (tmp_path / "keyless.yml").write_text("agents: {a: {model: openai/gpt-4o-mini, triggers: [{type: webhook}]}}\n")
    code, out, err = await llmling(tmp_path, "serve", "keyless.yml", env={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""})
    assert code == 2
    assert "OPENAI_API_KEY" in err
    assert "agent 'a'" in err
    code, out, err = await llmling(tmp_path, "serve", "missing.yml")
    assert code == 2
    assert "missing.yml" in err
