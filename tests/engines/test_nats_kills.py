"""Workers on NATS that die, and a server that is killed under them: nothing is lost, no recorded step is repeated."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest
from chaos import Trial
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
KILLS, PACE_S = (20, 0.08) if FULL else (3, 0.025)
WORKERS = 3
_LETS_GO_S = 0.2


@dataclass(slots=True)
class Go:
    """One process at one delivery: from when on, until when, and whether it was cut off from NATS and let go."""

    delivery_id: str
    pid: int
    begun: float
    end: float | None = None
    cut: float | None = None


@dataclass(frozen=True, slots=True)
class Handout:
    """One delivery handed to one process by the queue, which counts how often it has done so."""

    pid: int
    moment: float
    number: int


class Workers:
    """Processes that serve the same events."""

    def __init__(self, url: str, folder: Path, lease_s: float, *, attempts: int = 100) -> None:
        self.url = url
        self.attempts = attempts
        self.folder = folder
        self.lease_s = lease_s
        self.processes: list[Process] = []
        self.killed: dict[int, float] = {}
        self.ups: list[float] = []
        """When the server answered again, each time that it was restarted."""

    async def start(self) -> None:
        paths = [str(_TESTS.parent), str(_TESTS), str(_WORKER.parent)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(_WORKER), self.url, str(self.folder), str(self.lease_s), str(self.attempts),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, stdout=DEVNULL,
        )  # fmt: skip
        self.processes.append(process)

    async def kill(self, process: Process) -> None:
        process.kill()
        await process.wait()
        self.processes.remove(process)
        self.killed[process.pid] = time.monotonic()

    async def end(self) -> None:
        """Leave no process behind, however the test ended."""
        for process in list(self.processes):
            if process.returncode is None:
                await self.kill(process)

    async def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            assert await asyncio.wait_for(process.wait(), 60) == 0

    def lines(self) -> list[tuple[str, str]]:
        log = self.folder / "log"
        text = log.read_text() if log.exists() else ""
        return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines()]

    def about(self, delivery_id: str) -> list[tuple[str, str]]:
        return [line for line in self.lines() if delivery_id in line[1]]

    def seen(self, what: str) -> list[str]:
        return [about for kind, about in self.lines() if kind == what]

    def goes(self) -> dict[str, list[Go]]:
        """Return who was at each delivery, first one first."""
        goes: dict[str, list[Go]] = {}
        for kind, about in self.lines():
            if kind in {"begun", "end", "cut"}:
                delivery_id, pid, moment = about.split(" ")
                mine = goes.setdefault(delivery_id, [])
                if kind == "begun":
                    mine.append(Go(delivery_id, int(pid), float(moment)))
                else:
                    setattr(next(go for go in reversed(mine) if go.pid == int(pid)), kind, float(moment))
        return goes

    def together(self) -> list[tuple[Go, Go]]:
        """Return where a second process began what a first one was at."""
        still: dict[int, list[tuple[float, float]]] = {}
        for about in self.seen("still"):
            pid, since, until = about.split(" ")
            still.setdefault(int(pid), []).append((float(since), float(until)))

        def at_it(go: Go, moment: float) -> bool:
            until = go.end or go.cut or self.killed.get(go.pid, math.inf)
            # Who stands still cannot let go, and does nothing either; it lets go as soon as it moves.
            stood = any(since <= moment and until <= moves + _LETS_GO_S for since, moves in still.get(go.pid, ()))
            return moment < until and not (stood and go.cut is not None)

        return [
            (one, other) for goes in self.goes().values() for one, other in pairwise(goes) if at_it(one, other.begun)
        ]

    def handouts(self) -> dict[str, list[Handout]]:
        """Return whom the queue has handed each delivery to, first one first."""
        handouts: dict[str, list[Handout]] = {}
        for about in self.seen("handed"):
            delivery_id, pid, moment, number = about.split(" ")
            handouts.setdefault(delivery_id, []).append(Handout(int(pid), float(moment), int(number)))
        return handouts

    def pauses(self) -> list[tuple[float, str]]:
        """Return how long each delivery that a killed process held waited for the next one, the longest first.

        It counts from the kill, from the server's return, and from the kill of whoever had it in hand meanwhile.
        """
        handouts = self.handouts()
        pauses: list[tuple[float, str]] = []
        for delivery_id, goes in self.goes().items():
            for one, other in pairwise(goes):
                if one.pid in self.killed and other.pid != one.pid:
                    had_it = self._ends_of(handouts.get(delivery_id, []), one, other)
                    pauses.append((other.begun - max(m for m in had_it + self.ups if m <= other.begun), delivery_id))
        return sorted(pauses, reverse=True)

    def _ends_of(self, handouts: list[Handout], one: Go, other: Go) -> list[float]:
        """Return when those were killed to whom a delivery was handed before the `other` one began it."""
        before = [handout for handout in handouts if handout.moment <= other.begun]
        ends = [self.killed[pid] for pid in (one.pid, *(handout.pid for handout in before)) if pid in self.killed]
        own = max((place for place, handout in enumerate(before) if handout.pid == one.pid), default=0)
        numbers = [handout.number for handout in before[own:]]
        if numbers and numbers[-1] - numbers[0] >= len(numbers):
            # The queue counted one more: it went to a process that was killed before it had read it, a lease ago.
            ends.append(min(self.killed.values(), key=lambda moment: abs(other.begun - self.lease_s - moment)))
        return ends


Served: TypeAlias = tuple[Workers, World]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    need_nats()
    (tmp_path / "nats").mkdir()
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.end()


@asynccontextmanager
async def serving(server: NatsServer, folder: Path, lease_s: float, **options: int) -> AsyncGenerator[Served]:
    """Give workers to start, and a world to look into."""
    workers, world = Workers(server.url, folder, lease_s, **options), World("nats", folder, url=server.url)
    await world.engine.open()
    try:
        yield workers, world
    finally:
        await workers.end()
        await world.engine.stop(0)


async def accept(world: World, number: int, text: str = "") -> str:
    """Send an event until it is taken, as a sender would that keeps its id."""
    while True:
        event = Event("inbox", "t", data=number)
        delivery = Delivery(f"{event.id}/a", event.id, "a", Message.user(text or str(number)))
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


async def told(workers: Workers, event_ids: set[str]) -> None:
    """Return once every end was told; who was killed before it could is followed by whoever gets the ticket next."""
    # A lease after the last kill, and some time to look.
    with contextlib.suppress(AssertionError):
        await until(lambda: set(workers.seen("settled")) >= event_ids, "every end to be told", LEASE_S + 45)
    missing = event_ids - set(workers.seen("settled"))
    assert not missing, ([workers.about(each) for each in missing], workers.killed, workers.ups, time.monotonic())


async def fire(workers: Workers, server: NatsServer, over: asyncio.Event) -> None:
    """Kill workers and the server, each in its own beat, until it is over."""
    chance = random.Random(7)

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
            workers.ups.append(time.monotonic())

    async with asyncio.TaskGroup() as group:
        group.create_task(kill_workers())
        group.create_task(kill_server())


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_workers_and_server_are_killed_under_load(server: NatsServer, tmp_path: Path) -> None:
    async with serving(server, tmp_path, LEASE_S) as (workers, world):
        trial = Trial("NATS: workers and their server killed under load")
        for _ in range(WORKERS):
            await workers.start()
        accepted: dict[int, str] = {}
        over = asyncio.Event()
        todo = iter(range(EVENTS))

        async def send() -> None:
            for number in todo:
                accepted[number] = await accept(world, number)
                await asyncio.sleep(PACE_S)

        async with asyncio.TaskGroup() as group:
            group.create_task(fire(workers, server, over))
            await asyncio.wait([group.create_task(send()) for _ in range(4)])
            # Work on under fire for a while, then in peace.
            await asyncio.sleep(2 * KILL_EVERY_S)
            over.set()
        await settled(world, EVENTS, 10 * LEASE_S + 60)

        assert len(set(accepted.values())) == EVENTS
        assert {record.id async for record in world.engine.runs(limit=None)} == set(accepted.values())
        for event_id in list(accepted.values())[:: max(1, EVENTS // 100)]:
            record = await world.record(event_id)
            assert [delivery.agent for delivery in record.deliveries] == list(CHAIN)
            assert [delivery.content for delivery in record.deliveries] == list(CHAIN)
        await told(workers, set(accepted.values()))
        await workers.stop()
        assert len(workers.killed) >= KILLS
        check_steps(workers)
        repeated, most = check_goes(workers)
        longest = max((pause for pause, _ in workers.pauses()), default=0.0)
        trial.holds(
            events=EVENTS,
            kills=len(workers.killed) + len(workers.ups),
            repeated=repeated,
            bound=str(most),
            measured=f"taken over within {longest:.1f} s",
        )


def check_steps(workers: Workers) -> None:
    recorded: set[str] = set()
    for kind, about in workers.lines():
        assert not (kind == "asked" and about in recorded), "a step that was recorded is repeated"
        if kind == "recorded":
            recorded.add(about)


def check_goes(workers: Workers) -> tuple[int, int]:
    """Return how many deliveries were begun again, and how many that may be."""
    goes = workers.goes()
    assert len(goes) == EVENTS * len(CHAIN)
    assert all(any(go.end is not None for go in mine) for mine in goes.values())
    assert not workers.together(), "a delivery was taken from a process that was at it"
    for mine in goes.values():
        for go in mine[:-1]:
            # Only what was in flight at a kill is begun again, and only because of that kill.
            assert go.pid in workers.killed or any(go.begun < up for up in workers.ups), go
    if FULL:
        longest, delivery_id = workers.pauses()[0]
        killed = {moment: pid for pid, moment in workers.killed.items()}
        assert longest <= LEASE_S + 2, (workers.about(delivery_id), killed, workers.ups)
    repeated = sum(len(mine) - 1 for mine in goes.values())
    most = (len(workers.killed) + len(workers.ups) * WORKERS) * CONCURRENCY * len(CHAIN)
    assert repeated <= most
    return repeated, most


async def test_the_work_of_a_dead_worker_goes_on_elsewhere_once_its_lease_is_over(
    server: NatsServer, tmp_path: Path
) -> None:
    async with serving(server, tmp_path, 2.0) as (workers, world):
        await workers.start()
        sending = [asyncio.create_task(accept(world, number)) for number in range(60)]
        await until(lambda: len(workers.seen("end")) >= 10, "some work to be done")
        await workers.kill(workers.processes[0])
        await workers.start()
        accepted = await asyncio.gather(*sending)
        await settled(world, len(accepted), 60)
        await workers.stop()


@pytest.mark.timeout(180)
async def test_a_delivery_that_kills_its_process_is_alone_at_its_last_try(server: NatsServer, tmp_path: Path) -> None:
    async with serving(server, tmp_path, 1.0, attempts=2) as (workers, world):
        deadly = await accept(world, 0, "deadly")
        neighbours = [await accept(world, number, "neighbour") for number in range(1, 4)]
        for kills in range(1, 3):
            await workers.start()
            process = workers.processes.pop()
            assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
            workers.killed[process.pid] = time.monotonic()
            assert len(workers.goes()[f"{deadly}/a"]) == kills
        await workers.start()
        record = await world.finished(deadly)
        assert (record.status, record.attempts) == ("dead", 2)
        assert record.error == "the process died 2 times while running this delivery"
        for event_id in neighbours:
            assert (await world.finished(event_id)).status == "done"
        await workers.stop()
        goes = workers.goes()
        last = goes.pop(f"{deadly}/a")[-1]
        beside = [go for mine in goes.values() for go in mine if go.pid == last.pid]
        assert all(go.end is not None and go.end <= last.begun for go in beside), "somebody else died with it"
