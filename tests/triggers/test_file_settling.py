"""A file is read when it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest
from chaos import Trial
from trigger_bench import Bench

from llmling.testing import drop_file, until

PIECES = 100 if os.environ.get("CHAOS") else 20


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "in").mkdir()
    return Bench(tmp_path)


@pytest.mark.chaos
async def test_slow_writers_give_one_event_each_with_the_whole_content(bench: Bench) -> None:
    trial = Trial("slow writers (F6)")

    async def write(path: Path) -> str:
        digest = hashlib.sha256()
        for number in range(PIECES):
            piece = f"{number} ".encode() * 100
            digest.update(piece)
            with path.open("ab") as file:
                file.write(piece)
            await asyncio.sleep(0.1)
        return digest.hexdigest()

    async with bench.running("in", settle_s=0.7):
        digests = await asyncio.gather(*(write(bench.folder / f"in/{number}.log") for number in range(20)))
        await bench.expect(*(f"in/{number}.log" for number in range(20)))
    assert {event.subject: event.data["sha256"] for event in bench.events} == {
        f"in/{number}.log": digest for number, digest in enumerate(digests)
    }
    trial.holds(events=20)


@pytest.mark.parametrize("offset_s", [-1_000_000, 1_000_000])
async def test_modification_times_are_not_trusted(bench: Bench, offset_s: int) -> None:
    path = bench.folder / "in/a.md"
    moment = time.time() + offset_s
    async with bench.running("in", settle_s=0.4):
        for _ in range(5):
            with path.open("a") as file:
                file.write("piece ")
            os.utime(path, (moment, moment))
            await asyncio.sleep(0.1)
        await bench.expect("in/a.md")
    assert bench.events[0].data["text"] == "piece " * 5


async def test_without_settling_a_whole_file_is_taken_at_once(bench: Bench) -> None:
    async with bench.running("in", settle_s=0):
        drop_file(bench.folder, "in/a.md", "whole")
        await bench.expect("in/a.md")


async def test_a_save_by_removing_and_writing_anew_is_not_a_deletion(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md", "1")
    async with bench.running("in", settle_s=0.4, events=["added", "modified", "deleted"]):
        await bench.expect("in/a.md")
        path.unlink()
        await asyncio.sleep(0.1)
        path.write_text("22")
        await until(lambda: bench.changes[1:] == [("modified", "in/a.md")])
