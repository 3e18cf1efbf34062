"""`llmling fire` beside others: two at once, with a backlog, and into a process that dies meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
from serving import Serve, free_port, llmling, post, until

MANIFEST = """
server: false
limits: {{drain_timeout_s: 0}}
agents:
  a:
    model: demo:slow.yml
    triggers: [{{type: webhook, name: hook, port: {port}}}]
"""


def project(folder: Path, delay_s: float) -> str:
    """Write the manifest of a slow agent and return the address of its webhook."""
    port = free_port()
    (folder / "agents.yml").write_text(MANIFEST.format(port=port))
    (folder / "slow.yml").write_text(f"- {{match: '.', reply: done, delay_s: {delay_s}}}\n")
    return f"http://127.0.0.1:{port}/webhook"


async def test_two_at_once_with_a_backlog_and_nobody_serving(tmp_path: Path) -> None:
    url = project(tmp_path, 0.1)
    async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
        for number in range(8):
            assert (await post(session, url, {"n": number}))[0] == 202
        await serve.kill()
    fired = await asyncio.gather(*(llmling(tmp_path, "fire", "agents.yml", "hook", "--data", "{}") for _ in range(3)))
    assert [(code, err) for code, _, err in fired] == [(0, "")] * 3


async def test_what_the_serving_process_leaves_behind_is_run_here(tmp_path: Path) -> None:
    project(tmp_path, 3600)
    async with Serve(tmp_path) as serve:
        firing = asyncio.create_task(llmling(tmp_path, "fire", "agents.yml", "hook", "--data", "{}"))
        database = tmp_path / ".llmling" / "pool.db-wal"
        size = database.stat().st_size
        await until(lambda: database.stat().st_size > size, "the event in the engine")
        (tmp_path / "slow.yml").write_text("- {match: '.', reply: done}\n")
        await serve.stop()
    code, out, _ = await asyncio.wait_for(firing, 60)
    assert code == 0
    assert "run here" in out
