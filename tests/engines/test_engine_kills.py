"""Real processes that die: what was acknowledged is run to completion, and what was completed is not run again."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from pathlib import Path

import pytest
from chaos import Trial
from engine_worker import CHAIN, CONCURRENCY

_WORKER = Path(__file__).with_name("engine_worker.py")
_ROOT = Path(__file__).parents[2]
QUEUED, MOST_BYTES = 100_000 if os.environ.get("CHAOS") else 3_000, 150_000_000
KILLS, EVENTS = (100, 6_000) if os.environ.get("CHAOS") else (6, 400)


async def start(mode: str, folder: Path, events: int = 0) -> Process:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (_ROOT, _ROOT / "tests", _WORKER.parent)))}
    return await asyncio.create_subprocess_exec(
        sys.executable, str(_WORKER), mode, str(folder), str(events), env=environment, stdout=DEVNULL
    )


def read(folder: Path) -> list[tuple[str, str]]:
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def seen(folder: Path, what: str) -> list[str]:
    return [about for kind, about in read(folder) if kind == what]


async def kill_under_load(folder: Path, kills: int, events: int) -> None:
    chance = random.Random(7)
    for number in range(kills):
        process = await start("chain", folder, events)
        end = time.monotonic() + 60
        while len(seen(folder, "ready")) <= number:
            assert process.returncode is None
            assert time.monotonic() < end
            await asyncio.sleep(0.005)
        # At a random moment of its work: this one wait is meant as a wait.
        await asyncio.sleep(chance.uniform(0.01, 0.3))
        assert process.returncode is None, "it was done before it could be killed; the load is too small"
        process.kill()
        await process.wait()
    process = await start("chain", folder, events)
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def check_kills(folder: Path, kills: int, events: int) -> None:
    trial = Trial("engine killed at random moments (Q10)")
    await kill_under_load(folder, kills, events)
    accepted = set(seen(folder, "accepted"))
    assert len(accepted) == events
    connection = sqlite3.connect(folder / "state" / "pool.db")
    try:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        states = dict(connection.execute("select id, status from event").fetchall())
        deliveries = connection.execute("select status, count(*) from delivery group by status").fetchall()
        inbox = connection.execute("select sum(pending) from inbox").fetchone()
    finally:
        connection.close()
    assert accepted == {event_id for event_id, status in states.items() if status == "done"}
    assert len(states) == events
    assert deliveries == [("done", events * len(CHAIN))]
    assert inbox == (0,)
    assert set(seen(folder, "settled")) == accepted
    order = {event_id: place for place, event_id in enumerate(dict.fromkeys(seen(folder, "accepted")))}
    for line in (f"{agent}:key-{number}" for agent in CHAIN for number in range(4)):
        # The one that was running when the process died comes again, before the next one.
        places = [order[event_id] for event_id in seen(folder, line)]
        assert places == sorted(places)
        assert len(set(places)) == events // 8
    ends = Counter(seen(folder, "end"))
    assert len(ends) == events * len(CHAIN)
    repeated, most = sum(count - 1 for count in ends.values()), kills * CONCURRENCY * len(CHAIN)
    assert repeated <= most
    trial.holds(events=events, kills=kills, repeated=repeated, bound=str(most))


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_killed_again_and_again_under_load(tmp_path: Path) -> None:
    await check_kills(tmp_path, KILLS, EVENTS)


async def test_a_delivery_that_kills_the_process_is_dead_in_the_end(tmp_path: Path) -> None:
    for _ in range(3):
        process = await start("poison", tmp_path)
        assert await asyncio.wait_for(process.wait(), 60) == -9
    process = await start("poison", tmp_path)
    assert await asyncio.wait_for(process.wait(), 60) == 0
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
    process = await start("flood", tmp_path, QUEUED)
    assert await asyncio.wait_for(process.wait(), 800) == 0
    assert seen(tmp_path, "queued") == [f'{{"pending": {QUEUED}}}']
    assert seen(tmp_path, "done") == [f'{{"done": {QUEUED}}}']
    (grown,) = seen(tmp_path, "grown")
    assert int(grown) < MOST_BYTES
