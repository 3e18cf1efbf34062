"""What lies around the model call: webhooks, files and chains of a pool; prints a line of JSON for each.

    python benchmarks/stages.py [--scale 0.1]

The model answers at once and costs nothing, so that all of it is the pool's own. POSTs come from another process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from cores import free_port, pinned

from llmling import Agent, AgentPool, Event, Message
from llmling.messages import Usage
from llmling.protocols import ModelRequest, ModelResponse
from llmling.wiring import Source

CHAIN = "abc"
PATIENCE_S = 300.0


class Instant:
    """A model that answers at once, or when it may; `heard` is told of every request."""

    name = "instant"

    def __init__(self, heard: Callable[[], None] = lambda: None, may: asyncio.Event | None = None) -> None:
        self._heard = heard
        self._may = may

    async def request(self, request: ModelRequest) -> ModelResponse:
        self._heard()
        if self._may is not None:
            await self._may.wait()
        return ModelResponse(
            Message.assistant("The crate is at the harbour."), Usage(40, 8, 1), self.name, cost_usd=0.0
        )

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelResponse]:
        yield await self.request(request)


class Settled:
    """Counts events that are done; `all` waits for so many."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def __call__(self, record: Any) -> None:
        if record.status != "done":
            raise SystemExit(f"event {record.id}: {record.status}: {record.error}")
        self.count += 1
        self._changed.set()

    async def all(self, count: int) -> None:
        while self.count < count:
            self._changed.clear()
            await self._changed.wait()


def pool_of(folder: Path, model: Instant, settled: Settled, *, chain: bool = False, **trigger: Any) -> AgentPool[None]:
    agents: dict[str, Any] = {
        name: {"concurrency": 50, "inbox": {"size": 1_000_000}, "connections": [after] if chain and after else []}
        for name, after in zip(CHAIN, (*CHAIN[1:], None), strict=True)
    }
    agents["a"]["triggers"] = [{"name": "in", **trigger}]
    engine = {"type": "sqlite", "path": str(folder / "events.db")}
    manifest = {"server": False, "engine": engine, "limits": {"concurrency": 150}, "agents": agents}
    live = {name: Agent(name, model=model, instructions="Be brief.") for name in CHAIN}
    return AgentPool(manifest, agents=live, on_event=settled)


async def post(port: int, path: str, count: int) -> float:
    """Return how many POSTs were answered 202 per second."""
    command = [sys.executable, str(Path(__file__).with_name("posts.py")), str(port), path, str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, **pinned(1))
    output, _ = await process.communicate()
    seconds, refused = output.decode().split()
    if int(refused):
        raise RuntimeError(f"{refused} of {count} POSTs were refused")
    return count / float(seconds)


async def bare(count: int, *, routed: bool) -> float:
    """A handler that only reads the body: `routed` by an application, as aiohttp's users write it, or a bare server."""

    async def handler(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(status=202)

    runner: web.BaseRunner = web.ServerRunner(web.Server(handler))
    if routed:
        app = web.Application()
        app.router.add_post("/in", handler)
        runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        await post(port, "/in", count // 10)
        return await post(port, "/in", count)
    finally:
        await runner.cleanup()


async def webhook(folder: Path, count: int) -> dict[str, float]:
    """Durable 202s while the agents are paused, and while they run a chain of three."""
    found = {"bare_per_s": await bare(count, routed=True), "server_per_s": await bare(count, routed=False)}
    for what, chain in (("paused", False), ("running", True)):
        (folder / what).mkdir()
        may, settled, port = asyncio.Event(), Settled(), free_port()
        if chain:
            may.set()
        pool = pool_of(folder / what, Instant(may=may), settled, chain=chain, type="webhook", port=port, path="/in")
        async with pool:
            found[f"{what}_per_s"] = await post(port, "/in", count)
            may.set()
            await settled.all(count)
    return found


async def chain(folder: Path, count: int) -> dict[str, float]:
    """Events through three agents, accepted by 64 at once: from the first to the last one that is done."""
    settled = Settled()
    async with pool_of(
        folder, Instant(), settled, chain=True, type="schedule", every_s=3600, prompt="{{ event.data }}"
    ) as pool:
        assert pool.engine is not None
        source = Source(pool.manifest.agents["a"].triggers[0], "a", pool.engine)
        numbers = iter(range(count))

        async def send() -> None:
            for number in numbers:
                await source.emit(Event("bench", "dev.llmling.bench", data=f"order {number}"))

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*[send() for _ in range(64)])
        await settled.all(count)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        return {"per_s": count / seconds, "cpu_us": cpu_s / count * 1e6}


async def answers(folder: Path, count: int) -> dict[str, float]:
    """One POST after the other: until the 202, and until the answer with `reply: result`."""
    found: dict[str, float] = {}
    for what, reply in (("accepted", "accepted"), ("result", "result")):
        (folder / what).mkdir()
        port, times = free_port(), list[float]()
        pool = pool_of(folder / what, Instant(), Settled(), type="webhook", port=port, path="/in", reply=reply)
        async with pool, aiohttp.ClientSession() as session:
            for number in range(count):
                began = time.perf_counter()
                async with session.post(f"http://127.0.0.1:{port}/in", json={"number": number}) as response:
                    await response.read()
                times.append(time.perf_counter() - began)
        found[f"{what}_ms"] = statistics.median(times) * 1000
    return found


async def file(folder: Path, count: int) -> dict[str, float]:
    """A file written and closed, until its run asks the model, less the time it has to stay the same."""
    settle_s = 0.1
    heard, settled, times = asyncio.Event(), Settled(), list[float]()
    (folder / "in").mkdir()
    pool = pool_of(folder, Instant(heard.set), settled, type="file", paths=[str(folder / "in")], settle_s=settle_s)
    async with pool:
        for number in range(count):
            heard.clear()
            (folder / "in" / f"{number}.txt").write_text("two crates")
            began = time.perf_counter()
            await heard.wait()
            times.append(time.perf_counter() - began - settle_s)
            await settled.all(number + 1)
    return {"ms": statistics.median(times) * 1000}


STAGES = {"webhook": (webhook, 10_000), "chain": (chain, 3_000), "answers": (answers, 200), "file": (file, 25)}


async def main(scale: float, names: list[str]) -> None:
    for name in names:
        stage, count = STAGES[name]
        found: dict[str, Any]
        try:
            with tempfile.TemporaryDirectory() as folder:
                async with asyncio.timeout(PATIENCE_S):
                    found = await stage(Path(folder), max(20, round(count * scale)))
        except Exception as error:  # noqa: BLE001 - what cannot be measured is told, and the next one tried
            found = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps({"scenario": name, **found}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--scenarios", default=",".join(STAGES))
    given = parser.parse_args()
    logging.getLogger("llmling").setLevel(logging.ERROR)
    os.environ.pop("OPENAI_API_KEY", None)
    asyncio.run(main(given.scale, given.scenarios.split(",")))
