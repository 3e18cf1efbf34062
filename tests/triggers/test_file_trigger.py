from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from trigger_bench import Bench

from llmling.errors import StartupError
from llmling.events import Event
from llmling.manifest.triggers import FileTriggerConfig
from llmling.protocols import Receipt
from llmling.runtime.services import Services
from llmling.testing import drop_file, until
from llmling.triggers.file import FileTrigger


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "in").mkdir()
    return Bench(tmp_path)


async def test_a_dropped_file_is_an_event_with_its_text(bench: Bench) -> None:
    async with bench.running("in"):
        path = drop_file(bench.folder, "in/sub/a.md", "héllo")
        await bench.expect("in/sub/a.md")
    (event,) = bench.events
    assert (event.source, event.type) == ("watch", "dev.llmling.file.added")
    assert event.data["path"] == str(path)
    assert event.data["name"] == "a.md"
    assert event.data["change"] == "added"
    assert event.data["size"] == 6
    assert event.data["mtime"].endswith("+00:00")
    assert event.data["sha256"] == hashlib.sha256("héllo".encode()).hexdigest()
    assert event.data["text"] == "héllo"


async def test_the_place_is_what_the_user_wrote(bench: Bench) -> None:
    async with bench.running("in", "docs/**/*.md") as trigger:
        assert trigger.place == "in, docs/**/*.md"
        assert trigger.name == "watch"


async def test_without_an_engine_it_cannot_start(tmp_path: Path) -> None:
    async def emit(event: Event, **_: object) -> Receipt:
        return Receipt(event.id, new=True)

    trigger = FileTrigger(FileTriggerConfig(name="watch", paths=["in"]), Services(folder=tmp_path), "reader")
    with pytest.raises(StartupError, match="'watch' of agent 'reader' needs a pool"):
        await trigger.run(emit, lambda: None)


async def test_text_is_null_when_it_is_not_utf8(bench: Bench) -> None:
    async with bench.running("in"):
        drop_file(bench.folder, "in/a.bin", b"\xff\xfe\x00")
        drop_file(bench.folder, "in/bom.txt", b"\xef\xbb\xbfwindows")
        await bench.expect("in/a.bin", "in/bom.txt")
    texts = {event.subject: event.data["text"] for event in bench.events}
    assert texts == {"in/a.bin": None, "in/bom.txt": "windows"}


async def test_a_file_over_max_bytes_is_an_event_that_dies(bench: Bench) -> None:
    async with bench.running("in", max_bytes=10):
        drop_file(bench.folder, "in/big.txt", "x" * 11)
        drop_file(bench.folder, "in/ok.txt", "x" * 10)
        await bench.expect("in/big.txt", "in/ok.txt")
        big = next(event for event in bench.events if event.subject == "in/big.txt")
        record = await bench.engine.inspect(big.id)
    assert big.data["text"] is None
    assert big.data["sha256"] is None
    assert record is not None
    assert record.status == "dead"
    assert record.error == "file is 11 bytes, over max_bytes 10 of trigger 'watch'"


async def test_names_of_unfinished_and_hidden_files_are_never_taken(bench: Bench) -> None:
    names = [".a.md", "~a.md", "a.md~", "a.swp", "a.tmp", "a.part", "a.crdownload", ".git/a.md", "sub/.done/a.md"]
    for name in names:
        (bench.folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (bench.folder / "in" / name).write_text("no")
    async with bench.running("in"):
        drop_file(bench.folder, "in/yes.md")
        await bench.expect("in/yes.md")
        (bench.folder / "in/b.tmp").write_text("whole")
        (bench.folder / "in/b.tmp").rename(bench.folder / "in/b.md")
        await bench.expect("in/yes.md", "in/b.md")


async def test_empty_files_wait_for_their_content(bench: Bench) -> None:
    async with bench.running("in"):
        path = bench.folder / "in/a.md"
        path.touch()
        drop_file(bench.folder, "in/b.md")
        await bench.expect("in/b.md")
        path.write_text("now")
        await bench.expect("in/b.md", "in/a.md")
        assert bench.events[1].type == "dev.llmling.file.added"


async def test_files_there_before_are_processed_once(bench: Bench) -> None:
    drop_file(bench.folder, "in/a.md")
    async with bench.running("in"):
        await bench.expect("in/a.md")
    drop_file(bench.folder, "in/b.md")
    async with bench.running("in"):
        await bench.expect("in/a.md", "in/b.md")


async def test_backlog_ignore_concerns_the_very_first_start_only(bench: Bench) -> None:
    old = drop_file(bench.folder, "in/old.md")
    async with bench.running("in", backlog="ignore"):
        drop_file(bench.folder, "in/new.md")
        await bench.expect("in/new.md")
    drop_file(bench.folder, "in/while-down.md")
    old.write_text("changed")
    async with bench.running("in", backlog="ignore"):
        await bench.expect("in/new.md", "in/while-down.md", "in/old.md")
    assert ("modified", "in/old.md") in bench.changes


async def test_extensions_with_and_without_dot_in_any_case(bench: Bench) -> None:
    async with bench.running("in", extensions=["md", ".Tar.GZ"]):
        for name in ("a.MD", "b.tar.gz", "c.gz", "md", "d.txt", "e.md"):
            drop_file(bench.folder, f"in/{name}")
        await bench.expect("in/a.MD", "in/b.tar.gz", "in/e.md")


async def test_ignore_names_files_and_folders_by_path_or_name(bench: Bench) -> None:
    async with bench.running("in", ignore=["**/draft-*", "in/old/", "*.log", "in/x/*.md"]):
        for name in ("draft-1.md", "s/draft-2.md", "old/a.md", "a.log", "x/a.md", "x/y/a.md", "s/old/a.md"):
            drop_file(bench.folder, f"in/{name}")
        await bench.expect("in/x/y/a.md", "in/s/old/a.md")


async def test_globs_files_and_folders_as_paths(bench: Bench) -> None:
    paths = ["docs/**/*.md", "*.txt", "a/*/b-[0-9].csv", "lone.json", "in", str(bench.folder / "abs" / "**")]
    async with bench.running(*paths):
        wanted = ["docs/a.md", "docs/x/y/b.md", "top.txt", "a/k/b-3.csv", "lone.json", "in/any", "abs/x/1"]
        unwanted = ["docs/a.txt", "sub/top.txt", "a/b-3.csv", "a/k/b-x.csv", "a/k/l/b-3.csv", "other.json"]
        for name in [*unwanted, *wanted]:
            drop_file(bench.folder, name)
        await bench.expect(*wanted)


async def test_a_path_that_looks_like_a_glob_but_exists_is_that_folder(bench: Bench) -> None:
    (bench.folder / "in [old]").mkdir()
    async with bench.running("in [old]"):
        drop_file(bench.folder, "in [old]/a.md")
        await bench.expect("in [old]/a.md")


async def test_a_folder_outside_the_manifests_has_a_relative_subject(bench: Bench, tmp_path: Path) -> None:
    bench.folder = tmp_path / "in"
    async with bench.running("../out"):
        drop_file(tmp_path, "out/a.md")
        await bench.expect("../out/a.md")
    assert bench.events[0].data["path"] == str(tmp_path / "out/a.md")


async def test_a_missing_folder_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with bench.running("late/deep", "late/one.txt"):
        assert f"{bench.folder}/late/deep does not exist yet; waiting for it" in caplog.text
        drop_file(bench.folder, "late/deep/a.md")
        drop_file(bench.folder, "late/one.txt")
        await bench.expect("late/deep/a.md", "late/one.txt")
        drop_file(bench.folder, "late/deep/b.md")
        await bench.expect("late/deep/a.md", "late/one.txt", "late/deep/b.md", timeout_s=3)


async def test_two_triggers_on_one_folder_have_an_event_each(bench: Bench) -> None:
    async with bench.running("in", name="one"), bench.running("in", name="two"):
        drop_file(bench.folder, "in/a.md")
        await until(lambda: len(bench.events) == 2)
    assert sorted(event.source for event in bench.events) == ["one", "two"]


async def test_polling_mode_of_watchfiles_is_respected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    monkeypatch.setenv("WATCHFILES_POLL_DELAY_MS", "50")
    async with bench.running("in"):
        drop_file(bench.folder, "in/a.md")
        await bench.expect("in/a.md")
        drop_file(bench.folder, "in/n/b.md")
        await bench.expect("in/a.md", "in/n/b.md", timeout_s=5)


async def test_leaving_ends_every_task(bench: Bench) -> None:
    async with bench.running("in"):
        pass
    await until(lambda: len(asyncio.all_tasks()) == 1)
