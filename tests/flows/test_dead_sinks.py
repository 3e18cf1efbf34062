"""Dead events to `on: dead` sinks: each once, with its history, also when the process or the receiver dies."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from serving import Serve, free_port, post, until

from llmling import Agent, AgentPool, Event, Manifest
from llmling.deaths import TRIES, Deaths
from llmling.errors import SinkError
from llmling.protocols import Answer, Engine
from llmling.server.metrics import Sample
from llmling.testing import FakeClock, fire
from llmling.wiring import open_engine

MANIFEST = """
server: false
engine: {{path: pool.db}}
agents:
  first:
    model: demo:script.yml
    triggers: [{{type: webhook, name: hook, port: {port}}}]
    connections: [second]
    sinks: [{{type: http, url: "{url}", "on": dead}}, {{type: file, path: "answers.txt"}}]
  second:
    model: demo:script.yml
    retries: {{attempts: 1}}
    redelivery: {{attempts: 2, backoff_s: 0.01, max_backoff_s: 0.01}}
    sinks: [{{type: file, path: "dead/{{{{ event.id }}}}.json", "on": dead}}]
"""
SCRIPT = """
- {match: good, reply: fine}
- {match: bad answer, error: 500}
- {match: bad, reply: bad answer}
- {reply: fine}
"""


class Receiver:
    """An HTTP server that keeps what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.statuses: list[int] = []
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.ids.append(request.headers["webhook-id"])
        self.arrived.set()
        await self.gate.wait()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@asynccontextmanager
async def receiving() -> AsyncGenerator[tuple[Receiver, str]]:
    receiver, port = Receiver(), free_port()
    app = web.Application()
    app.router.add_post("/dead", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield receiver, f"http://127.0.0.1:{port}/dead"
    finally:
        await runner.cleanup()


def project(folder: Path, url: str) -> int:
    port = free_port()
    (folder / "agents.yml").write_text(MANIFEST.format(port=port, url=url))
    (folder / "script.yml").write_text(SCRIPT)
    return port


def told(pool: AgentPool[None]) -> float:
    """Return how often a sink has taken a dead event."""
    return sum(sample.value for sample in pool.metrics() if sample.name == "llmling_dead_sink_total")


async def test_a_dead_event_is_sent_with_its_history_and_once(tmp_path: Path) -> None:
    async with receiving() as (receiver, url):
        project(tmp_path, url)
        manifest = tmp_path / "agents.yml"
        async with AgentPool[None](manifest) as pool:
            dead = await fire(pool, "hook", data="bad")
            alive = await fire(pool, "hook", data="good")
            assert (dead.status, alive.status) == ("dead", "done")
            file = tmp_path / "dead" / f"{dead.id}.json"
            await until(lambda: len(receiver.bodies) == 1 and file.exists(), "both sinks")
            await until(lambda: told(pool) == 2, "marks")
        assert receiver.ids == [dead.id]
        content = receiver.bodies[0]["content"]
        assert (receiver.bodies[0]["event_id"], content["status"], content["trigger"]) == (dead.id, "dead", "hook")
        assert [(hop["agent"], hop["status"], hop["attempts"]) for hop in content["hops"]] == [
            ("first", "done", 1), ("second", "dead", 2),
        ]  # fmt: skip
        assert "500" in content["error"]
        assert content["event"]["data"] == "bad"
        assert json.loads(file.read_text()) == content
        assert (tmp_path / "answers.txt").read_text() == "fine\n"
        # Nobody is told again at the next start, but of a second death.
        async with AgentPool[None](manifest) as pool:
            assert pool.engine is not None
            assert await pool.engine.retry(dead.id) == 1
            await until(lambda: len(receiver.bodies) == 2, "the second death")
            await until(lambda: told(pool) == 2, "marks")
        assert receiver.ids == [dead.id, dead.id]
        assert len(list((tmp_path / "dead").iterdir())) == 1


async def test_a_process_killed_before_it_was_taken_tells_it_at_the_next_start(tmp_path: Path) -> None:
    async with receiving() as (receiver, url):
        port = project(tmp_path, url)
        receiver.gate.clear()
        async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
            assert (await post(session, f"http://127.0.0.1:{port}/webhook", "bad"))[0] == 202
            await asyncio.wait_for(receiver.arrived.wait(), 60)
            await serve.kill()
            receiver.gate.set()
            assert len(receiver.bodies) == 1
            await serve.start()
            await until(lambda: marks(tmp_path), "the event again, and that it was taken", 60)
            await serve.kill()
            await serve.start()
            assert await serve.stop() == 0
    assert len(receiver.bodies) == 2
    assert len(set(receiver.ids)) == 1
    assert receiver.bodies[0] == receiver.bodies[1]


def marks(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "pool.db")) as connection:
        return connection.execute("select count(*) from store where space = 'dead sinks first.0'").fetchone()[0]


class Fussy:
    """A sink that fails as it is told."""

    name = "fussy"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.answers: list[Answer] = []

    async def send(self, answer: Answer) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.answers.append(answer)


@asynccontextmanager
async def burying(
    folder: Path, sink: Fussy, clock: FakeClock, *, sinks: bool = True
) -> AsyncGenerator[tuple[Engine, Deaths]]:
    """An engine without a pool, and a sink that is told of its dead events."""
    engine = open_engine(Manifest.load({"engine": {"path": str(folder / "pool.db")}}))
    agent = Agent[Any]("first", model="demo")
    agent.dead_sinks += [sink] if sinks else []
    await engine.open()
    try:
        async with Deaths({"first": agent}, engine, clock) as deaths:
            yield engine, deaths
    finally:
        await engine.stop(0)


async def die(engine: Engine, deaths: Deaths | None, agent: str = "first") -> str:
    event = Event("hook", "dev.llmling.webhook")
    await engine.accept(event, None, trigger="hook", agent=agent, dead="too large")
    record = await engine.inspect(event.id)
    assert record is not None
    if deaths is not None:
        deaths.heard(record)
    return event.id


async def test_a_sink_that_is_down_is_tried_again_and_given_up_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, sink = FakeClock(), Fussy(*[SinkError("down")] * (TRIES + 2))
    async with burying(tmp_path, sink, clock) as (engine, deaths):
        await die(engine, deaths, agent="somebody else")
        lost, kept = await die(engine, deaths), await die(engine, deaths)
        while not sink.answers:
            await clock.advance(300.0)
            await asyncio.sleep(0.001)
        assert [answer.delivery_id for answer in sink.answers] == [kept]
        await until(lambda: counted(deaths.samples()) == {"given up": 1, "sent": 1}, "the marks", 60)
        assert (await engine.counts()) == {"dead": 3}
    given_up = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in given_up] == [f"dead event {lost} is not sent to fussy, given up: down"]


async def test_what_can_never_be_taken_is_given_up_at_once_and_defects_of_a_sink_end_nothing(tmp_path: Path) -> None:
    clock, sink = FakeClock(), Fussy(SinkError("never", retryable=False), ZeroDivisionError("oh"))
    async with burying(tmp_path, sink, clock) as (engine, deaths):
        await die(engine, deaths)
        second = await die(engine, deaths)
        await clock.asleep(timeout_s=60)
        await clock.advance(300.0)
        await until(lambda: [answer.delivery_id for answer in sink.answers] == [second], "the second event")


async def test_a_sink_that_is_new_hears_only_of_what_dies_from_then_on(tmp_path: Path) -> None:
    first, second = Fussy(), Fussy()
    async with burying(tmp_path, Fussy(), FakeClock(), sinks=False) as (engine, _):
        await die(engine, None)
    clock = FakeClock(dt.datetime.now(dt.UTC))
    async with burying(tmp_path, first, clock) as (engine, deaths):
        heard = await die(engine, deaths)
        await until(lambda: first.answers, "the one that was heard of", 60)
        missed = await die(engine, None)
    async with burying(tmp_path, second, clock):
        await until(lambda: second.answers, "the one that was missed", 60)
    assert [answer.delivery_id for answer in first.answers] == [heard]
    assert [answer.delivery_id for answer in second.answers] == [missed]


def counted(samples: Iterable[Sample]) -> Counter[str]:
    counts = Counter[str]()
    for sample in samples:
        if sample.name == "llmling_dead_sink_total":
            counts[sample.labels["outcome"]] += int(sample.value)
    return counts
