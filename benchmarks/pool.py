"""Throughput of a pool beside a bare aiohttp handler, in one run; prints a table and never passes or fails.

python benchmarks/pool.py [posts]
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from aiohttp import web

from llmling import Agent, AgentPool
from llmling.protocols import EventRecord
from llmling.testing import ScriptedModel

MANIFEST = """
server: false
agents:
  a: {{model: demo:answer.yml, concurrency: 50, inbox: {{size: 1000000}}, connections: [b],
      triggers: [{{type: webhook, port: {port}, path: /hook}}]}}
  b: {{model: demo:answer.yml, concurrency: 50, connections: [c]}}
  c: {{model: demo:answer.yml, concurrency: 50}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def post_all(url: str, count: int, in_flight: int = 64) -> float:
    """POST `count` small bodies and return how many were answered per second."""
    todo = iter(range(count))

    async def sender(session: aiohttp.ClientSession) -> None:
        for number in todo:
            async with session.post(url, json={"n": number}) as response:
                assert response.status in {200, 202}, response.status
                await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.perf_counter()
        await asyncio.gather(*(sender(session) for _ in range(in_flight)))
        return count / (time.perf_counter() - begun)


async def bare(count: int) -> float:
    """Return the rate of a handler that only reads the body."""

    async def handler(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.json_response({"ok": True}, status=202)

    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        return await post_all(f"http://127.0.0.1:{port}/", count)
    finally:
        await runner.cleanup()


async def pool(count: int, folder: Path) -> tuple[float, float, float]:
    """Return start seconds, durable POSTs per second, and three-agent events settled per second."""
    port = free_port()
    (folder / "answer.yml").write_text("- {reply: ok}\n")
    (folder / "agents.yml").write_text(MANIFEST.format(port=port))
    done = 0
    last = asyncio.Event()

    def settled(record: EventRecord) -> None:
        nonlocal done
        done += record.status == "done"
        if done == count:
            last.set()

    begun = time.perf_counter()
    async with AgentPool(folder / "agents.yml", on_event=settled):
        started_s = time.perf_counter() - begun
        begun = time.perf_counter()
        rate = await post_all(f"http://127.0.0.1:{port}/hook", count)
        await last.wait()
        return started_s, rate, count / (time.perf_counter() - begun)


async def runs(count: int) -> float:
    """Return the milliseconds one `agent.run` costs beside the model."""
    agent = Agent("a", model=ScriptedModel(lambda _: "ok"), instructions="Be brief.")
    await agent.run("warm up")
    begun = time.perf_counter()
    await asyncio.gather(*(agent.run("go") for _ in range(count)))
    return (time.perf_counter() - begun) / count * 1000


def seconds(*command: str) -> float:
    """Return the shortest of five runs of a command."""
    times: list[float] = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)


async def main(count: int) -> None:
    logging.getLogger("llmling").setLevel(logging.ERROR)
    bare_rate = await bare(count)
    with tempfile.TemporaryDirectory() as folder:
        started_s, rate, chain = await pool(count, Path(folder))
    python_s = seconds(sys.executable, "-c", "pass")
    import_s = seconds(sys.executable, "-c", "import llmling") - python_s
    help_s = seconds(sys.executable, "-m", "llmling_cli", "--help") - python_s
    rows = [
        ("bare aiohttp handler", f"{bare_rate:,.0f} POST/s", "1.00"),
        ("webhook, durable 202, agents running", f"{rate:,.0f} POST/s", f"{rate / bare_rate:.2f} x bare"),
        ("three-agent chain, engine on", f"{chain:,.0f} events/s", ""),
        ("agent.run beside the model", f"{await runs(2_000):.3f} ms", ""),
        ("pool of three agents ready", f"{started_s:.3f} s", ""),
        ("import llmling", f"{import_s:.3f} s", "over bare Python"),
        (
            "llmling --help",
            f"{help_s:.3f} s",
            "over bare Python",
        ),
    ]
    width = max(len(row[0]) for row in rows)
    for name, value, note in rows:
        print(f"{name:<{width}}  {value:>16}  {note}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
