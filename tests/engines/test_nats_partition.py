"""A machine whose cable to NATS is cut while it runs deliveries: network namespaces, real processes, real sinks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from nats_server import NatsServer, need_nats
from netns import Host, net
from serving import Serve, eventually, free_port, until

from llmling.engines.jetstream.engine import NatsEngine
from llmling.events import Event
from llmling.manifest.pool import NatsEngineConfig
from llmling.messages import Message
from llmling.protocols import Delivery

LEASE_S = 3.0
MANIFEST = f"""
engine: {{type: nats, servers: ["${{NATS_URL}}"], name: cut, lease_s: {LEASE_S}}}
server: false
defaults: {{model: "demo:script.yml"}}
agents:
  worker:
    concurrency: 4
    tools: [{{type: function, function: "hands:work", idempotent: true}}]
    connections: [teller]
    triggers: [{{type: webhook, name: orders, port: 8000}}]
    sinks: &sinks
      - {{type: http, url: "${{SINK_URL}}"}}
      - {{type: file, path: "answers.txt", mode: append}}
  teller:
    sinks: *sinks
"""
SCRIPT = """
- {{match: "order {0}$", tool_calls: [{{name: work, arguments: {{number: "{0}"}}}}]}}
- {{match: "worked on {0}$", reply: "answer {0}"}}
- {{match: "answer {0}$", reply: "told {0}"}}
"""
HANDS = '''
import asyncio
import os

def say(what, number):
    with open("log", "a") as file:
        file.write(f"{what} {os.environ['HOST']} {number}\\n")

async def work(number: str) -> str:
    """Work on an order until there is leave to end it."""
    say("begun", number)
    try:
        while not any(os.path.exists(f"go-{os.environ['HOST']}-{which}") for which in (number, "all")):
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        say("given-up", number)
        raise
    return f"worked on {number}"
'''


@dataclass
class Receiver:
    """Keeps which delivery was sent, and from which address."""

    sent: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def take(self, request: web.Request) -> web.Response:
        assert request.remote is not None
        self.sent.append((request.headers["webhook-id"], request.remote))
        return web.Response()


@asynccontextmanager
async def receiving(port: int) -> AsyncGenerator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/answers", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", port).start()
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Pool:
    """The folder that all hosts serve, and the events in NATS as this process sees them."""

    folder: Path
    server: NatsServer
    sink_port: int
    engine: NatsEngine
    events: list[str] = field(default_factory=list[str])

    def serve(self, host: Host, name: str) -> Serve:
        urls = {
            "NATS_URL": f"nats://{host.server}:{self.server.port}",
            "SINK_URL": f"http://{host.outside}:{self.sink_port}/answers",
        }
        return Serve(self.folder, env={**urls, "HOST": name}, run=host.run)

    async def order(self, count: int) -> list[str]:
        for _ in range(count):
            event = Event("orders", "t", data=len(self.events))
            delivery = Delivery(f"{event.id}/worker", event.id, "worker", Message.user(f"order {len(self.events)}"))
            await self.engine.accept(event, delivery, trigger="orders", agent="worker")
            self.events.append(event.id)
        return self.events[-count:]

    async def done(self) -> None:
        async def look() -> bool | None:
            return True if await self.engine.counts() == {"done": len(self.events)} else None

        await eventually(look, "all events to be done", 60)

    def log(self, what: str, host: str) -> list[int]:
        log = self.folder / "log"
        lines = [line.split(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return [int(number) for kind, name, number in lines if (kind, name) == (what, host)]

    def go(self, host: str, which: str) -> None:
        (self.folder / f"go-{host}-{which}").touch()


@asynccontextmanager
async def pool_at(folder: Path, server: NatsServer, orders: int) -> AsyncGenerator[Pool]:
    (folder / "agents.yml").write_text(MANIFEST)
    # The longest number first: the pattern of a short one would fit its end.
    (folder / "script.yml").write_text("".join(SCRIPT.format(number) for number in reversed(range(orders))))
    (folder / "hands.py").write_text(HANDS)
    server.start()
    engine = NatsEngine(NatsEngineConfig(servers=(server.url,), name="cut", lease_s=LEASE_S), folder)
    try:
        await engine.open()
        yield Pool(folder, server, free_port(), engine)
    finally:
        await engine.stop(0)
        server.end()


@pytest.mark.timeout(180)
async def test_who_is_cut_off_settles_nothing_and_sends_nothing_any_more(tmp_path: Path) -> None:
    need_nats()
    (tmp_path / "nats").mkdir()
    with net() as cables:
        alone, other = cables.host("alone"), cables.host("other")
        server = NatsServer(tmp_path / "nats", cables.address, run=cables.run)
        async with (
            pool_at(tmp_path, server, 8) as pool,
            receiving(pool.sink_port) as receiver,
            pool.serve(alone, "alone") as cut_off,
        ):
            first = await pool.order(4)
            await until(lambda: len(pool.log("begun", "alone")) == 4, "four deliveries in flight")
            pool.go("other", "all")
            async with pool.serve(other, "other") as taker:
                cut = time.monotonic()
                alone.cut()
                # Two of its tools end at once: it has their answers in hand, and a sink that it can reach.
                for number in "01":
                    pool.go("alone", number)
                await until(lambda: set(pool.log("given-up", "alone")) == {2, 3}, "it to stop its runs")
                fenced_s = time.monotonic() - cut
                await pool.done()
                sent = list(receiver.sent)
                alone.mend()
                pool.go("alone", "all")
                assert await taker.stop() == 0
            await pool.order(4)
            await pool.done()
            assert await cut_off.stop() == 0

    assert sum("is given up" in line for line in cut_off.errors) == 4
    assert fenced_s < LEASE_S, "somebody else could have run them already"
    assert Counter(sent) == {
        (f"{event}/{path}", other.from_outside): 1 for event in first for path in ("worker", "worker/teller")
    }
    assert Counter(delivery for delivery, _ in receiver.sent) == {
        f"{event}/{path}": 1 for event in pool.events for path in ("worker", "worker/teller")
    }
    answers = Counter((tmp_path / "answers.txt").read_text().splitlines())
    assert answers == {f"{what} {number}": 1 for what in ("answer", "told") for number in range(8)}
    begun = Counter(pool.log("begun", "alone") + pool.log("begun", "other"))
    assert sum(begun.values()) - len(begun) <= 4
