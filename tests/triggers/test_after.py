"""What becomes of a file once its event has settled, also when the process died before it could."""

from __future__ import annotations

from pathlib import Path

import pytest
from trigger_bench import Bench

from llmling.testing import drop_file, until

ALL = ["added", "modified", "deleted"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "in").mkdir()
    return Bench(tmp_path)


async def test_done_files_move_and_keep_their_names_apart(bench: Bench) -> None:
    done = bench.folder / "in/sub/.done"
    async with bench.running("in", on_done="move", events=ALL):
        for text in ("one", "two", "three"):
            path = drop_file(bench.folder, "in/sub/a.tar.gz", text)
            await until(lambda: not path.exists())  # noqa: B023 - awaited in the same turn
        await bench.expect(*["in/sub/a.tar.gz"] * 3)
        await bench.stored("file:watch:gone", "in/sub/a.tar.gz")
    assert {path.name: path.read_text() for path in done.iterdir()} == {
        "a.tar.gz": "one",
        "a.tar.2.gz": "two",
        "a.tar.3.gz": "three",
    }
    assert {change for change, _ in bench.changes} == {"added"}, "moving is not deleting, nor is the next one a change"


async def test_a_file_put_back_from_done_runs_again(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md")
    async with bench.running("in", on_done="move"):
        await until(lambda: not path.exists())
        await bench.stored("file:watch:gone", "in/a.md")
        (bench.folder / "in/.done/a.md").rename(path)
        await until(lambda: len(bench.events) == 2)


async def test_done_files_can_be_deleted(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md")
    async with bench.running("in", on_done="delete", events=ALL):
        await until(lambda: not path.exists())
        drop_file(bench.folder, "in/b.md")
        await until(lambda: ("added", "in/b.md") in bench.changes)
    assert [change for change, _ in bench.changes] == ["added", "added"]


async def test_a_file_that_changed_since_its_run_stays(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md", "first")
    bench.gate.clear()
    async with bench.running("in", on_done="delete", settle_s=0.3):
        await bench.expect("in/a.md")
        path.write_text("second")
        bench.gate.set()
        await until(lambda: not path.exists())
    assert [event.data["text"] for event in bench.events] == ["first", "second"]


async def test_dead_files_move_beside_their_reason(bench: Bench) -> None:
    bench.dead["in/a.md"] = "the model is gone"
    long = "n" * 255
    bench.dead[f"in/{long}"] = "too long"
    async with bench.running("in", on_fail="move", events=ALL, max_bytes=10):
        drop_file(bench.folder, "in/a.md")
        drop_file(bench.folder, "in/big.md", "x" * 11)
        (bench.folder / "in" / long).write_text("x")
        drop_file(bench.folder, "in/fine.md")
        failed = bench.folder / "in/.failed"
        await until(lambda: failed.is_dir() and len(list(failed.iterdir())) == 6)
        reason = failed / "a.md.reason.txt"
        await until(lambda: "time" in reason.read_text())
    event = next(event for event in bench.events if event.subject == "in/a.md")
    lines = dict(line.split(": ", 1) for line in reason.read_text().splitlines())
    assert lines["reason"] == "the model is gone"
    assert lines["event"] == event.id
    assert lines["time"].endswith("+00:00")
    assert "over max_bytes 10" in (failed / "big.md.reason.txt").read_text()
    assert (bench.folder / "in/fine.md").exists()


async def test_what_settled_while_nobody_listened_is_done_at_the_next_start(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md")
    other = drop_file(bench.folder, "in/b.md")
    bench.dead["in/b.md"] = "no"
    async with bench.running("in"):
        await bench.expect("in/a.md", "in/b.md")
        await bench.stored("file:watch", "in/b.md")
        for event in bench.events:
            await bench.engine.wait(event.id)
    async with bench.running("in", on_done="move", on_fail="move", events=ALL):
        await until(lambda: not path.exists() and not other.exists())
    async with bench.running("in", on_done="move", on_fail="move", events=ALL):
        drop_file(bench.folder, "in/c.md")
        await bench.expect("in/a.md", "in/b.md", "in/c.md")


async def test_a_crash_before_the_file_was_noted_neither_repeats_nor_forgets_it(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md")
    async with bench.running("in"):
        await bench.expect("in/a.md")
        await bench.stored("file:watch", "in/a.md")
        await bench.engine.wait(bench.events[0].id)
        await bench.engine.store.remove("file:watch", ["in/a.md"])
    async with bench.running("in", on_done="move"):
        await until(lambda: not path.exists())
    assert len(bench.events) == 1


async def test_what_cannot_be_moved_is_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    blocker = bench.folder / "in/.done"
    blocker.write_text("a file where the folder should be")
    path = drop_file(bench.folder, "in/a.md")
    async with bench.running("in", on_done="move", poll_s=0.2):
        await until(lambda: "cannot put 'in/a.md' away" in caplog.text)
        assert path.exists()
        blocker.unlink()
        await until(lambda: not path.exists())


async def test_a_move_that_was_cut_off_is_finished(bench: Bench) -> None:
    path = drop_file(bench.folder, "in/a.md", "once")
    (bench.folder / "in/.done").mkdir()
    (bench.folder / "in/.done/a.md").hardlink_to(path)
    async with bench.running("in", on_done="move"):
        await until(lambda: not path.exists())
    assert [path.name for path in (bench.folder / "in/.done").iterdir()] == ["a.md"]


async def test_a_link_inside_the_folder_moves_as_a_link(bench: Bench) -> None:
    drop_file(bench.folder, "in/.kept/real.md")
    link = bench.folder / "in/link.md"
    link.symlink_to(".kept/real.md")
    async with bench.running("in", on_done="move"):
        await until(lambda: not link.is_symlink())
    assert (bench.folder / "in/.done/link.md").is_symlink()
    assert (bench.folder / "in/.kept/real.md").exists()


@pytest.mark.parametrize("folder", [".done", ".failed"])
async def test_a_link_in_the_place_of_the_folder_leads_nowhere(
    bench: Bench, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    outside = bench.folder / "outside"
    outside.mkdir()
    (bench.folder / f"in/{folder}").symlink_to(outside)
    path = drop_file(bench.folder, "in/a.md")
    if folder == ".failed":
        bench.dead["in/a.md"] = "no"
    async with bench.running("in", on_done="move", on_fail="move"):
        await until(lambda: f"{folder} is no folder, or a link; remove it" in caplog.text)
    assert path.exists()
    assert list(outside.iterdir()) == []
