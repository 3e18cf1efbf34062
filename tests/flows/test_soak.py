"""A pool under steady load for a long time: memory, descriptors, tasks and the engine's file do not grow with it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest
from chaos import Trial
from serving import Serve, free_port, post, rows, until

FULL = bool(os.environ.get("CHAOS"))
SOAK_S = float(os.environ.get("CHAOS_SOAK_S", "1800" if FULL else "3"))
POSTS_PER_S, FILES_PER_S = (40, 9) if FULL else (20, 10)
CONNECTIONS = 8
"""Of the sender, which keeps them: after a stall of the machine it opens as many as it may, and the pool holds them."""
KEEP_S = 60 if FULL else 1
SAMPLES = 90 if FULL else 9
GROWTH = 25 * 2**20
"""Half an hour at fifty events per second stands for a day at one: 1 MB per hour of that day."""

MANIFEST = """
engine: {{keep_days: {keep_days}}}
agents:
  first:
    model: demo
    concurrency: 20
    inbox: {{size: 1000}}
    triggers:
      - {{type: webhook, name: hook, port: {port}}}
      - {{type: file, name: watch, paths: [inbox], settle_s: 0.1, on_done: delete}}
    connections: [second]
  second:
    model: demo
    concurrency: 20
    inbox: {{size: 1000}}
    sinks: [{{type: file, path: "out/last.txt"}}]
  meter:
    model: demo:script.yml
    tools: [meter:measure]
    triggers: [{{type: schedule, name: tick, every_s: 1, prompt: Measure}}]
"""
SCRIPT = """
- {match: Measure, tool_calls: [{name: measure, arguments: {}}]}
- {reply: measured}
"""
METER = '''
import asyncio

async def measure() -> str:
    """Write down how many tasks there are."""
    with open("tasks", "w") as file:
        file.write(f"{len(asyncio.all_tasks())}\\n")
    return "measured"
'''


@dataclass(frozen=True, slots=True)
class Sample:
    """What a pool takes at one moment."""

    rss: int
    descriptors: int
    threads: int
    tasks: int
    stored: int

    @staticmethod
    def of(process: psutil.Process, folder: Path) -> Sample:
        stored = sum(path.stat().st_size for path in (folder / ".llmling").iterdir())
        tasks = (folder / "tasks").read_text() if (folder / "tasks").exists() else ""
        return Sample(
            process.memory_info().rss, process.num_fds(), process.num_threads(), int(tasks.strip() or 0), stored
        )


async def at_rate(per_s: float, over: asyncio.Event, act: Callable[[int], object]) -> int:
    """Call `act` with 0, 1, 2, ... at a steady rate until it is over, and return how often."""
    began, count = time.monotonic(), 0
    while not over.is_set():
        act(count)
        count += 1
        await asyncio.sleep(began + count / per_s - time.monotonic())
    return count


async def load(folder: Path, port: int, over: asyncio.Event) -> tuple[int, list[str]]:
    """Post and drop files until it is over; return how many files, and the events that were accepted."""
    accepted: list[str] = []

    def drop(number: int) -> None:
        (folder / "part").write_text(f"file {number}")
        (folder / "part").rename(folder / "inbox" / f"{number}.md")

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session,
        asyncio.TaskGroup() as group,
    ):

        async def send(number: int) -> None:
            status, body = await post(session, f"http://127.0.0.1:{port}/webhook", {"n": number})
            assert status in {202, 503}
            if status == 202:
                accepted.append(body["event_id"])

        files = group.create_task(at_rate(FILES_PER_S, over, drop))
        group.create_task(at_rate(POSTS_PER_S, over, lambda number: group.create_task(send(number))))
    return files.result(), accepted


@pytest.mark.chaos
@pytest.mark.timeout(SOAK_S + 600)
async def test_a_long_steady_load_leaves_nothing_behind(tmp_path: Path) -> None:
    trial, port = Trial(f"{SOAK_S:g} s of steady load (O6)"), free_port()
    manifest = MANIFEST.format(port=port, keep_days=KEEP_S / 86_400)
    for name, text in (("agents.yml", manifest), ("script.yml", SCRIPT), ("meter.py", METER)):
        (tmp_path / name).write_text(text)
    (tmp_path / "inbox").mkdir()
    over, samples = asyncio.Event(), list[Sample]()
    async with Serve(tmp_path) as serve:
        process, loading = psutil.Process(serve.pid), asyncio.create_task(load(tmp_path, port, over))
        for _ in range(SAMPLES):
            await asyncio.wait({loading}, timeout=SOAK_S / SAMPLES)
            samples.append(Sample.of(process, tmp_path))
        over.set()
        files, accepted = await loading
        await until(lambda: not list((tmp_path / "inbox").iterdir()), "every file to be run and deleted", 60)
        await until(lambda: set(accepted) <= {event["id"] for event in serve.events}, "every event to end", 60)
        ended = {event["id"]: event for event in serve.events}
        database = tmp_path / ".llmling" / "pool.db"
        await until(lambda: rows(database, "select count(*) from event where status != 'done'") == [(0,)], "the last")
        assert await serve.stop() == 0
    assert {event["status"] for event in ended.values()} == {"done"}
    assert sum(event["trigger"] == "watch" for event in ended.values()) == files
    assert not any("Traceback" in line for line in serve.errors)
    # A third to warm up; after that the last third is held against the one before it.
    before, after = samples[SAMPLES // 3 : SAMPLES * 2 // 3], samples[SAMPLES * 2 // 3 :]
    most = {what: tuple(max(getattr(s, what) for s in part) for part in (before, after)) for what in Sample.__slots__}
    (tmp_path / "samples.json").write_text(json.dumps([[getattr(s, what) for what in most] for s in samples]))
    assert most["rss"][1] - most["rss"][0] < GROWTH, most
    assert most["descriptors"][1] <= most["descriptors"][0] + 10, most
    assert most["threads"][1] <= most["threads"][0] + 4, most
    assert most["tasks"][1] <= most["tasks"][0] * 2 + 20, most
    assert most["stored"][1] <= most["stored"][0] * (1.5 if FULL else 3), most
    measured = ", ".join(
        (
            f"RSS {most['rss'][0] / 2**20:.0f} -> {most['rss'][1] / 2**20:.0f} MB",
            f"descriptors {most['descriptors'][0]} -> {most['descriptors'][1]}",
            f"tasks {most['tasks'][0]} -> {most['tasks'][1]}",
            f"stored {most['stored'][0] / 2**20:.1f} -> {most['stored'][1] / 2**20:.1f} MB",
        )
    )
    trial.holds(events=len(ended), measured=measured)
