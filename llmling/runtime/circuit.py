"""A circuit per model and per server: what is down, or asked for patience, is asked by one request now and then."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Iterator

from llmling.errors import ModelError
from llmling.runtime.bounds import Waiter
from llmling.runtime.clock import Clock

FAILURES = 5
PAUSE_S = 30.0

logger = logging.getLogger("llmling.circuit")


class CircuitOpen(ModelError):
    """The request was not made, since those before it have failed; the message says when the next one is."""


class Circuit:
    """Opens after failures in a row that mean "it is down", of `failures` runs.

    What few runs meet, however often, may be the fault of their own requests, and is no outage. After `pause_s` one
    caller probes: an answer closes the circuit, a failure opens it again. A provider that asks to wait opens it at
    once, for as long as it asks. Any loop and thread may use it.
    """

    def __init__(self, name: str, clock: Clock, failures: int = FAILURES, pause_s: float = PAUSE_S) -> None:
        self.name = name
        self.down = False
        self.opened = 0
        self.failed_probes = 0
        self._clock = clock
        self._failures: float = failures
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._row = 0
        self._runs: set[object] = set()
        self._until: float | None = None
        self._probe: object | None = None
        self._why = ""
        self._waiting: list[Waiter] = []

    @property
    def open(self) -> bool:
        """Whether requests are held back right now."""
        return self._until is not None

    @property
    def why(self) -> str:
        """What is held back, why, and when the next request is made; for people."""
        left_s = 0.0 if self._until is None else max(0.0, self._until - self._clock.monotonic())
        when = f"in {left_s:.1f} s" if left_s else "now"
        return f"{self.name} is not asked ({self._why}); the next try is {when}"

    def turn(self, caller: object) -> float:
        """Return 0 when `caller` may ask, the seconds until one may, or infinity: while another one probes."""
        if not self.open:
            return 0.0
        with self._lock:
            if self._until is None or self._probe is caller:
                return 0.0
            if self._probe is not None:
                return math.inf
            left_s = self._until - self._clock.monotonic()
            if left_s > 0:
                return left_s
            self._probe = caller
            return 0.0

    async def changed(self, wait_s: float) -> None:
        """Return when the circuit has changed, or after `wait_s`."""
        with self._lock:
            if self._until is None:
                return
            self._waiting.append(waiter := Waiter())
        async with asyncio.TaskGroup() as group:
            waits = {group.create_task(waiter.wait())}
            if wait_s < math.inf:
                waits.add(group.create_task(self._clock.sleep(wait_s)))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                with self._lock:
                    if waiter in self._waiting:
                        self._waiting.remove(waiter)

    def answered(self, caller: object) -> None:
        """Hear that it answered; what was asked before a wait was asked for says nothing about that wait."""
        if not self.open and not self._row:
            return
        with self._lock:
            self._row = 0
            self._runs.clear()
            if self._until is None or not (self.down or self._probe is caller):
                return
            self._until = self._probe = None
            self._wake()
        logger.info("%s answers again", self.name)

    def failed(self, caller: object, run: object, why: str) -> None:
        """Hear that a request of `run` failed as if it were down."""
        with self._lock:
            self._row += 1
            self._runs.add(run)
            probed = self._probe is caller
            if probed:
                self.failed_probes += 1
            elif self._until is not None or len(self._runs) < self._failures:
                return
            self._why = f"{self._row} requests in a row have failed, the last one: {why}"
            self._open(self._pause_s, down=True)
        logger.warning("%s", self.why)

    def held(self, caller: object, wait_s: float, why: str) -> None:
        """Hear that it asks to be left alone for `wait_s`."""
        with self._lock:
            news = self._until is None or self._probe is caller
            left_s = 0.0 if self._until is None else self._until - self._clock.monotonic()
            self._row = 0
            self._runs.clear()
            self._why = f"it asked to wait: {why}"
            self._open(max(wait_s, left_s), down=False, probed=self._probe is caller)
        if news:
            logger.warning("%s", self.why)

    def left(self, caller: object) -> None:
        """Hear that `caller` has ended, however; another one probes if it was to and brought no news."""
        if self._probe is not caller:
            return
        with self._lock:
            if self._probe is caller:
                self._probe = None
                self._wake()

    def become(self, failures: int | None, pause_s: float) -> None:
        """Open after so many failures from now on, for so long; None: never, and not now either."""
        with self._lock:
            self._failures = math.inf if failures is None else failures
            self._pause_s = pause_s
            if failures is None and self._until is not None:
                self._until = self._probe = None
                self._wake()

    def hurry(self) -> None:
        """Let the next caller probe: there is reason to think that it is back."""
        with self._lock:
            if self._until is not None:
                self._until = self._clock.monotonic()
                self._wake()

    def _open(self, pause_s: float, *, down: bool, probed: bool = True) -> None:
        self.opened += self._until is None
        self.down = down
        self._until = self._clock.monotonic() + pause_s
        if probed:
            self._probe = None
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.wake()


class Circuits:
    """The circuits of a pool, by what they guard; `failures` None: none of them ever opens."""

    def __init__(self, clock: Clock, failures: int | None = FAILURES, pause_s: float = PAUSE_S) -> None:
        self._clock = clock
        self._failures = failures
        self._pause_s = pause_s
        self._all: dict[str, Circuit] = {}

    def __iter__(self) -> Iterator[Circuit]:
        return iter(list(self._all.values()))

    def become(self, other: Circuits) -> None:
        """Open and close like `other` from now on."""
        self._failures, self._pause_s = other._failures, other._pause_s
        for circuit in self:
            circuit.become(self._failures, self._pause_s)

    def of(self, key: str) -> Circuit | None:
        """Return the circuit of a model or server, None when there are none."""
        if self._failures is None:
            return None
        circuit = self._all.get(key)
        if circuit is None:
            circuit = self._all.setdefault(key, Circuit(key, self._clock, self._failures, self._pause_s))
        return circuit
