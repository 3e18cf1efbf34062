from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_world import ManualClock, World

# Three servers need seconds to agree after each kill: at full length only.
collect_ignore = [] if os.environ.get("CHAOS") else ["test_nats_cluster.py"]


@pytest.fixture(params=["sqlite", "memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def world(kind: str, tmp_path: Path) -> AsyncIterator[World]:
    world = World(kind, tmp_path)
    await world.engine.open()
    yield world
    await world.engine.stop(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def timed(kind: str, tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    world = World(kind, tmp_path, clock)
    await world.engine.open()
    yield world
    await world.engine.stop(0)
