"""Every block of every page does what the page says; every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nats_server import need_nats
from pages import ROOT, Block, blocks, pages, prose, title
from shown import Shown
from story import Story

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page)], ids=title)
def test_page_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if any("nats-server" in command for block in _consoles(page) for command, _ in block.commands):
        need_nats()
    folder = tmp_path / "story"
    folder.mkdir()
    story = Story(folder, monkeypatch)
    if page.name == "README.md":
        story.clone("agents.yml", "CONTRIBUTING.md", "examples", "inbox")
    try:
        story.read(blocks(page))
    finally:
        story.close()


def _consoles(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "console"]


def test_at_most_three_blocks_are_not_run() -> None:
    skipped = {
        f"{title(page)}:{block.line}": block.directives["not run"]
        for page in pages()
        for block in blocks(page)
        if "not run" in block.directives
    }
    assert len(skipped) <= 3, skipped
    assert all(skipped.values()), "each says why"


@pytest.mark.parametrize("page", pages(), ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    for link in _LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(page))):
        target, _, anchor = link["target"].partition("#")
        if "://" in target:
            continue
        other = (page.parent / target).resolve() if target else page
        if not other.exists() or (anchor and anchor not in _anchors(other)):
            broken.append(link["target"])
    assert not broken


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_stands_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    there = {page.relative_to(ROOT / "docs").as_posix() for page in pages() if page.name != "README.md"}
    assert listed == there


def test_the_comparison_sees_differences() -> None:
    shown = Shown()
    assert shown.matches("a ... c\n...\nz", "a b c\nanything\nat all\nz")
    assert not shown.matches("a ... c", "a b d")
    assert not shown.matches("one", "one\ntwo")
    first, second = "01K9Z3V0W8Q4M7X2B6N5C1D0EF", "01K9Z3V0W8Q4M7X2B6N5C1D0EG"
    assert shown.matches(f"{first} took 0.1 s\n{first}", f"{second} took 7.3 s\n{second}")
    assert shown.here(f"show {first}") == f"show {second}"
    assert not shown.matches(f"{first} done", f"{first} done"), "the same id of the page is the same id of the run"


@pytest.mark.parametrize(
    "wrong",
    [
        [Block(1, "console", "$ echo one\ntwo\n")],
        [Block(1, "python", "print(1)\n"), Block(5, "text", "2\n", {"prints": ""})],
        [Block(1, "python", "print(1)\n"), Block(5, "json", "{}\n")],
        [Block(1, "python", "print(1)\n")],
        [Block(1, "text", "nothing is done with it\n")],
        [Block(1, "yaml", "triggers: []\n")],
        [Block(1, "bash", "echo one\n")],
    ],
)
def test_a_wrong_page_is_found(wrong: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "story"
    folder.mkdir()
    story = Story(folder, monkeypatch)
    try:
        with pytest.raises(AssertionError):
            story.read(wrong)
    finally:
        story.close()
