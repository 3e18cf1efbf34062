"""What every store promises; each test runs against the stores of all engines and against that of a single process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_world import World

from llmling.errors import EngineError
from llmling.protocols import Store
from llmling.runtime.stores import MemoryStore

ODD = ["", "odd\udce9", "a/b", "../x", "'; drop table store; --", "%", "x" * 10_000, "\x00"]


@pytest.fixture(params=["sqlite", "memory", "nats", "process"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "process":
        yield MemoryStore()
        return
    world = World(request.param, tmp_path)
    await world.engine.open()
    yield world.engine.store
    await world.engine.stop(0)


async def test_the_store_keeps_values(store: Store) -> None:
    assert await store.get("s", "k") is None
    await store.put("s", {"k": {"deep": [1, 2.5, None]}, "odd\udce9": "x"})
    await store.put("t", {"k": 1})
    await store.put("s", {"k2": True, "k": "new"})
    assert await store.get("s", "k") == "new"
    assert await store.items("s") == {"k": "new", "k2": True, "odd\udce9": "x"}
    await store.remove("s", ["k", "unknown", "odd\udce9"])
    assert await store.items("s") == {"k2": True}
    assert await store.get("t", "k") == 1


async def test_any_text_is_a_space_and_a_key(store: Store) -> None:
    for space in ODD:
        await store.put(space, {key: [space, key] for key in ODD})
    for space in ODD:
        assert await store.items(space) == {key: [space, key] for key in ODD}
    await store.remove("a/b", ODD)
    assert await store.items("a/b") == {}
    assert len(await store.items("../x")) == len(ODD)


async def test_a_value_is_swapped_only_when_it_is_the_old_one(store: Store) -> None:
    assert not await store.swap("s", "k", {"n": 0}, {"n": 1})
    assert await store.swap("s", "k", None, {"n": 1, "m": "ü\udce9"})
    assert not await store.swap("s", "k", None, {"n": 2})
    assert await store.get("s", "k") == {"n": 1, "m": "ü\udce9"}
    # Equal, whatever the order of its keys.
    assert await store.swap("s", "k", {"m": "ü\udce9", "n": 1}, {"n": 2})
    assert await store.swap("s", "k", {"n": 2}, None)
    assert await store.items("s") == {}
    assert await store.swap("s", "k", None, None)
    assert await store.swap("s", "k", None, [1, 2.5, None])


async def test_of_many_that_swap_at_once_one_wins(store: Store) -> None:
    outcomes = await asyncio.gather(*(store.swap("s", "k", None, number) for number in range(1, 20)))
    assert outcomes.count(True) == 1
    assert await store.get("s", "k") == outcomes.index(True) + 1


async def test_no_increment_is_lost(store: Store) -> None:
    async def increment() -> None:
        while not await store.swap("s", "n", before := await store.get("s", "n"), (before or 0) + 1):
            pass

    await asyncio.gather(*(increment() for _ in range(20)))
    assert await store.get("s", "n") == 20


@pytest.mark.parametrize("shared", ["sqlite", "nats"])
async def test_two_processes_that_swap_share_one_value(shared: str, tmp_path: Path) -> None:
    worlds = [World(shared, tmp_path) for _ in range(2)]
    for world in worlds:
        await world.engine.open()
    one, other = (world.engine.store for world in worlds)
    try:
        assert await one.swap("s", "k", None, 1)
        assert not await other.swap("s", "k", None, 2)
        assert await other.swap("s", "k", 1, 2)
        assert await one.get("s", "k") == 2
    finally:
        for world in worlds:
            await world.engine.stop(0)
    with pytest.raises(EngineError, match="stopped"):
        await one.swap("s", "k", 2, 3)


async def test_the_store_adds_to_numbers_all_or_none_of_them(store: Store) -> None:
    assert await store.add("s", {"a": 2, "b": 0.5}) == (True, {"a": 2, "b": 0.5})
    assert await store.add("s", {"a": -1, "c": 7}, below={"a": 3, "b": 1}) == (True, {"a": 1, "c": 7})
    # Not below its bound: nothing at all is added.
    assert await store.add("s", {"a": 1, "c": 1}, below={"a": 2, "c": 7}) == (False, {"a": 1, "c": 7})
    assert await store.items("s") == {"a": 1, "b": 0.5, "c": 7}


async def test_many_who_add_at_once_stop_at_the_bound(store: Store) -> None:
    added = await asyncio.gather(*(store.add("s", {"n": 1}, below={"n": 25}) for _ in range(100)))
    assert [done for done, _ in added].count(True) == 25
    assert await store.get("s", "n") == 25
