"""What the predecessor did with files: globs that never fired, half-written text, one run per write, nothing kept."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from serving import until
from stage import Stage, eventually, prompt_of

from llmling.protocols import ModelRequest
from llmling.testing import drop_file

WATCH = """
server: false
agents:
  reader:
    model: demo
    triggers: [{type: file, name: watch, paths: [inbox], settle_s: 0.1OPTIONS}]
"""

PATHS = ("docs/**/*.md", "docs", "docs/deep", "docs/*/*.md", "docs/deep/page.md")


def watch(options: str = "") -> str:
    """Return the manifest with further keys of the trigger."""
    return WATCH.replace("OPTIONS", f", {options}" if options else "")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_globs_folders_and_files_fire_also_when_they_come_later(stage: Stage) -> None:
    manifest = "server: false\nagents:\n" + "".join(
        f"  a{number}: {{model: demo, triggers: [{{type: file, paths: ['{path}'], settle_s: 0.1}}]}}\n"
        for number, path in enumerate(PATHS)
    )
    async with stage.pool(manifest) as pool:
        assert pool.ready() == []
        drop_file(stage.folder, "docs/deep/page.md", "a page")
        await stage.settled(len(PATHS))
    assert {record.agent for record in stage.done} == {f"a{number}" for number in range(len(PATHS))}
    assert {record.event.subject for record in stage.done} == {"docs/deep/page.md"}


async def test_ignoring_takes_patterns_and_needs_no_extensions(stage: Stage) -> None:
    ignoring = 'type: file, paths: [inbox], settle_s: 0.1, ignore: ["**/draft-*", "cache/"]'
    manifest = f"""
server: false
agents:
  any: {{model: demo, triggers: [{{{ignoring}}}]}}
  pages: {{model: demo, triggers: [{{{ignoring}, extensions: [.md]}}]}}
"""
    async with stage.pool(manifest):
        for name in ("draft-1.md", "sub/draft-2.md", "cache/a.md", ".git/b.md", "c.md~", "d.md.swp", "~e.md"):
            drop_file(stage.folder, f"inbox/{name}")
        drop_file(stage.folder, "inbox/sub/wanted.md")
        drop_file(stage.folder, "inbox/data.csv")
        await stage.settled(3)
        # A later scan meets all of them again.
        drop_file(stage.folder, "inbox/last.md")
        await stage.settled(5)
    assert {(record.agent, record.event.subject) for record in stage.done} == {
        ("any", "inbox/sub/wanted.md"),
        ("any", "inbox/data.csv"),
        ("any", "inbox/last.md"),
        ("pages", "inbox/sub/wanted.md"),
        ("pages", "inbox/last.md"),
    }


async def test_a_file_is_read_when_its_writer_has_finished(stage: Stage) -> None:
    (stage.folder / "inbox").mkdir()
    async with stage.pool(watch().replace("settle_s: 0.1", "settle_s: 0.5")):
        with (stage.folder / "inbox" / "slow.txt").open("w") as file:
            for number in range(15):
                file.write(f"line {number}\n")
                file.flush()
                await asyncio.sleep(0.05)
        (record,) = await stage.settled(1)
    assert record.event.data["text"] == (stage.folder / "inbox" / "slow.txt").read_text()


async def test_many_writes_are_one_run_per_file_and_runs_overlap(stage: Stage) -> None:
    """Ten files written and then appended to three times each were twenty runs, one after another."""
    together = peak = 0
    all_four = asyncio.Event()

    async def answer(request: ModelRequest) -> str:
        nonlocal together, peak
        together += 1
        peak = max(peak, together)
        if together == 4:
            all_four.set()
        await asyncio.wait_for(all_four.wait(), 20)
        together -= 1
        return "read"

    (stage.folder / "inbox").mkdir()
    async with stage.pool(watch().replace("settle_s: 0.1", "settle_s: 0.4"), reader=answer):
        for number in range(10):
            (stage.folder / "inbox" / f"{number}.txt").write_text("first\n")
        for _ in range(3):
            for number in range(10):
                with (stage.folder / "inbox" / f"{number}.txt").open("a") as file:
                    file.write("more\n")
            await asyncio.sleep(0)
        await stage.settled(10)
        drop_file(stage.folder, "inbox/last.txt")
        await stage.settled(11)
    assert peak == 4
    assert len(stage.done) == 11
    assert {record.event.data["text"] for record in stage.done[:10]} == {"first\nmore\nmore\nmore\n"}


async def test_a_change_during_a_run_is_an_event_of_its_own(stage: Stage) -> None:
    first, go_on = asyncio.Event(), asyncio.Event()
    prompts: list[str] = []

    async def answer(request: ModelRequest) -> str:
        prompts.append(prompt_of(request))
        first.set()
        await go_on.wait()
        return "read"

    manifest = watch().replace("model: demo", "model: demo\n    concurrency: 1")
    async with stage.pool(manifest, reader=answer) as pool:
        for number, version in enumerate(("one", "two", "three"), 1):
            drop_file(stage.folder, "inbox/page.txt", f"version {version}")
            await asyncio.wait_for(first.wait(), 30)

            async def taken(count: int = number) -> bool:
                return await stage.count(pool) == count

            await eventually(taken, f"version {version}")
        go_on.set()
        await stage.settled(3)
    # Each version runs, in the order in which they were written, on the content it had.
    assert [prompt.splitlines()[-1] for prompt in prompts] == ["version one", "version two", "version three"]
    assert prompts[0].splitlines()[0] == "File added: inbox/page.txt"
    assert prompts[1].splitlines()[0] == "File modified: inbox/page.txt"


async def test_the_agent_gets_the_text_and_the_event_the_facts(stage: Stage) -> None:
    async with stage.pool(watch()) as pool:
        path = drop_file(stage.folder, "inbox/page.txt", "The text of the page.")
        (record,) = await stage.settled(1)
        assert "The text of the page." in await stage.content(pool, record)
    data = record.event.data
    assert data["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (data["size"], data["text"]) == (21, "The text of the page.")
    assert data["mtime"].endswith("+00:00")


async def test_files_there_before_or_dropped_while_down_are_run_once(stage: Stage) -> None:
    drop_file(stage.folder, "inbox/before.txt")
    async with stage.pool(watch()):
        await stage.settled(1)
    drop_file(stage.folder, "inbox/between.txt")
    async with stage.pool(watch()):
        await stage.settled(2)
        drop_file(stage.folder, "inbox/last.txt")
        await stage.settled(3)
    assert [record.event.subject for record in stage.done] == [
        "inbox/before.txt",
        "inbox/between.txt",
        "inbox/last.txt",
    ]


async def test_files_move_when_their_event_is_done_or_dead(stage: Stage) -> None:
    stage.write("script.yml", '- {match: bad, error: 500}\n- {match: "", reply: fine}\n')
    options = "model: demo:script.yml\n    retries: {attempts: 1}\n    redelivery: {attempts: 1}"
    async with stage.pool(watch("on_done: move, on_fail: move").replace("model: demo", options)):
        drop_file(stage.folder, "inbox/good.txt", "good")
        drop_file(stage.folder, "inbox/bad.txt", "bad")
        inbox = stage.folder / "inbox"
        await until((inbox / ".done" / "good.txt").exists, "the file that is done")
        await until((inbox / ".failed" / "bad.txt").exists, "the file that failed")
        await until(lambda: len(list((inbox / ".failed").iterdir())) == 2, "the reason beside it")
    reason = next(path for path in (inbox / ".failed").iterdir() if path.name != "bad.txt")
    assert "500" in reason.read_text()
    assert [path.name for path in inbox.iterdir() if path.is_file()] == []
