"""Names, links and special files that are there to do harm."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from trigger_bench import Bench

from llmling.manifest.triggers import FileTriggerConfig
from llmling.testing import drop_file, until
from llmling.triggers.folders.content import read
from llmling.triggers.folders.intake import Intake
from llmling.triggers.folders.lane import lane
from llmling.triggers.folders.names import original, shortened, storable
from llmling.triggers.folders.scan import Sighting
from llmling.triggers.folders.seen import Seen
from llmling.triggers.folders.selection import Selection


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "in").mkdir()
    return Bench(tmp_path)


async def test_links_that_lead_out_are_left_alone_with_a_reason(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    drop_file(bench.folder, "secret/key.md", "secret")
    folder = bench.folder / "in"
    (folder / "file.md").symlink_to(bench.folder / "secret/key.md")
    (folder / "up.md").symlink_to("../secret/key.md")
    (folder / "folder").symlink_to(bench.folder / "secret")
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.md").symlink_to("nothing")
    async with bench.running("in"):
        drop_file(bench.folder, "in/real.md", "real")
        await bench.expect("in/real.md")
        (folder / "inside.md").symlink_to("real.md")
        await bench.expect("in/real.md", "in/inside.md")
    assert {event.data["text"] for event in bench.events} == {"real"}
    for name in ("file.md", "up.md", "folder"):
        assert caplog.text.count(f"leaves '{folder}/{name}' alone: it is a link that leads out") == 1


async def test_pipes_sockets_and_folders_with_file_names(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    folder = bench.folder / "in"
    os.mkfifo(folder / "pipe.md")
    (folder / "folder.md").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)
        try:
            listener.bind("s.md")
        finally:
            os.chdir(here)
        async with bench.running("in", extensions=[".md"]):
            drop_file(bench.folder, "in/folder.md/a.md")
            await bench.expect("in/folder.md/a.md")
    assert caplog.text.count("it is not a regular file") == 2


async def test_a_huge_sparse_file_is_not_read(bench: Bench) -> None:
    with (bench.folder / "in/huge.md").open("wb") as file:
        file.truncate(4_000_000_000)
    async with bench.running("in"):
        await bench.expect("in/huge.md", timeout_s=2)
    assert bench.events[0].data["text"] is None


async def test_every_name_the_file_system_allows(bench: Bench) -> None:
    names = ["line\nbreak", "\N{GRINNING FACE}.md", "n" * 255, "..x"[2:], "a'b\"c", "\x1b[31m", "{{ 7 * 7 }}"]
    raw = os.fsencode(bench.folder / "in") + b"/not-utf-8-\xff\xfe"
    async with bench.running("in", events=["added", "modified", "deleted"], on_done="move"):
        for name in names:
            (bench.folder / "in" / name).write_text("x")
        Path(os.fsdecode(raw)).write_text("x")
        wanted = [*(f"in/{name}" for name in names), "in/not-utf-8-\ufffdff\ufffdfe"]
        await bench.expect(*wanted)
        await until(lambda: [path.name for path in (bench.folder / "in").iterdir()] == [".done"])
        drop_file(bench.folder, "in/last")
        await bench.expect(*wanted, "in/last")
        await until(lambda: len(list((bench.folder / "in/.done").iterdir())) == len(wanted) + 1)


async def test_a_file_that_cannot_be_read_is_named_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A path that is too long stands for all that `open` may refuse, as root may read everything else."""
    sighting = Sighting("in/a.md", "/" + "n" * 5_000, 1, 1, 1)
    with pytest.raises(OSError, match="File name too long"):
        read(sighting, 100)
    config = FileTriggerConfig(name="watch", paths=["in"])
    async with bench.serving() as engine:
        seen = Seen(engine.store, "watch")
        with lane("test") as disk:
            intake = Intake(config, Selection(config, bench.folder), seen, engine, bench.emit, disk)
            assert await intake.take([sighting]) == ([], [])
            assert await intake.take([sighting]) == ([], [])
    assert caplog.text.count("cannot read 'in/a.md' (File name too long); it is tried again every 30 s") == 1
    assert "in/a.md" not in seen
    assert bench.events == []


def test_names_are_stored_and_found_again() -> None:
    for name in ("plain", "h\u00e9", "\udcff\udc80x", "\ufffd", "\N{GRINNING FACE}"):
        storable(name).encode()
        assert original(storable(name)) == name


def test_shortened_names_fit_and_stay_text() -> None:
    for name in ("n" * 255, "\u00e9" * 127 + "x", "\N{GRINNING FACE}" * 63 + "abc", "a"):
        short = shortened(name, ".reason.txt")
        assert len(short.encode()) <= 255
        assert short.endswith(".reason.txt")
