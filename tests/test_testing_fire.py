"""`llmling.testing.fire`: one event through a trigger of a pool that was entered, and what became of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmling import AgentPool, firing
from llmling.errors import LLMlingError, StartupError
from llmling.manifest import load
from llmling.testing import fire

MANIFEST = {
    "engine": {"type": "memory"},
    "limits": {"drain_timeout_s": 0.01},
    "agents": {
        "a": {
            "model": "demo:script.yml",
            "connections": ["b"],
            "triggers": [{"type": "webhook", "name": "hook", "filter": "event.data != 'no'"}],
        },
        "b": {"model": "demo:script.yml"},
    },
}
SCRIPT = "- {match: slow, delay_s: 60}\n- {match: first, reply: second}\n- {reply: third}\n"


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncGenerator[AgentPool[None]]:
    (folder / "script.yml").write_text(SCRIPT)
    (folder / "agents.yml").write_text(str(MANIFEST))
    pool = AgentPool[None](folder / "agents.yml", **options)
    pool.arm = False
    async with pool:
        yield pool


async def test_the_record_has_the_whole_chain(tmp_path: Path) -> None:
    async with opened(tmp_path) as pool:
        record = await fire(pool, "hook", data="first")
        assert (record.status, record.outcome) == ("done", "ran")
        assert [(hop.agent, hop.content) for hop in record.deliveries] == [("a", "second"), ("b", "third")]
        record = await fire(pool, "hook", data="no")
        assert (record.status, record.outcome, record.deliveries) == ("done", "filtered", ())


async def test_it_says_why_there_is_no_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as pool:
        with pytest.raises(TimeoutError, match=r"of trigger 'hook' is not settled after 0\.05 s"):
            await fire(pool, "hook", data="slow", timeout_s=0.05)
        with pytest.raises(LookupError, match="no trigger 'hok' in the manifest; triggers: hook"):
            await fire(pool, "hok", data="first")
    async with opened(tmp_path, triggers=False) as pool:
        with pytest.raises(LLMlingError, match="triggers=False"):
            await fire(pool, "hook", data="first")


BY_TYPE = {
    "agents": {
        "a": {
            "model": "demo",
            "triggers": [
                {"type": "webhook", "name": "hook"},
                {"type": "file", "name": "inbox", "paths": ["."]},
                {"type": "schedule", "name": "tick", "every_s": 3600, "prompt": "Look."},
            ],
        }
    }
}


@pytest.mark.parametrize(
    ("trigger", "given", "said"),
    [
        ("hook", {}, "trigger 'hook' needs a body: pass --data JSON or --file FILE"),
        ("hook", {"file": "a.txt", "data": 1}, "trigger 'hook' takes one body: .*not both"),
        ("hook", {"file": "none.txt"}, "there is no file .*none.txt: pass the path of one that exists"),
        ("hook", {"file": "."}, "is a folder: pass a file with --file"),
        ("hook", {"file": "a.bin"}, "a.bin is not UTF-8 text: pass a text file"),
        ("inbox", {}, "trigger 'inbox' is a file trigger: pass --file FILE$"),
        ("inbox", {"file": "a.txt", "data": None}, "pass --file FILE instead of --data"),
        ("inbox", {"file": "none.txt"}, "there is no file .*none.txt: pass the path of one that exists"),
        ("inbox", {"file": "."}, "is a folder: pass a file with --file"),
        ("inbox", {"file": "a.txt/b"}, "a.txt/b cannot be read .*: pass a file with --file that can"),
        ("tick", {"file": "a.txt"}, "trigger 'tick' is a schedule and reads no file: pass --data JSON, or nothing"),
        ("hook", {"data": 1, "model": "demo"}, "--dry-run asks no model: leave out --model, or --dry-run"),
        ("hook", {"data": 1, "model": "demo", "record": "c.yml"}, "leave out --model and --record, or --dry-run"),
    ],
)
async def test_what_does_not_fit_the_trigger_is_refused(
    tmp_path: Path, trigger: str, given: dict[str, Any], said: str
) -> None:
    (tmp_path / "agents.yml").write_text(str(BY_TYPE))
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\xfd")
    given = {**given, "file": tmp_path / given["file"]} if "file" in given else given
    with pytest.raises(StartupError, match=said) as raised:
        await firing.fire(load(tmp_path / "agents.yml"), trigger, dry_run=True, **given)
    assert raised.value.usage


@pytest.mark.parametrize(("trigger", "data"), [("hook", None), ("tick", {"data": None})])
async def test_null_is_data_as_every_value_of_json(tmp_path: Path, trigger: str, data: Any) -> None:
    (tmp_path / "agents.yml").write_text(str(BY_TYPE))
    result = await firing.fire(load(tmp_path / "agents.yml"), trigger, data=None, dry_run=True)
    found = result.event.data
    assert (found if trigger == "hook" else {"data": found["data"]}) == data
