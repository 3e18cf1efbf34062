"""A bounded queue with workers of its own; connections and inboxes are made of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, TypeAlias, TypeVar

from llmling.errors import Full

T = TypeVar("T")
Overflow: TypeAlias = Literal["block", "reject", "drop_oldest"]


class Channel(Generic[T]):
    """Hands items to `handle`, in order, at most `workers` at once.

    Workers exist only while there is work, so an idle channel leaves no task behind; `aclose` ends those at work.
    `handle` must not raise: it reports failures itself.
    """

    def __init__(
        self,
        handle: Callable[[T], Awaitable[None]],
        *,
        name: str,
        workers: int = 1,
        size: int = 1000,
        overflow: Overflow = "block",
        dropped: Callable[[T, str], None] | None = None,
    ) -> None:
        self.name = name
        self._handle = handle
        self._workers = workers
        self._size = size
        self._overflow: Overflow = overflow
        self._dropped = dropped
        self._items: deque[T] = deque()
        self._room: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._active = 0

    @property
    def full(self) -> bool:
        """Whether one more item would overflow."""
        return len(self._items) >= self._size

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: T) -> None:
        """Queue an item. A full channel waits, refuses or drops its oldest item, as configured.

        Cancelling a waiting `put` leaves the item out.

        Raises:
            Full: The channel is full and configured to refuse, or was closed while this waited for room.
        """
        while self.full:
            if self._overflow == "reject":
                raise Full(f"{self.name} is full ({self._size} messages, overflow: reject)")
            if self._overflow == "drop_oldest":
                oldest = self._items.popleft()
                if self._dropped is not None:
                    self._dropped(
                        oldest, f"dropped: {self.name} is full ({self._size} messages, overflow: drop_oldest)"
                    )
                continue
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    self._room.remove(waiter)
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        self._items.append(item)
        if self._active < self._workers:
            self._active += 1
            task = asyncio.create_task(self._work(), name=f"llmling {self.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _wake(self) -> None:
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _work(self) -> None:
        try:
            while self._items:
                item = self._items.popleft()
                self._wake()
                await self._handle(item)
        finally:
            # Counted here and not when the task is seen to be done: an item put in between would wait for nobody.
            self._active -= 1

    async def aclose(self) -> list[T]:
        """Cancel the workers and return the items nobody took; who waits for room is refused."""
        left = list(self._items)
        self._items.clear()
        waiting, self._room = self._room, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(Full(f"{self.name} was closed"))
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A worker cancelled before its first step never counted itself out.
        self._active = 0
        return left


class Outstanding:
    """Counts things that are under way and lets others wait until none is; a child counts for its parent too.

    `with` counts what goes on inside.
    """

    __slots__ = ("_count", "_parent", "_waiters", "total")

    def __init__(self, parent: Outstanding | None = None) -> None:
        self._count = 0
        self._parent = parent
        self._waiters: list[asyncio.Future[None]] = []
        self.total = 0

    @property
    def root(self) -> Outstanding:
        """The outermost counter."""
        return self if self._parent is None else self._parent.root

    def __len__(self) -> int:
        return self._count

    def add(self) -> None:
        """Count one more."""
        self._count += 1
        self.total += 1
        if self._parent is not None:
            self._parent.add()

    def __enter__(self) -> None:
        self.add()

    def __exit__(self, *_: object) -> None:
        self.done()

    def done(self) -> None:
        """Count one less; wakes who waits when none is left."""
        self._count -= 1
        if self._count == 0:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self._parent is not None:
            self._parent.done()

    async def wait(self) -> None:
        """Return once nothing is under way."""
        while self._count:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
