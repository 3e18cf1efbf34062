"""Reloading a pool under load: nothing is refused that could be taken, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from chaos import Trial
from reload_house import House, at, hook, house
from serving import eventually, post, until

FULL = bool(os.environ.get("CHAOS"))


@asynccontextmanager
async def load(project: House, workers: int = 4) -> AsyncGenerator[tuple[list[int], set[str]]]:
    """Post all the time while inside; gives the statuses of the answers (0: no connection) and accepted events."""
    statuses: list[int] = []
    accepted: set[str] = set()
    stopping = asyncio.Event()

    async def sender() -> None:
        async with aiohttp.ClientSession() as session:
            while not stopping.is_set():
                status, body = await post(session, f"http://127.0.0.1:{project.port}/webhook", {"n": 1})
                statuses.append(status)
                if status == 202:
                    accepted.add(body["event_id"])

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(sender())
        yield statuses, accepted
        stopping.set()


async def test_a_webhook_that_stays_refuses_nobody_and_one_that_changes_says_later(tmp_path: Path) -> None:
    project = house(tmp_path)
    async with project.pool() as pool, load(project) as (statuses, _):
        for number in range(5):
            result = await project.reload(pool, at("agents", "a", "instructions", value=f"Version {number}"))
            assert result.applied
            before = len(statuses)
            await until(lambda before=before: len(statuses) > before + 3, "some posts")
        assert set(statuses) == {202}
        for number in range(5):
            result = await project.reload(pool, at("agents", "a", "triggers", value=[hook(prompt=f"Say {number}")]))
            assert result.changed["triggers"] == ("hook",)
            before = len(statuses)
            await until(lambda before=before: len(statuses) > before + 3, "some posts")
    assert set(statuses) <= {202, 503}


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_reloading_broken_files_under_load_loses_nothing(tmp_path: Path) -> None:
    trial, project = Trial("reloads of broken files under load (O4)"), house(tmp_path)
    project.data["engine"] = {"type": "sqlite"}
    for name in ("a", "c"):
        project.data["agents"][name]["inbox"] = {"size": 100_000}
    project.write()
    rounds = 100 if FULL else 10
    async with project.pool() as pool:
        async with load(project, workers=8) as (statuses, accepted):
            for number in range(rounds):
                at("agents", "a", "instructions", value=f"Version {number}")(project.data)
                at("agents", "a", "triggers", value=[hook(prompt=f"Say {number % 3}")])(project.data)
                project.write()
                good = project.path.read_text()
                broken = (good[: number * 7 % len(good)] + "\n: [", good.replace("model:", "modle:"), "agents: {a: {}")
                project.path.write_text(broken[number % 3])
                before = len(statuses)
                refused = await pool.reload()
                assert not refused.applied
                assert "agents.yml:" in str(refused)
                if number % 3 == 0:
                    project.path.write_text(good)
                    assert (await pool.reload()).applied
                await until(lambda before=before: len(statuses) > before + 5, "some posts", 60)
        assert set(statuses) <= {202, 503}
        assert len(accepted) >= rounds * 2

        async def settled() -> bool | None:
            counts = await pool.counts()
            return True if set(counts) == {"done"} else None

        await eventually(settled, "every event to be done", 300)
        assert pool.engine is not None
        assert {record.id async for record in pool.engine.runs(limit=None)} == accepted
    trial.holds(events=len(accepted), measured=f"{rounds} broken files refused")
