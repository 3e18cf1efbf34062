"""Stores as agents use them: in memory, opened when first needed, or lent by a pool."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from llmling import manifest as manifests
from llmling import plugins
from llmling.errors import StartupError
from llmling.protocols import Engine, Store

_NOTHING = "null"


class MemoryStore:
    """A store in the memory of this process, gone when it ends; any thread may use it."""

    def __init__(self) -> None:
        self._spaces: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def peek(self, space: str) -> dict[str, Any]:
        """Return all values of a space, without waiting."""
        with self._lock:
            values = dict(self._spaces.get(space, {}))
        return {key: json.loads(value) for key, value in values.items()}

    async def get(self, space: str, key: str) -> Any:
        """Return the value, or None."""
        with self._lock:
            value = self._spaces.get(space, {}).get(key, _NOTHING)
        return json.loads(value)

    async def put(self, space: str, items: Mapping[str, Any]) -> None:
        """Set many values."""
        written = {key: json.dumps(value) for key, value in items.items()}
        with self._lock:
            self._spaces.setdefault(space, {}).update(written)

    async def remove(self, space: str, keys: Sequence[str]) -> None:
        """Forget values; unknown keys are no error."""
        with self._lock:
            for key in keys:
                self._drop(space, key)

    async def swap(self, space: str, key: str, old: Any, new: Any) -> bool:
        """Set a value if it is `old` right now, and return whether it was; None stands for no value."""
        after = json.dumps(new)
        with self._lock:
            if json.loads(self._spaces.get(space, {}).get(key, _NOTHING)) != old:
                return False
            if new is None:
                self._drop(space, key)
            else:
                self._spaces.setdefault(space, {})[key] = after
            return True

    async def add(
        self, space: str, deltas: Mapping[str, float], *, below: Mapping[str, float] | None = None
    ) -> tuple[bool, dict[str, float]]:
        """Add to numbers, all or none; see `protocols.Store`."""
        bounds = below or {}
        with self._lock:
            values = self._spaces.get(space, {})
            found = {key: json.loads(values.get(key, "0")) for key in {**deltas, **bounds}}
            if any(found[key] >= bound for key, bound in bounds.items()):
                return False, {key: found[key] for key in deltas}
            totals = {key: found[key] + delta for key, delta in deltas.items()}
            self._spaces.setdefault(space, {}).update({key: json.dumps(total) for key, total in totals.items()})
            return True, totals

    async def items(self, space: str) -> dict[str, Any]:
        """Return all values of a space."""
        return self.peek(space)

    def _drop(self, space: str, key: str) -> None:
        values = self._spaces.get(space, {})
        values.pop(key, None)
        if not values:
            self._spaces.pop(space, None)


class StoreBehind(ABC):
    """A store that passes everything on to another one."""

    @abstractmethod
    async def store(self) -> Store:
        """Return the store behind this one.

        Raises:
            StartupError: It is not open.
            EngineError: It cannot be used.
        """

    async def get(self, space: str, key: str) -> Any:
        """Return the value, or None."""
        return await (await self.store()).get(space, key)

    async def put(self, space: str, items: Mapping[str, Any]) -> None:
        """Set many values in one commit."""
        await (await self.store()).put(space, items)

    async def remove(self, space: str, keys: Sequence[str]) -> None:
        """Forget values; unknown keys are no error."""
        await (await self.store()).remove(space, keys)

    async def swap(self, space: str, key: str, old: Any, new: Any) -> bool:
        """Set a value if it is `old` right now, and return whether it was; None stands for no value."""
        return await (await self.store()).swap(space, key, old, new)

    async def add(
        self, space: str, deltas: Mapping[str, float], *, below: Mapping[str, float] | None = None
    ) -> tuple[bool, dict[str, float]]:
        """Add to numbers in one commit, all or none; see `protocols.Store`."""
        return await (await self.store()).add(space, deltas, below=below)

    async def items(self, space: str) -> dict[str, Any]:
        """Return all values of a space."""
        return await (await self.store()).items(space)


class StoreOnDemand(StoreBehind):
    """The store of an engine that is opened when the store is first used, and not before."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._engine: Engine | None = None
        self._owned = False
        self._entered = False
        self._opening = asyncio.Lock()

    def use(self, engine: Engine) -> None:
        """Take an engine that somebody else opens and stops."""
        self._engine, self._entered = engine, True

    async def __aenter__(self) -> StoreOnDemand:
        self._entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entered = False
        engine, self._engine = self._engine, None
        if engine is not None and self._owned:
            self._owned = False
            await engine.stop(0)

    async def store(self) -> Store:
        """Return the engine's store; the first call opens the engine."""
        if not self._entered:
            raise StartupError("the store is not open: use `async with` around the agent or the pool")
        async with self._opening:
            if self._engine is None:
                engine = self._make()
                await engine.open()
                self._engine, self._owned = engine, True
        return self._engine.store


class Keep(StoreBehind):
    """Where one agent keeps what outlives its runs: what it was given, else what its pool lends, else its memory."""

    def __init__(self, given: Store | None = None) -> None:
        self._given = given
        self._used: Store = MemoryStore() if given is None else given

    def lend(self, store: Store | None) -> None:
        """Use a pool's store, unless the agent was given one of its own."""
        if self._given is None and store is not None:
            self._used = store

    def peek(self, space: str) -> dict[str, Any] | None:
        """Return all values of a space when that takes no waiting, else None."""
        return self._used.peek(space) if isinstance(self._used, MemoryStore) else None

    async def store(self) -> Store:
        """Return the store in use."""
        return self._used

    async def open(self) -> None:
        """Let the agent's own store be opened from now on, once it is needed."""
        if isinstance(self._given, StoreOnDemand):
            await self._given.__aenter__()

    async def aclose(self) -> None:
        """Close the agent's own store."""
        if isinstance(self._given, StoreOnDemand):
            await self._given.__aexit__()


def given_store(store: Any, folder: Path) -> Store | None:
    """Return what an agent was given as its `store`: a file, an `engine` of a manifest or its config, or a store.

    Raises:
        ManifestError: It is not as `engine` has to be.
        TypeError: It is nothing of the kind.
    """
    if store is None:
        return None
    if isinstance(store, str | Path):
        store = {"type": "sqlite", "path": str(store)}
    if isinstance(store, Mapping):
        store = manifests.load({"engine": dict(cast("Mapping[str, Any]", store)), "agents": {}}).engine
    if isinstance(store, BaseModel):
        return StoreOnDemand(functools.partial(plugins.create, "engines", store, folder))
    if not isinstance(store, Store):
        kind = type(store).__name__
        raise TypeError(f"`store` should be a file, a mapping as `engine` has it, or a `Store`, not {kind}")
    return store
