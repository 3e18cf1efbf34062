from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from llmling.errors import StartupError
from llmling.knowledge.index import MAX_FILE_BYTES, FolderKnowledge
from llmling.manifest.knowledge import FolderKnowledgeConfig
from llmling.runtime.services import Services
from llmling.testing import FakeClock


def source(folder: Path, clock: FakeClock | None = None, **keys: Any) -> FolderKnowledge:
    return FolderKnowledge(
        FolderKnowledgeConfig(path="kb", **keys), Services(folder=folder, clock=clock or FakeClock())
    )


def found(text: str) -> list[str]:
    return re.findall(r"^\[(.*)\]$", text, re.MULTILINE)


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    for name, text in {
        "refunds.md": "# Policy\n\n## Refunds\n\nRefunded in fourteen days.\n\n## Shipping\n\nParcels leave daily.",
        "hours.txt": "The office opens at nine.",
        "page.html": "<h1>Warranty</h1><p>Two years</p><script>var refundable</script>",
        "sub/data.csv": "sku,colour\n17,turquoise\n",
        "ja.md": "返品は十四日以内に可能です。",
        "fr.md": "Les élèves étudient le théorème.",
    }.items():
        path = tmp_path / "kb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("When do I get my REFUND?", "refunds.md > Policy > Refunds"),
        ("parcel", "refunds.md > Policy > Shipping"),
        ("what is the warranty", "page.html > Warranty"),
        ("turquoise", "sub/data.csv"),
        ("返品できますか", "ja.md"),
        ("ELEVES", "fr.md"),
        ("office-opens", "hours.txt"),
    ],
)
async def test_the_passage_that_fits_comes_first(kb: Path, query: str, best: str) -> None:
    async with source(kb) as it:
        assert found(await it.text(query))[0] == best


async def test_a_passage_is_shown_with_its_text(kb: Path) -> None:
    async with source(kb) as it:
        assert it.title == "kb"
        assert await it.text("shipping") == "[refunds.md > Policy > Shipping]\nParcels leave daily."
        assert await it.text("zebra") == ""
        assert await it.text("?!") == ""


async def test_top_k_bounds_the_passages(kb: Path) -> None:
    for number in range(20):
        (kb / f"kb/n{number}.md").write_text("zebra " * number)
    async with source(kb, top_k=3) as it:
        assert len(found(await it.text("zebra"))) == 3


async def test_changes_are_followed_once_a_second(kb: Path) -> None:
    clock = FakeClock()
    async with source(kb, clock) as it:
        (kb / "kb/new.md").write_text("A zebra.")
        (kb / "kb/hours.txt").write_text("The office opens at eleven.")
        (kb / "kb/refunds.md").unlink()
        assert await it.text("zebra") == ""
        await clock.advance(1)
        assert found(await it.text("zebra")) == ["new.md"]
        assert await it.text("nine") == ""
        assert found(await it.text("eleven")) == ["hours.txt"]
        assert await it.text("refund") == ""


async def test_a_folder_that_goes_away_stays_known(kb: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    async with source(kb, clock) as it:
        (kb / "kb").rename(kb / "away")
        await clock.advance(1)
        with caplog.at_level(logging.WARNING):
            assert found(await it.text("turquoise")) == ["sub/data.csv"]
        assert "is gone; what was read before stays in use" in caplog.text


async def test_links_do_not_lead_out_of_the_folder(kb: Path) -> None:
    (kb / "secret.md").write_text("zebra")
    (kb / "kb2").mkdir()
    (kb / "kb2/secret.md").write_text("zebra")
    (kb / "kb/out.md").symlink_to(kb / "secret.md")
    (kb / "kb/twin.md").symlink_to(kb / "kb2/secret.md")
    (kb / "kb/away").symlink_to(kb / "kb2", target_is_directory=True)
    (kb / "kb/loop").symlink_to(kb / "kb", target_is_directory=True)
    (kb / "kb/inside.md").symlink_to(kb / "kb/hours.txt")
    (kb / "kb/dangling.md").symlink_to(kb / "nothing.md")
    async with source(kb) as it:
        assert await it.text("zebra") == ""
        assert sorted(found(await it.text("office"))) == ["hours.txt", "inside.md"]


async def test_what_is_no_text_is_left_out(kb: Path, caplog: pytest.LogCaptureFixture) -> None:
    (kb / "kb/latin.md").write_bytes("zebra größe".encode("latin-1"))
    (kb / "kb/large.md").write_text("zebra " * (MAX_FILE_BYTES // 6 + 1))
    (kb / "kb/picture.png").write_bytes(b"zebra")
    (kb / "kb/.hidden.md").write_text("zebra")
    os.mkfifo(kb / "kb/pipe.md")
    with contextlib.suppress(OSError):
        (kb / "kb" / os.fsdecode(b"\xff.md")).write_text("zebra")
    with caplog.at_level(logging.WARNING):
        async with source(kb) as it:
            assert await it.text("zebra") == ""
    assert "latin.md is left out: 'utf-8' codec can't decode" in caplog.text
    assert "large.md is left out, it is too large" in caplog.text
    assert len(caplog.records) == 2


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=re.escape(f"knowledge 'kb': {tmp_path}/kb is not a folder")) as caught:
        async with source(tmp_path):
            pytest.fail("entered")
    assert caught.value.usage


async def test_it_is_entered_first_and_may_be_entered_again(kb: Path) -> None:
    it = source(kb)
    with pytest.raises(StartupError, match="enter it"):
        await it.text("x")
    for _ in range(2):
        async with it:
            assert found(await it.text("turquoise")) == ["sub/data.csv"]


async def test_the_loop_goes_on_while_the_index_is_built(tmp_path: Path) -> None:
    (tmp_path / "kb").mkdir()
    for number in range(20):
        (tmp_path / f"kb/{number}.md").write_text(f"zebra {number} " * 20_000)
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    watcher = asyncio.create_task(watch())
    async with source(tmp_path) as it:
        assert turns > 5
        answers = await asyncio.gather(*(it.text(f"zebra {number}") for number in range(20)))
    watcher.cancel()
    assert all(len(found(answer)) == 5 for answer in answers)
