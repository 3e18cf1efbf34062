"""While a pool serves, the collector of cycles looks less often; what somebody has set stays."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

from llmling import AgentPool

HOURLY = {"type": "schedule", "name": "hourly", "every_s": 3600, "prompt": "What is new?"}
SERVING = {"server": False, "engine": {"type": "memory"}, "agents": {"a": {"model": "demo", "triggers": [HOURLY]}}}


@pytest.fixture(autouse=True)
def as_before() -> Generator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


async def test_it_looks_less_often_while_a_pool_serves() -> None:
    async with AgentPool(SERVING):
        assert gc.get_threshold() == (20_000, 10, 10)
        async with AgentPool(SERVING):
            pass
        assert gc.get_threshold() == (20_000, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [0, 50_000])
async def test_what_was_set_stays(own: int) -> None:
    gc.set_threshold(own, 5, 5)
    async with AgentPool(SERVING):
        assert gc.get_threshold() == (own, 5, 5)
    assert gc.get_threshold() == (own, 5, 5)
