"""How many deliveries of a process run at once, and which of them must run without neighbours."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_SUSPICIOUS = 2


class Gate:
    """Lets `concurrency` deliveries in, in the order in which they come.

    One crash may be a power cut and makes nobody a suspect. Who has been there twice is one, and runs when no other
    suspect does; on its last try it runs alone in the process, so whoever dies of a crash cannot be a neighbour of
    the one that caused it.
    """

    def __init__(self, concurrency: int) -> None:
        self._places = _Places(concurrency)
        self._suspects = asyncio.Lock()
        self._moved = asyncio.Condition()
        self._active = 0
        self._alone = 0

    @property
    def places(self) -> tuple[int, int]:
        """How many are inside, and how many may be."""
        return self._places.used, self._places.count

    def resize(self, concurrency: int) -> None:
        """Let so many in from now on; those inside stay."""
        self._places.resize(concurrency)

    @asynccontextmanager
    async def place(self, crashes: int, *, last_try: bool) -> AsyncGenerator[None]:
        """Hold a place for a delivery that has seen its process die so often."""
        if not crashes or (crashes < _SUSPICIOUS and not last_try):
            async with self._places, self._among_others():
                yield
            return
        async with self._suspects, self._places:
            if not last_try:
                async with self._among_others():
                    yield
                return
            async with self._without_others():
                yield

    @asynccontextmanager
    async def _among_others(self) -> AsyncGenerator[None]:
        async with self._moved:
            await self._moved.wait_for(lambda: not self._alone)
            self._active += 1
        try:
            yield
        finally:
            async with self._moved:
                self._active -= 1
                self._moved.notify_all()

    @asynccontextmanager
    async def _without_others(self) -> AsyncGenerator[None]:
        async with self._moved:
            self._alone += 1
            try:
                await self._moved.wait_for(lambda: not self._active)
            except BaseException:
                self._alone -= 1
                self._moved.notify_all()
                raise
        try:
            yield
        finally:
            async with self._moved:
                self._alone -= 1
                self._moved.notify_all()


class _Places:
    """A semaphore whose size can change."""

    def __init__(self, count: int) -> None:
        self._free = count
        self.count = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def used(self) -> int:
        return self.count - self._free

    def resize(self, count: int) -> None:
        self._free += count - self.count
        self.count = count
        self._wake()

    async def __aenter__(self) -> None:
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free += 1
            elif turn in self._waiting:
                self._waiting.remove(turn)
            self._wake()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._free += 1
        self._wake()

    def _wake(self) -> None:
        while self._free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
