"""How many deliveries run at once in all processes together: `limits.concurrency` of the pool."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from llmling.engines.jetstream.book import Book, Found
from llmling.engines.jetstream.hosts import Hosts
from llmling.engines.jetstream.link import Conflict
from llmling.errors import EngineError
from llmling.events import new_id
from llmling.protocols import Policy

_KEY = "places"
_LOOK_S = 1.0


class Places:
    """A record of how many places each process has; those of a silent one are free.

    Where the agents together may not run so many there is nothing to keep, and nothing is written.
    """

    def __init__(self, book: Book, hosts: Hosts) -> None:
        self._book = book
        self._hosts = hosts
        self._host = hosts.own
        self._most: int | None = None
        self._turn = asyncio.Lock()
        self._moved = asyncio.Event()
        self._closed = False

    def serve(self, policies: Mapping[str, Policy], concurrency: int) -> None:
        """Keep this bound from now on."""
        self._most = concurrency if sum(each.concurrency for each in policies.values()) > concurrency else None
        self._moved.set()

    async def open(self) -> None:
        """Hear when a place of another process is free."""
        await self._book.link.listen(f"{self._book.name}.places", self._hear)

    def close(self) -> None:
        """Let those that wait go on without a place: they start nothing any more."""
        self._closed = True
        self._moved.set()

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """Hold a place beside the deliveries of other processes.

        Raises:
            EngineError: The connection was closed meanwhile.
        """
        place = new_id()
        taken = await self._take(place)
        try:
            yield
        finally:
            if taken:
                # Without NATS the place is free once this process is known to be silent.
                with contextlib.suppress(EngineError):
                    await self._book.link.patiently(lambda: self._leave(place))
                await self._book.link.tell(f"{self._book.name}.places", b"")
                self._moved.set()

    async def _take(self, place: str) -> bool:
        while (most := self._most) is not None and not self._closed:
            async with self._turn:
                self._moved.clear()
                if await self._book.link.patiently(lambda most=most: self._enter(place, most)):
                    return True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S * random.uniform(0.5, 1.0)):
                        await self._moved.wait()
        return False

    async def _enter(self, place: str, most: int) -> bool:
        """Write a place down, unless there are `most` already; may be done twice."""
        while True:
            found = await self._book.get(_KEY)
            places: dict[str, list[str]] = {} if found is None else found.value
            if place in places.get(self._host, ()):
                return True
            if sum(map(len, places.values())) >= most:
                serving = {each.id for each in await self._hosts.read() if each.state == "serving"}
                places = {host: held for host, held in places.items() if host in serving or host == self._host}
            if sum(map(len, places.values())) >= most:
                return False
            if await self._write({**places, self._host: [*places.get(self._host, ()), place]}, found):
                return True

    async def _leave(self, place: str) -> None:
        while (found := await self._book.get(_KEY)) is not None:
            held: list[str] = found.value.get(self._host, [])
            left = [each for each in held if each != place]
            if left == held or await self._write({**found.value, self._host: left}, found):
                return

    async def _write(self, places: Mapping[str, list[str]], over: Found | None) -> bool:
        try:
            await self._book.write(_KEY, {host: held for host, held in places.items() if held}, over, group=_KEY)
        except Conflict:
            return False
        return True

    async def _hear(self, message: Any) -> None:
        self._moved.set()
