from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from llmling.testing import FakeClock, drop_file, until


async def test_sleepers_wake_in_order_and_at_their_time() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, *seconds: float) -> None:
        for pause in seconds:
            await clock.sleep(pause)
            woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleep("a", 2, 2, 2))
        tasks.create_task(sleep("b", 3))
        tasks.create_task(sleep("c", 0))
        await clock.asleep(2)
        assert woken == [("c", 0)]
        await clock.advance(5)
        assert woken[1:] == [("a", 2), ("b", 3), ("a", 4)]
        assert clock.sleepers == 1
        assert clock.now() == dt.datetime(2027, 1, 1, 0, 0, 5, tzinfo=dt.UTC)
        await clock.advance(1)


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(1))
    await clock.asleep()
    task.cancel()
    await until(task.done)
    assert clock.sleepers == 0
    await clock.advance(2)


async def test_a_jump_moves_the_wall_time_only() -> None:
    clock = FakeClock(dt.datetime(2027, 6, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))))
    clock.jump(-60)
    assert clock.now() == dt.datetime(2027, 6, 1, 9, 59, tzinfo=dt.UTC)
    assert clock.monotonic() == 0


async def test_waiting_for_what_never_happens_ends() -> None:
    with pytest.raises(TimeoutError):
        await until(lambda: False, timeout_s=0.05)
    with pytest.raises(TimeoutError):
        await FakeClock().asleep(timeout_s=0.05)


def test_a_dropped_file_appears_whole(tmp_path: Path) -> None:
    assert drop_file(tmp_path, "a/b.md", "héllo").read_text() == "héllo"
    assert drop_file(tmp_path, "a/b.md", b"\xff").read_bytes() == b"\xff"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.md"]
