"""Two `serve` on one set of events in NATS: the same manifest, each with a port of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from nats_server import nats_url
from serving import Serve, eventually, free_port, llmling, post

MANIFEST = """
engine: {{type: nats, servers: ["{url}"], name: {name}, lease_s: 5}}
server: {{port: "${{SERVER_PORT}}"}}
agents:
  greeter:
    model: demo
    triggers:
      - {{type: webhook, name: hello, port: "${{HOOK_PORT}}", path: /hello}}
      - {{type: schedule, name: beat, every_s: 1, prompt: "tick {{{{ event.subject }}}}"}}
      - {{type: file, name: inbox, paths: [inbox/], poll_s: 0.5, settle_s: 0}}
"""


async def hosts(serve: Serve, *states: str) -> bool | None:
    """Return True once `/readyz` lists processes in these states."""
    async with aiohttp.ClientSession() as session, session.get(f"{serve.server_url}/readyz") as response:
        page = await response.json()
    return sorted(host["state"] for host in page.get("hosts", ())) == list(states) or None


@pytest.mark.timeout(180)
async def test_two_processes_serve_one_set_of_events(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "agents.yml").write_text(MANIFEST.format(url=nats_url(), name=f"flow{free_port()}"))
    ports = [free_port(), free_port()]
    serves = [Serve(tmp_path, env={"HOOK_PORT": str(port), "SERVER_PORT": str(free_port())}) for port in ports]
    for serve in serves:
        await serve.start()
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(
            *(post(session, f"http://127.0.0.1:{port}/hello", {"n": 1}, **{"webhook-id": "one"}) for port in ports * 5)
        )
    assert len({answer["event_id"] for _, answer in answers}) == 1
    assert Counter(status for status, _ in answers)[202] == 1
    await eventually(lambda: hosts(serves[1], "serving", "serving"), "both to be listed", 60)
    (tmp_path / "inbox" / "first.txt").write_text("first")

    async def listed(trigger: str, least: int) -> list[str] | None:
        code, out, err = await llmling(
            tmp_path, "events", "list", "agents.yml", "--json", env={"HOOK_PORT": "1", "SERVER_PORT": "2"}
        )
        assert code == 0, err
        found = [line for line in out.splitlines() if f'"trigger": "{trigger}"' in line and '"status": "done"' in line]
        return found if len(found) >= least else None

    await eventually(lambda: listed("inbox", 1), "the file to be run", 60)
    await eventually(lambda: listed("beat", 2), "the schedule to tick", 60)
    await serves[0].kill()
    (tmp_path / "inbox" / "second.txt").write_text("second")
    files = await eventually(lambda: listed("inbox", 2), "the other one to watch the folder", 60)
    assert len(files) == 2
    await eventually(lambda: hosts(serves[1], "serving", "silent"), "the dead one to be listed as silent", 60)
    assert await serves[1].stop() == 0
