"""What model requests queue up for: places, a rate, money; and the door at which they wait for all of them at once."""

from __future__ import annotations

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from llmling.errors import RunError
from llmling.runtime.claims import Claim
from llmling.runtime.clock import Clock


class Bound(ABC):
    """Something of which there is only so much; the door calls it under its lock."""

    def __init__(self) -> None:
        self.waiting: deque[Waiter] = deque()

    @abstractmethod
    def wait_s(self) -> float:
        """Return 0 when there is room, the seconds until there may be, or infinity: until something is given back.

        Raises:
            RunError: There will be none.
        """

    @abstractmethod
    def take(self, claim: Claim) -> None:
        """Take what is claimed."""

    @abstractmethod
    def give(self, claim: Claim) -> None:
        """Take back what is not used any more."""


class Places(Bound):
    """At most `count` at once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._free = count

    def wait_s(self) -> float:
        """Return 0 while a place is free."""
        return 0.0 if self._free > 0 else math.inf

    def take(self, claim: Claim) -> None:
        """Take a place."""
        self._free -= 1

    def give(self, claim: Claim) -> None:
        """Give a place back."""
        self._free += 1


class RateLimit(Bound):
    """At most `count` in any `period_s` seconds."""

    def __init__(self, count: int, clock: Clock, period_s: float = 60.0) -> None:
        super().__init__()
        self._count = count
        self._clock = clock
        self._period_s = period_s
        self._passed: deque[float] = deque()

    def wait_s(self) -> float:
        """Return the seconds until one more may pass."""
        now = self._clock.monotonic()
        while self._passed and now - self._passed[0] >= self._period_s:
            self._passed.popleft()
        return 0.0 if len(self._passed) < self._count else self._passed[0] + self._period_s - now

    def take(self, claim: Claim) -> None:
        """Note that one has passed."""
        self._passed.append(self._clock.monotonic())

    def give(self, claim: Claim) -> None:
        """Take nothing back: what has passed has passed."""


class Waiter:
    """Somebody who waits for a bound, on whatever loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    async def wait(self) -> None:
        """Return when it is woken."""
        await self._future

    def wake(self) -> bool:
        """Let it look again; False when it is gone."""
        if self._future.done():
            return False
        try:
            self._loop.call_soon_threadsafe(_wake, self._future)
        except RuntimeError:
            return False
        return True


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Door:
    """Lets requests in when every bound has room for them: all is taken at once, and nothing is held while waiting.

    Those who wait for the same bound go in their order. Runs of any loop and thread may share a door.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()

    async def enter(self, bounds: Sequence[Bound], claim: Callable[[], Claim]) -> Claim:
        """Return what was taken, once all of it was; cancelling gives up the turn.

        `claim` is asked when there is room, since more may be known then than when the waiting began.

        Raises:
            RunError: A bound will have no room.
        """
        turn: Bound | None = None
        while True:
            waiter: Waiter | None = None
            with self._lock:
                try:
                    blocking, wait_s = _blocking(bounds, queue_up=turn is None)
                    if blocking is None:
                        taken = claim()
                        for bound in bounds:
                            bound.take(taken)
                        return taken
                    if wait_s == math.inf:
                        waiter = Waiter()
                        if blocking is turn:
                            # It had its turn and came too late: it is the next one again.
                            blocking.waiting.appendleft(waiter)
                        else:
                            blocking.waiting.append(waiter)
                finally:
                    # Whoever was woken passes the turn on, whatever became of it: there may be room for more.
                    if turn is not None:
                        _wake_next(turn)
            turn = None
            if waiter is None:
                await self._clock.sleep(wait_s)
                await asyncio.sleep(0)
                continue
            try:
                await waiter.wait()
            except asyncio.CancelledError:
                with self._lock:
                    if waiter in blocking.waiting:
                        blocking.waiting.remove(waiter)
                    else:
                        _wake_next(blocking)
                raise
            turn = blocking

    def leave(self, bounds: Sequence[Bound], claim: Claim) -> None:
        """Give back what was taken."""
        with self._lock:
            for bound in bounds:
                bound.give(claim)
                _wake_next(bound)


def _blocking(bounds: Sequence[Bound], *, queue_up: bool) -> tuple[Bound | None, float]:
    """Return the bound that has to be waited for longest; a newcomer also goes behind those who wait already.

    Not so somebody who was woken: two who wait for two bounds each could send one another away for ever.
    """
    longest: Bound | None = None
    longest_s = 0.0
    for bound in bounds:
        wait_s = math.inf if queue_up and bound.waiting else bound.wait_s()
        if wait_s > longest_s:
            longest, longest_s = bound, wait_s
    return longest, longest_s


def _wake_next(bound: Bound) -> None:
    while bound.waiting and _may_pass(bound):
        if bound.waiting.popleft().wake():
            return


def _may_pass(bound: Bound) -> bool:
    try:
        return bound.wait_s() < math.inf
    except RunError:  # whoever waits has to hear it himself
        return True
