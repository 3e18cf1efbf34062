"""Real processes that die: what was acknowledged is run to completion, and what was completed is not run again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from pathlib import Path

import pytest
from chaos import Trial
from engine_worker import CHAIN, CONCURRENCY

_WORKER = Path(__file__).with_name("engine_worker.py")
_ROOT = Path(__file__).parents[2]
QUEUED, MOST_BYTES = 100_000 if os.environ.get("CHAOS") else 3_000, 150_000_000
KILLS, EVENTS = (500, 10_000) if os.environ.get("CHAOS") else (5, 400)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (_ROOT, _ROOT / "tests", _WORKER.parent)))}


async def start(mode: str, folder: Path, events: int = 0) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(_WORKER), mode, str(folder), str(events), env=environment(), stdout=DEVNULL
    )


class Nurse:
    """Starts one worker after the other."""

    async def __aenter__(self) -> Nurse:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(_WORKER), "nurse", env=environment(), stdin=PIPE, stdout=PIPE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def start(self, mode: str, folder: Path, events: int = 0, first: int = 0) -> int:
        """Start a worker and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{mode} {folder} {events} {first}\n".encode())
        return await self._said()

    async def ended(self) -> int:
        """Return how it ended."""
        return await self._said()

    async def _said(self) -> int:
        assert self._process.stdout is not None
        return int(await asyncio.wait_for(self._process.stdout.readline(), 120))


def read(folder: Path) -> list[tuple[str, str]]:
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def seen(folder: Path, what: str) -> list[str]:
    return [about for kind, about in read(folder) if kind == what]


class Load:
    """What a chain of workers, one killed after the other, has said so far, and what must hold of their file then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accepted: dict[str, int] = {}
        """By event, its place in the order in which events came."""
        self.settled: set[str] = set()
        self.ends = Counter[str]()
        self.ready = self._read = self.repeated = 0
        self._reached: dict[str, int] = {}
        self._lines: dict[str, list[int]] = {}

    def hear(self) -> None:
        """Take in what the workers have written since the last time, and check that nothing recorded is run again."""
        with (self.folder / "log").open() as log:
            log.seek(self._read)
            text = log.read()
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole)
        for kind, _, about in (line.partition(" ") for line in whole.splitlines()):
            if kind == "ready":
                self.ready += 1
            elif kind == "accepted":
                self.accepted.setdefault(about, len(self.accepted))
            elif kind == "settled":
                self.settled.add(about)
            elif kind == "start":
                self._started(about)
            elif kind == "end":
                self.repeated += self.ends[about] > 0
                self.ends[about] += 1
            else:
                self._lines.setdefault(kind, []).append(self._place(about))

    def check(self) -> None:
        """Look into the file: it is whole, knows all that was accepted, and its counts are right."""
        connection = sqlite3.connect(self.folder / "state" / "pool.db")
        try:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
            states = dict(connection.execute("select id, status from event"))
            inbox = "select agent, pending from inbox where pending order by agent"
            counts = "select agent, count(*) from delivery where status = 'pending' group by agent order by agent"
            counted = connection.execute(counts).fetchall()
            assert connection.execute(inbox).fetchall() == counted
            lost = "select count(*) from event e where finished is null and not exists"
            lost += " (select 1 from delivery d where d.event_id = e.id and d.finished is null)"
            assert connection.execute(lost).fetchone() == (0,), "an open event has nothing that will be run"
        finally:
            connection.close()
        assert set(states.values()) <= {"pending", "running", "done"}
        assert self.accepted.keys() <= states.keys()
        assert self.settled <= {event_id for event_id, status in states.items() if status == "done"}
        for places in self._lines.values():
            # The one that was running when the process died comes again, before the next one.
            assert places == sorted(places)

    def check_end(self, events: int) -> None:
        """See that every event was run, each by all agents and in its line."""
        self.hear()
        self.check()
        assert len(self.accepted) == events
        assert self.settled == self.accepted.keys()
        assert len(self.ends) == events * len(CHAIN)
        assert [len(set(places)) for places in self._lines.values()] == [events // 8] * 4 * len(CHAIN)

    def _started(self, delivery: str) -> None:
        event_id, *_, agent = delivery.split("/")
        assert event_id not in self.settled, "a settled event was run again"
        reached = CHAIN.index(agent)
        assert reached >= self._reached.get(event_id, 0), "what its successor has followed was run again"
        self._reached[event_id] = reached

    def _place(self, event_id: str) -> int:
        # A worker can die between the start of an event and the line that says that it was accepted.
        return self.accepted.setdefault(event_id, len(self.accepted))


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_killed_again_and_again_under_load(tmp_path: Path) -> None:
    trial, load, chance = Trial("engine killed at random moments (Q10)"), Load(tmp_path), random.Random(7)
    (tmp_path / "log").touch()
    async with Nurse() as nurse:
        for number in range(KILLS):
            # The last few come again, and are known.
            worker = await nurse.start("chain", tmp_path, 10**9, max(0, len(load.accepted) - 5))
            end = time.monotonic() + 60
            while load.ready <= number:
                assert time.monotonic() < end
                await asyncio.sleep(0.005)
                load.hear()
            # At a random moment of its work: this one wait is meant as a wait.
            await asyncio.sleep(chance.uniform(0.01, 0.3))
            os.kill(worker, signal.SIGKILL)
            assert await nurse.ended() == -signal.SIGKILL
            load.hear()
            load.check()
        events = max(EVENTS, -(-(len(load.accepted) + 8) // 8) * 8)
        await nurse.start("chain", tmp_path, events, max(0, len(load.accepted) - 5))
        assert await nurse.ended() == 0
    load.check_end(events)
    most = KILLS * CONCURRENCY * len(CHAIN)
    assert load.repeated <= most
    trial.holds(events=events, kills=KILLS, repeated=load.repeated, bound=str(most))


async def test_a_delivery_that_kills_the_process_is_dead_in_the_end(tmp_path: Path) -> None:
    async with Nurse() as nurse:
        for ended in (-9, -9, -9, 0):
            await nurse.start("poison", tmp_path)
            assert await nurse.ended() == ended
    assert seen(tmp_path, "start") == ["deadly-1", "deadly-2", "deadly-3", "harmless-1"]
    assert sorted(seen(tmp_path, "settled")) == [
        '["deadly", "dead", "the process died 3 times while running this delivery"]',
        '["harmless", "done", null]',
    ]


async def test_a_full_disk_refuses_and_keeps_the_answer(tmp_path: Path) -> None:
    process = await start("fill", tmp_path)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    (full,) = seen(tmp_path, "full")
    assert full.startswith("5.0 engine not writable: ")
    assert seen(tmp_path, "meanwhile") == ["None"]
    assert seen(tmp_path, "then") == ["running"]
    assert seen(tmp_path, "recovered") == ["done 100000 1"]
    assert seen(tmp_path, "accepted") == ["True"]


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_memory_does_not_grow_with_the_queue(tmp_path: Path) -> None:
    trial = Trial("events queued before anybody serves (Q6)")
    process = await start("flood", tmp_path, QUEUED)
    assert await asyncio.wait_for(process.wait(), 800) == 0
    assert seen(tmp_path, "queued") == [f'{{"pending": {QUEUED}}}']
    assert seen(tmp_path, "done") == [f'{{"done": {QUEUED}}}']
    (grown,) = seen(tmp_path, "grown")
    assert int(grown) < MOST_BYTES
    trial.holds(events=QUEUED, measured=f"RSS +{int(grown) / 2**20:.0f} MB")
