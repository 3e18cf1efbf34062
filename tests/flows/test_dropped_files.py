"""Files dropped while the pool is down, stopped or running: each is run exactly once, with its whole content."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from chaos import Trial
from serving import Serve, rows, until

FULL = bool(os.environ.get("CHAOS"))
DOWN, RUNNING, STOPPED = (5_000, 1_000, 50_000) if FULL else (300, 300, 300)
MANY, IDLE_S = (100_000, 65) if FULL else (2_000, 0.1)
TREES, MOVED = (300, 1_000) if FULL else (100, 100)

MANIFEST = """
server: false
agents:
  reader:
    model: demo
    concurrency: 50
    inbox: {size: 20000}
    triggers:
      - {type: file, name: inbox, paths: [inbox], extensions: [.md], settle_s: 0.3}
"""


def project(folder: Path) -> Path:
    """Write the manifest and return the watched folder."""
    (folder / "agents.yml").write_text(MANIFEST)
    inbox = folder / "inbox"
    inbox.mkdir()
    return inbox


def runs(folder: Path) -> Counter[str]:
    """Return how often each file was run to its end."""
    with sqlite3.connect(f"file:{folder}/.llmling/pool.db?mode=ro", uri=True) as connection:
        query = "select json_extract(data, '$.subject') from event where status = 'done'"
        found = Counter(subject for (subject,) in connection.execute(query))
    connection.close()
    return found


def ended(folder: Path) -> int:
    """Return how many events have ended."""
    return rows(folder / ".llmling" / "pool.db", "select count(*) from event where status = 'done'")[0][0]


def write(inbox: Path, name: str, count: int) -> None:
    for number in range(count):
        (inbox / f"{name}-{number}.md").write_text(f"file {number}")


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_files_dropped_while_down_stopped_or_running_are_each_run_once(tmp_path: Path) -> None:
    trial, inbox = Trial("files while down, stopped or running (F2, F3)"), project(tmp_path)
    write(inbox, "down", DOWN)
    async with Serve(tmp_path) as serve:
        write(inbox, "running", RUNNING)
        await until(lambda: ended(tmp_path) >= DOWN, "the first files", 300)
        os.kill(serve.pid, signal.SIGSTOP)
        write(inbox, "stopped", STOPPED)
        os.kill(serve.pid, signal.SIGCONT)
        began = time.monotonic()
        await until(lambda: ended(tmp_path) >= DOWN + RUNNING + STOPPED, "all files", 600)
        took = time.monotonic() - began
        assert await serve.stop() == 0
    # A restart looks at every file again and runs none.
    async with Serve(tmp_path) as serve:
        (inbox / "last.md").write_text("last")
        await until(lambda: runs(tmp_path)["inbox/last.md"], "the file after the restart", 120)
    counts = runs(tmp_path)
    assert len(counts) == DOWN + RUNNING + STOPPED + 1
    assert set(counts.values()) == {1}
    trial.holds(events=len(counts), measured=f"{STOPPED} run in {took:.0f} s after SIGCONT")


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_folders_made_and_filled_at_once_are_not_missed(tmp_path: Path) -> None:
    trial, inbox = Trial("folders made, filled and moved in at once (F4)"), project(tmp_path)
    async with Serve(tmp_path):
        for number in range(TREES):
            deep = inbox / f"tree-{number}" / "a" / "b"
            deep.mkdir(parents=True)
            for index in range(5):
                (deep / f"{index}.md").write_text(f"{number} {index}")
        (tmp_path / "aside").mkdir()
        write(tmp_path / "aside", "moved", MOVED)
        (tmp_path / "aside").rename(inbox / "moved")
        await until(lambda: ended(tmp_path) >= 5 * TREES + MOVED, "every file of every tree", 240)
    counts = runs(tmp_path)
    assert len(counts) == 5 * TREES + MOVED
    assert set(counts.values()) == {1}
    trial.holds(events=len(counts))


@pytest.mark.chaos
@pytest.mark.timeout(1200)
async def test_a_folder_of_very_many_files_costs_little(tmp_path: Path) -> None:
    trial, inbox = Trial("a folder of very many old files (F9)"), project(tmp_path)
    (tmp_path / "agents.yml").write_text(MANIFEST.replace("settle_s: 0.3", "settle_s: 0.3, backlog: ignore"))
    write(inbox, "old", MANY)
    began = time.monotonic()
    async with Serve(tmp_path) as serve:
        ready_s = time.monotonic() - began
        known = "select count(*) from store"
        await until(lambda: rows(tmp_path / ".llmling" / "pool.db", known)[0][0] >= MANY, "all to be known", 600)
        process = psutil.Process(serve.pid)
        before = sum(process.cpu_times()[:2])
        # What it takes while nothing happens is the matter of this trial.
        await asyncio.sleep(IDLE_S)
        idle = (sum(process.cpu_times()[:2]) - before) / IDLE_S
        (inbox / "new.md").write_text("new")
        await until(lambda: serve.events, "the new file", 120)
        assert await serve.stop() == 0
    assert runs(tmp_path) == {"inbox/new.md": 1}
    measured = f"ready in {ready_s:.1f} s, {idle:.1%} of a core when idle"
    trial.holds(events=MANY, measured=measured)


async def test_a_slow_writer_is_run_once_with_the_whole_content(tmp_path: Path) -> None:
    inbox = project(tmp_path)
    async with Serve(tmp_path):
        with (inbox / "slow.md").open("w") as file:
            for number in range(100 if FULL else 30):
                file.write(f"line {number}\n")
                file.flush()
                await asyncio.sleep(0.1)
        await until(lambda: runs(tmp_path), "the slow file", 30)
        await asyncio.sleep(1)
    assert runs(tmp_path) == {"inbox/slow.md": 1}
    with sqlite3.connect(tmp_path / ".llmling" / "pool.db") as connection:
        (text,) = connection.execute("select json_extract(data, '$.data.text') from event").fetchone()
    connection.close()
    assert text == (inbox / "slow.md").read_text()
