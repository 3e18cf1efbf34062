"""What counts as a change, and when a file that changed, moved or came back is a new event."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest
from trigger_bench import Bench

from llmling.testing import drop_file, until


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "in").mkdir()
    return Bench(tmp_path)


ALL = ["added", "modified", "deleted"]


async def test_matrix_of_rename_replace_touch_and_chmod(bench: Bench) -> None:
    folder = bench.folder / "in"
    async with bench.running("in", events=ALL):
        outside = bench.folder / "b.md"
        outside.write_text("moved in")
        outside.rename(folder / "b.md")
        await until(lambda: bench.changes == [("added", "in/b.md")])

        drop_file(folder, "b.md", "replaced")
        await until(lambda: bench.changes[1:] == [("modified", "in/b.md")])
        assert bench.events[-1].data["text"] == "replaced"

        (folder / "b.md").write_text("in place")
        await until(lambda: bench.changes[2:] == [("modified", "in/b.md")])

        os.utime(folder / "b.md", ns=(1, 1_700_000_000_123_456_789))
        await until(lambda: bench.changes[3:] == [("modified", "in/b.md")])
        assert bench.events[-1].data["mtime"] == "2023-11-14T22:13:20.123456+00:00"

        (folder / "b.md").chmod(0o600)
        drop_file(folder, "marker-1")
        await until(lambda: bench.changes[4:] == [("added", "in/marker-1")])

        (folder / "b.md").rename(folder / "c.md")
        await until(lambda: len(bench.events) == 7)
        assert set(bench.changes[5:]) == {("added", "in/c.md"), ("deleted", "in/b.md")}

        (folder / "c.md").unlink()
        await until(lambda: bench.changes[7:] == [("deleted", "in/c.md")])
        assert bench.events[-1].data["text"] is None

        drop_file(folder, "c.md", "back")
        await until(lambda: bench.changes[8:] == [("added", "in/c.md")])


async def test_a_folder_moved_in_and_out_again(bench: Bench) -> None:
    for number in range(10):
        drop_file(bench.folder, f"aside/deep/{number}.md")
    async with bench.running("in", events=ALL):
        (bench.folder / "aside").rename(bench.folder / "in/moved")
        await bench.expect(*(f"in/moved/deep/{number}.md" for number in range(10)))
        (bench.folder / "in/moved").rename(bench.folder / "aside")
        await until(lambda: len(bench.events) == 20)
    assert {change for change, _ in bench.changes[10:]} == {"deleted"}


async def test_a_file_that_comes_back_unchanged_after_it_was_gone_is_new(bench: Bench) -> None:
    def have(count: int) -> bool:
        return len(bench.events) == count

    path = drop_file(bench.folder, "in/a.md")
    async with bench.running("in", events=ALL):
        await until(lambda: bench.changes == [("added", "in/a.md")])
        for count in (2, 4):
            path.rename(bench.folder / "a.md")
            await until(functools.partial(have, count))
            (bench.folder / "a.md").rename(path)
            await until(functools.partial(have, count + 1))
    async with bench.running("in", events=ALL):
        drop_file(bench.folder, "in/b.md")
        await until(lambda: len(bench.events) == 6)
    assert bench.changes[-1] == ("added", "in/b.md")


async def test_deletion_while_down_is_an_event_at_the_next_start(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md")
    async with bench.running("in", events=["deleted"]):
        await bench.stored("file:watch", "in/a.md")
    assert bench.events == []
    path.unlink()
    async with bench.running("in", events=["deleted"]):
        await until(lambda: bench.changes == [("deleted", "in/a.md")])
    async with bench.running("in"):
        drop_file(bench.folder, "in/b.md")
        await until(lambda: len(bench.events) == 2)


async def test_only_the_events_that_are_asked_for(bench: Bench) -> None:
    async with bench.running("in", events=["modified"]):
        path = drop_file(bench.folder, "in/a.md", "1")
        await bench.stored("file:watch", "in/a.md")
        path.write_text("22")
        await until(lambda: bench.changes == [("modified", "in/a.md")])


async def test_paths_that_are_no_longer_meant_are_not_deleted(bench: Bench) -> None:
    drop_file(bench.folder, "in/a.md")
    drop_file(bench.folder, "out/b.md")
    async with bench.running("in", "out", events=ALL):
        await bench.expect("in/a.md", "out/b.md")
    async with bench.running("out", events=ALL, ignore=["*.txt"]):
        drop_file(bench.folder, "out/c.md")
        await bench.expect("in/a.md", "out/b.md", "out/c.md")


@pytest.mark.parametrize(
    ("dedupe", "expected"),
    [
        ("version", ["a", "b", "a", "a", "a"]),
        ("content", ["a", "a"]),
        ("path", ["a", "b"]),
    ],
)
async def test_table_of_dedupe_policies(bench: Bench, dedupe: str, expected: list[str]) -> None:
    """The same content under two names, then touched, edited, deleted and made anew with the first content."""
    path = bench.folder / "in/a"
    async with bench.running("in", dedupe=dedupe):

        async def after(step: int) -> None:
            drop_file(bench.folder, f"in/marker-{step}", f"{step}")
            await until(lambda: f"in/marker-{step}" in bench.subjects)

        drop_file(bench.folder, "in/a", "first")
        await after(1)
        drop_file(bench.folder, "in/b", "first")
        await after(2)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        await after(3)
        drop_file(bench.folder, "in/a", "second")
        await after(4)
        path.unlink()
        await after(5)
        drop_file(bench.folder, "in/a", "first")
        await after(6)
    assert [subject[3:] for subject in bench.subjects if "marker" not in subject] == expected
    async with bench.serving() as engine:
        await engine.store.remove("file:watch", list(await engine.store.items("file:watch")))
    count = len(bench.events)
    async with bench.running("in", dedupe=dedupe):
        drop_file(bench.folder, "in/last")
        await until(lambda: "in/last" in bench.subjects)
    assert len(bench.events) == count + 1, "what the engine knows is not run again, even with the memory lost"


async def test_an_unmounted_folder_is_not_an_emptied_one(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    drop_file(bench.folder, "in/a.md")
    async with bench.running("in", events=ALL):
        await bench.expect("in/a.md")
        await bench.stored("file:watch:state", "device:")
    shutil.move(bench.folder / "in/a.md", bench.folder / "a.md")
    async with bench.serving() as engine:
        await engine.store.put("file:watch:state", {f"device:{bench.folder}/in": 1})
    async with bench.running("in", events=ALL):
        assert "taken for one that is not mounted" in caplog.text
        shutil.move(bench.folder / "a.md", bench.folder / "in/a.md")
        drop_file(bench.folder, "in/b.md")
        await bench.expect("in/a.md", "in/b.md")
