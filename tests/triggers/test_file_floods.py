"""Nothing is missed: folders made at once, thousands of files, a blocked process, roots that come and go."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import pytest
from chaos import Trial
from trigger_bench import Bench

from llmling.testing import drop_file, until

ROOTS = 20 if os.environ.get("CHAOS") else 4


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "in").mkdir()
    return Bench(tmp_path)


async def test_three_hundred_fresh_folders_with_five_files_each(bench: Bench) -> None:
    wanted: set[str] = set()
    async with bench.running("in"):
        for number in range(300):
            folder = bench.folder / f"in/{number}/a/b"
            folder.mkdir(parents=True)
            for file in range(5):
                (folder / f"{file}.md").write_text(f"{number} {file}")
                wanted.add(f"in/{number}/a/b/{file}.md")
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        await until(lambda: len(bench.events) >= len(wanted))
    assert set(bench.subjects) == wanted
    assert len(bench.subjects) == len(wanted)


async def test_a_tree_of_fifty_levels(bench: Bench) -> None:
    name = "in/" + "/".join(f"level{number}" for number in range(50)) + "/a.md"
    async with bench.running("in"):
        drop_file(bench.folder, name)
        await bench.expect(name)


async def test_files_that_arrive_while_the_process_is_stopped_or_blocked(bench: Bench) -> None:
    """Nothing in this process runs while the files are written: as with SIGSTOP, hints overflow and are lost."""
    async with bench.running("in"):
        await bench.stored("file:watch:state", "started")
        for number in range(3_000):
            (bench.folder / f"in/{number}.md").write_text("x")
        await until(lambda: len(bench.events) >= 3_000)
        assert len(set(bench.subjects)) == len(bench.subjects) == 3_000


async def test_without_any_hint_the_scan_finds_everything(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notifications of the operating system are a border; here it is polled once in a hundred seconds."""
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    monkeypatch.setenv("WATCHFILES_POLL_DELAY_MS", "100000")
    async with bench.running("in", poll_s=0.3):
        for number in range(3):
            drop_file(bench.folder, f"in/{number}.md")
            await until(lambda: len(bench.events) == number + 1)  # noqa: B023 - awaited in the same turn


async def test_a_large_backlog_is_quick_and_small(bench: Bench) -> None:
    content = "x" * 20_000
    for number in range(2_500):
        drop_file(bench.folder, f"in/{number % 7}/{number}.md", content)
    tracemalloc.start()
    try:
        begun = time.monotonic()
        async with bench.running("in"):
            bench.events.clear()
            peak = 0
            while len(await _known(bench)) < 2_500:
                bench.events.clear()
                peak = max(peak, tracemalloc.get_traced_memory()[0])
                await asyncio.sleep(0.05)
        assert time.monotonic() - begun < 60
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000, "50 MB of text are never held at once"


async def _known(bench: Bench) -> dict[str, object]:
    return await bench.engine.store.items("file:watch")


async def test_a_full_engine_pauses_the_trigger_and_loses_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.refusals = 300
    async with bench.running("in"):
        for number in range(100):
            drop_file(bench.folder, f"in/{number}.md")
        await bench.expect(*(f"in/{number}.md" for number in range(100)))
    assert "trigger 'watch' pauses: inbox is full" in caplog.text


@pytest.mark.chaos
async def test_a_root_that_is_removed_and_made_anew(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    trial = Trial("watched folder removed and made anew (F5)")
    async with bench.running("in"):
        for number in range(ROOTS):
            drop_file(bench.folder, f"in/{number}.md")
            await until(lambda: len(bench.events) == number + 1)  # noqa: B023 - awaited in the same turn
            shutil.rmtree(bench.folder / "in")
            (bench.folder / "in").mkdir()
            if number == 2:
                await until(lambda: "was replaced" in caplog.text)
    assert len(set(bench.subjects)) == ROOTS
    trial.holds(events=ROOTS)


async def test_a_root_that_is_away_for_a_while_deletes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with bench.running("in", events=["added", "modified", "deleted"], poll_s=0.2):
        drop_file(bench.folder, "in/a.md")
        await bench.expect("in/a.md")
        (bench.folder / "in").rename(bench.folder / "away")
        await until(lambda: "does not exist yet; waiting for it" in caplog.text)
        (bench.folder / "away").rename(bench.folder / "in")
        drop_file(bench.folder, "in/b.md")
        await bench.expect("in/a.md", "in/b.md")


async def test_a_folder_that_cannot_be_read_deletes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A path of more than 4,096 bytes is the one thing that even root cannot read."""
    home = Path.cwd()
    os.chdir(bench.folder / "in")
    try:
        for _ in range(20):
            Path("n" * 250).mkdir()
            os.chdir("n" * 250)
        Path("a.md").write_text("too deep")
    finally:
        os.chdir(home)
    deep = "in/" + "/".join(["n" * 250] * 20)
    async with bench.serving() as engine:
        await engine.store.put("file:watch", {f"{deep}/a.md": "8.1"})
        async with bench.running("in", events=["added", "modified", "deleted"], poll_s=0.2):
            drop_file(bench.folder, "in/b.md")
            await bench.expect("in/b.md")
            await until(lambda: "folder cannot be read: File name too long" in caplog.text)
            drop_file(bench.folder, "in/c.md")
            await bench.expect("in/b.md", "in/c.md")
