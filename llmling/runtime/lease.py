"""A lease: what one holder at a time has, among all tasks and processes that use the same store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from llmling.errors import EngineError
from llmling.events import new_id
from llmling.protocols import Store
from llmling.runtime.clock import Clock
from llmling.runtime.tasks import to_its_end

LEASE_S = 6.0
"""How long a lease lasts after its holder was last heard of, in seconds."""
_SPACE = "leases"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25

logger = logging.getLogger("llmling.session")


@asynccontextmanager
async def lease(store: Store, name: str, clock: Clock, lease_s: float = LEASE_S) -> AsyncGenerator[None]:
    """Hold `name` while inside; whoever else wants it waits, and is next when it is given back.

    The holder tells three times per `lease_s` that it is alive. When it is not heard of for `lease_s`, because its
    process was killed or has stalled, the lease is taken over: what must not happen twice needs a compare-and-set
    of its own.

    Raises:
        EngineError: The store cannot be used.
    """
    holder = _Holder(store, name, clock, lease_s)
    beat: asyncio.Task[None] | None = None
    try:
        await holder.take()
        beat = asyncio.create_task(holder.keep(), name="llmling lease")
        yield
    finally:
        # Who cancels again and again, as streams and engines do, would leave the lease taken.
        _, cancelled = await to_its_end(_leave(holder, beat), name="lease")
        if cancelled is not None:
            raise cancelled


async def _leave(holder: _Holder, beat: asyncio.Task[None] | None) -> None:
    if beat is not None:
        beat.cancel()
        await asyncio.wait({beat})
    await holder.give_back()


class _Holder:
    """One try to hold a lease. Its value in the store: who has it, until when, and who is next."""

    def __init__(self, store: Store, name: str, clock: Clock, lease_s: float) -> None:
        self._store = store
        self._name = name
        self._clock = clock
        self._lease_s = lease_s
        self._me = new_id()
        self._value: dict[str, Any] | None = None

    async def take(self) -> None:
        if await self._swap(None, self._mine(None)):
            return
        pause_s = _FIRST_PAUSE_S
        heard: tuple[Any, Any] = (None, None)
        heard_s = self._clock.monotonic()
        while True:
            found = await self._store.get(_SPACE, self._name)
            if found is None or found["owner"] == self._me:
                if await self._swap(found, self._mine(found)):
                    return
                continue
            if (found["owner"], found["until"]) != heard:
                heard, heard_s = (found["owner"], found["until"]), self._clock.monotonic()
            if self._over(found, heard_s):
                # Who was next may be gone with the holder; who is not puts itself down again.
                if await self._swap(found, self._mine(None)):
                    logger.warning("took over the lease %s: its holder was not heard of any more", self._name)
                    return
                continue
            if found["next"] is None:
                stands_in_line = await self._store.swap(_SPACE, self._name, found, {**found, "next": self._me})
                if not stands_in_line:
                    # Who has many turns to take would pass by one that sleeps now.
                    continue
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _over(self, found: dict[str, Any], heard_s: float) -> bool:
        # Clocks of two machines differ, and jump, so the time in the value only shortens the watch over leases that
        # look long over: a holder that lives is heard of within half a lease. The watch needs no clock but its own.
        now, silent_s = self._clock.unix(), self._clock.monotonic() - heard_s
        looks_over = now >= found["until"] + self._lease_s
        return silent_s >= (self._lease_s / 2 if looks_over else self._lease_s)

    async def keep(self) -> None:
        """Tell that the holder is alive, until cancelled."""
        while True:
            await self._clock.sleep(self._lease_s / 3)
            try:
                if not await self._renew():
                    logger.warning("lost the lease %s: this process was not heard of for too long", self._name)
                    return
            except EngineError as error:
                logger.warning("the lease %s could not be renewed: %s", self._name, error)

    async def _renew(self) -> bool:
        while self._value is not None:
            if await self._swap(self._value, self._mine(self._value)):
                return True
            await self._look()
        return False

    async def give_back(self) -> None:
        """Let the next one have it, also when this one only waits for it."""
        try:
            if self._value is None:
                await self._look()
            while self._value is not None:
                after = self._handed(self._value)
                if await self._store.swap(_SPACE, self._name, self._value, after):
                    return
                await self._look()
        except EngineError as error:
            logger.warning("the lease %s could not be given back; it ends by itself: %s", self._name, error)

    def _handed(self, value: dict[str, Any]) -> dict[str, Any] | None:
        if value["owner"] != self._me:
            return {**value, "next": None}
        return None if value["next"] is None else {**self._until(), "owner": value["next"], "next": None}

    async def _look(self) -> None:
        found = await self._store.get(_SPACE, self._name)
        self._value = found if found is not None and self._me in {found["owner"], found["next"]} else None

    def _mine(self, found: dict[str, Any] | None) -> dict[str, Any]:
        after = None if found is None or found["next"] == self._me else found["next"]
        return {**self._until(), "owner": self._me, "next": after}

    def _until(self) -> dict[str, Any]:
        return {"until": self._clock.unix() + self._lease_s}

    async def _swap(self, old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
        # Cancelled or not, whether it was written must be known, or a lease stays that nobody gives back.
        swapping = self._store.swap(_SPACE, self._name, old, new)
        swapped, cancelled = await to_its_end(swapping, name="lease")
        if swapped:
            self._value = new
        if cancelled is not None:
            raise cancelled
        return swapped
