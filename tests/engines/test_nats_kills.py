"""Workers on NATS that die, and a server that is killed under them: nothing is lost, no recorded step is repeated."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_worker import CHAIN
from engine_world import World
from nats_server import NatsServer, need_nats
from nats_worker import CONCURRENCY
from serving import until

from llmling.errors import EngineError, Full
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Delivery

_WORKER = Path(__file__).with_name("nats_worker.py")
_TESTS = Path(__file__).parents[1]
FULL = bool(os.environ.get("CHAOS"))
EVENTS, KILL_EVERY_S, RESTART_EVERY_S, LEASE_S = (5_000, 5.0, 20.0, 15.0) if FULL else (300, 1.5, 4.0, 3.0)
WORKERS = 3


class Workers:
    """Processes that serve the same events."""

    def __init__(self, url: str, folder: Path, lease_s: float) -> None:
        self.url = url
        self.folder = folder
        self.lease_s = lease_s
        self.processes: list[Process] = []
        self.kills = 0

    async def start(self) -> None:
        paths = [str(_TESTS.parent), str(_TESTS), str(_WORKER.parent)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(_WORKER), self.url, str(self.folder), str(self.lease_s),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, stdout=DEVNULL,
        )  # fmt: skip
        self.processes.append(process)

    async def kill(self, process: Process) -> None:
        process.kill()
        await process.wait()
        self.processes.remove(process)
        self.kills += 1

    async def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            assert await asyncio.wait_for(process.wait(), 60) == 0

    def lines(self) -> list[tuple[str, str]]:
        log = self.folder / "log"
        text = log.read_text() if log.exists() else ""
        return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines()]

    def seen(self, what: str) -> list[str]:
        return [about for kind, about in self.lines() if kind == what]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    need_nats()
    (tmp_path / "nats").mkdir()
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.end()


async def accept(world: World, number: int) -> str:
    """Send an event until it is taken, as a sender would that keeps its id."""
    while True:
        event = Event("inbox", "t", data=number)
        delivery = Delivery(f"{event.id}/a", event.id, "a", Message.user(str(number)))
        try:
            receipt = await world.engine.accept(event, delivery, trigger="inbox", agent="a", key=str(number))
            return receipt.event_id
        except Full:
            await asyncio.sleep(0.05)


async def settled(world: World, events: int, within_s: float) -> None:
    end = time.monotonic() + within_s
    counts: dict[str, int] = {}
    while counts != {"done": events}:
        assert time.monotonic() < end, counts
        await asyncio.sleep(0.2)
        try:
            counts = await world.engine.counts()
        except EngineError:
            continue


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_workers_and_server_are_killed_under_load(server: NatsServer, tmp_path: Path) -> None:
    chance = random.Random(7)
    workers = Workers(server.url, tmp_path, LEASE_S)
    world = World("nats", tmp_path, url=server.url)
    await world.engine.open()
    for _ in range(WORKERS):
        await workers.start()
    accepted: dict[int, str] = {}
    over = asyncio.Event()

    async def pause(seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await over.wait()
        except TimeoutError:
            return True
        return False

    async def kill_workers() -> None:
        while await pause(KILL_EVERY_S):
            await workers.kill(chance.choice(workers.processes))
            await workers.start()

    async def kill_server() -> None:
        while await pause(RESTART_EVERY_S):
            await server.restart()

    async def send(numbers: range) -> None:
        for number in numbers:
            accepted[number] = await accept(world, number)
            await asyncio.sleep(chance.uniform(0, 0.05))

    async with asyncio.TaskGroup() as group:
        group.create_task(kill_workers())
        group.create_task(kill_server())
        senders = [group.create_task(send(range(first, EVENTS, 4))) for first in range(4)]
        await asyncio.wait(senders)
        # Work on under fire for a while, then in peace.
        await asyncio.sleep(2 * KILL_EVERY_S)
        over.set()
    await settled(world, EVENTS, 10 * LEASE_S + 60)

    assert len(set(accepted.values())) == EVENTS
    records = [record async for record in world.engine.runs(limit=None)]
    assert {record.id for record in records} == set(accepted.values())
    for event_id in list(accepted.values())[:: max(1, EVENTS // 100)]:
        record = await world.record(event_id)
        assert [delivery.agent for delivery in record.deliveries] == list(CHAIN)
        assert [delivery.content for delivery in record.deliveries] == list(CHAIN)
    await workers.stop()
    recorded: set[str] = set()
    for kind, about in workers.lines():
        assert not (kind == "asked" and about in recorded), "a step that was recorded is repeated"
        if kind == "recorded":
            recorded.add(about)
    assert len(set(workers.seen("end"))) == EVENTS * len(CHAIN)
    assert workers.kills >= 3
    # Every server kill may cut what is in flight as every worker kill does.
    asked = Counter(workers.seen("asked"))
    assert sum(asked.values()) - len(asked) <= workers.kills * CONCURRENCY * len(CHAIN)
    assert set(workers.seen("settled")) >= set(accepted.values())
    await world.engine.stop(0)


async def test_the_work_of_a_dead_worker_goes_on_elsewhere_once_its_lease_is_over(
    server: NatsServer, tmp_path: Path
) -> None:
    workers = Workers(server.url, tmp_path, 2.0)
    world = World("nats", tmp_path, lease_s=2.0, url=server.url)
    await world.engine.open()
    await workers.start()
    sending = [asyncio.create_task(accept(world, number)) for number in range(60)]
    await until(lambda: len(workers.seen("end")) >= 10, "some work to be done")
    await workers.kill(workers.processes[0])
    await workers.start()
    accepted = await asyncio.gather(*sending)
    await settled(world, len(accepted), 60)
    await workers.stop()
    await world.engine.stop(0)
