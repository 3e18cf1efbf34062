"""`llmling.testing.fire`: one event through a trigger of a pool that was entered, and what became of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmling import AgentPool
from llmling.errors import LLMlingError
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
