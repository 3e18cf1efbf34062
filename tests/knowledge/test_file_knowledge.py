from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from llmling.errors import StartupError
from llmling.knowledge.file import FileKnowledge
from llmling.manifest.knowledge import FileKnowledgeConfig
from llmling.protocols import KnowledgeSource
from llmling.runtime.services import Services


def source(folder: Path, path: str, **keys: Any) -> FileKnowledge:
    return FileKnowledge(FileKnowledgeConfig(path=path, **keys), Services(folder=folder))


async def read(it: KnowledgeSource, query: str = "") -> str:
    async with it as entered:
        return await entered.text(query)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name in ("a.md", "b.txt", "sub/c.md", "sub/deep/d.md", ".hidden.md", ".git/x.md"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}\n")
    return tmp_path


async def test_one_file_is_its_text(docs: Path) -> None:
    it = source(docs, "docs/a.md")
    assert await read(it) == "text of a.md"
    assert it.title == "docs/a.md"


async def test_a_folder_is_all_its_files_each_below_its_path(docs: Path) -> None:
    assert await read(source(docs, "./docs")) == (
        "## docs/a.md\n\ntext of a.md\n\n## docs/b.txt\n\ntext of b.txt\n\n"
        "## docs/sub/c.md\n\ntext of sub/c.md\n\n## docs/sub/deep/d.md\n\ntext of sub/deep/d.md"
    )


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("docs/*.md", ["a.md"]),
        ("docs/**/*.md", ["a.md", "sub/c.md", "sub/deep/d.md"]),
        ("docs/**", ["a.md", "b.txt", "sub/c.md", "sub/deep/d.md"]),
        ("docs/*/*.md", ["sub/c.md"]),
        ("docs/[ab].*", ["a.md", "b.txt"]),
        ("docs/.*.md", [".hidden.md"]),
        ("docs/.git/*", [".git/x.md"]),
        ("{docs}/docs/sub/**/d.m?", ["sub/deep/d.md"]),
        ("**/deep/*", ["sub/deep/d.md"]),
    ],
)
async def test_a_glob_is_the_files_it_matches(docs: Path, pattern: str, found: list[str]) -> None:
    text = await read(source(docs, pattern.format(docs=docs)))
    assert re.findall(r"## docs/(.*)", text) == found


async def test_links_to_folders_are_not_followed(docs: Path) -> None:
    (docs / "docs/sub/loop").symlink_to(docs / "docs", target_is_directory=True)
    assert "loop" not in await read(source(docs, "docs/**/*.md"))
    assert "loop" not in await read(source(docs, "docs"))


async def test_a_changed_file_is_read_again(docs: Path) -> None:
    async with source(docs, "docs/*.md") as it:
        (docs / "docs/a.md").write_text("other text of a.md")
        (docs / "docs/new.md").write_text("new")
        assert await it.text("") == "## docs/a.md\n\nother text of a.md\n\n## docs/new.md\n\nnew"
        (docs / "docs/a.md").unlink()
        assert await it.text("") == "## docs/new.md\n\nnew"


async def test_what_cannot_be_read_later_leaves_the_old_text(docs: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with source(docs, "docs/a.md") as it:
        (docs / "docs/a.md").unlink()
        with caplog.at_level(logging.WARNING):
            assert [await it.text(""), await it.text("")] == ["text of a.md"] * 2
        assert len(caplog.records) == 1
        assert "No such file or directory; the text read before stays in use" in caplog.text
        (docs / "docs/a.md").write_text("back")
        assert await it.text("") == "back"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.md", "knowledge 'missing.md': {folder}/missing.md: No such file or directory"),
        ("docs/*.rst", "knowledge 'docs/*.rst': no file matches it below {folder}"),
        ("nowhere/**/*.md", "knowledge 'nowhere/**/*.md': no file matches it"),
        ("empty", "knowledge 'empty': the folder holds no file"),
        ("latin.md", "knowledge 'latin.md': latin.md is not UTF-8 text (byte 3)"),
        ("pipe", "knowledge: pipe is not a regular file"),
    ],
)
async def test_what_cannot_be_read_is_named(docs: Path, path: str, message: str) -> None:
    (docs / "empty").mkdir()
    (docs / "latin.md").write_bytes("gr\xf6\xdfe ü".encode("latin-1").replace(b"gr", b"gro"))
    os.mkfifo(docs / "pipe")
    with pytest.raises(StartupError, match=re.escape(message.format(folder=docs))) as caught:
        await read(source(docs, path))
    assert caught.value.usage


async def test_the_file_that_is_too_much_is_named(docs: Path) -> None:
    with pytest.raises(StartupError, match=r"with docs/b\.txt it is larger than 20 bytes; raise `max_bytes`"):
        await read(source(docs, "docs", max_bytes=20))
    assert await read(source(docs, "docs/a.md", max_bytes=13))


async def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("\ufeffx", encoding="utf-8")
    assert await read(source(tmp_path, "a.md")) == "x"
