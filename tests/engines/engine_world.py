"""What the tests of the engines share: a clock that is moved by hand, and agents that answer as a test says."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from nats_server import nats_url

from llmling.engines.jetstream.engine import NatsEngine
from llmling.engines.memory import MemoryEngine
from llmling.engines.sqlite import SqliteEngine
from llmling.events import Event
from llmling.manifest.pool import MemoryEngineConfig, NatsEngineConfig, SqliteEngineConfig
from llmling.messages import Message
from llmling.protocols import Delivery, Done, EventRecord, Overlap, Policy, Receipt, Settlement, Work
from llmling.runtime.clock import SYSTEM_CLOCK, Clock

AnyEngine: TypeAlias = SqliteEngine | MemoryEngine | NatsEngine
Answering: TypeAlias = Callable[[Work], Awaitable[Settlement]]
AGENTS: Mapping[str, Policy] = {"a": Policy(), "b": Policy(), "c": Policy()}


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.wall = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self.steady = 1000.0
        self._order = itertools.count()
        self._sleepers: dict[int, tuple[float, asyncio.Future[None]]] = {}

    def now(self) -> dt.datetime:
        return self.wall

    def unix(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        return self.steady

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        number = next(self._order)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers[number] = (self.steady + seconds, future)
        try:
            await future
        finally:
            del self._sleepers[number]

    def advance(self, seconds: float) -> None:
        self.wall += dt.timedelta(seconds=seconds)
        self.steady += seconds
        for due, future in self._sleepers.values():
            if due <= self.steady and not future.done():
                future.set_result(None)


async def done(work: Work) -> Settlement:
    return Done(f"answer to {work.delivery.message.text}")


def to(work: Work, *agents: str, dead: str | None = None) -> tuple[Delivery, ...]:
    """Successors of a delivery, one for each agent."""
    delivery = work.delivery
    return tuple(
        Delivery(
            f"{delivery.id}/{agent}",
            delivery.event_id,
            agent,
            Message.assistant(f"from {delivery.agent}", name=delivery.agent),
            delivery.hops + 1,
            dead,
            delivery.order_key,
            priority=delivery.priority,
        )
        for agent in agents
    )


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Return once `condition` holds."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.002)


class World:
    """An engine and everything around it."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        clock: Clock = SYSTEM_CLOCK,
        *,
        lease_s: float = 15,
        url: str = "",
        replicas: int = 1,
    ) -> None:
        """`url` is a server other than that of all tests, or several with commas between them."""
        # A name of its own for each folder: tests share a server, but not their events.
        self.name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        self.engine: AnyEngine
        if kind == "sqlite":
            self.engine = SqliteEngine(SqliteEngineConfig(path="state/pool.db"), folder, clock)
        elif kind == "nats":
            servers = tuple((url or nats_url()).split(","))
            config = NatsEngineConfig(servers=servers, name=self.name, lease_s=lease_s, replicas=replicas)
            self.engine = NatsEngine(config, folder, clock)
        else:
            self.engine = MemoryEngine(MemoryEngineConfig(), folder, clock)
        self.answers: dict[str, Answering] = {}
        self.started: list[tuple[str, int]] = []
        self.settled: list[EventRecord] = []

    async def run(self, work: Work) -> Settlement:
        self.started.append((work.delivery.id, work.attempt))
        return await self.answers.get(work.delivery.agent, done)(work)

    async def start(
        self,
        policies: Mapping[str, Policy] = AGENTS,
        *,
        concurrency: int = 100,
        max_messages: int = 200,
        waiting: Callable[[EventRecord], None] | None = None,
    ) -> None:
        await self.engine.start(
            self.run,
            policies,
            concurrency=concurrency,
            max_messages_per_event=max_messages,
            settled=self.settled.append,
            waiting=waiting,
        )

    async def accept(
        self,
        agent: str = "a",
        *,
        text: str = "hello",
        key: str | None = None,
        keep_key_s: float | None = None,
        event: Event | None = None,
        dead: str | None = None,
        trigger: str = "inbox",
        order_key: str | None = None,
        overlap: Overlap = "queue",
        priority: int = 0,
    ) -> Receipt:
        event = event or Event(trigger, "dev.llmling.test", data=text)
        delivery = Delivery(
            f"{event.id}/{agent}",
            event.id,
            agent,
            Message.user(text),
            dead=dead,
            order_key=order_key,
            overlap=overlap,
            priority=priority,
        )
        return await self.engine.accept(event, delivery, trigger=trigger, agent=agent, key=key, keep_key_s=keep_key_s)

    async def record(self, event_id: str) -> EventRecord:
        record = await self.engine.inspect(event_id)
        assert record is not None
        return record

    async def record_when(self, event_id: str, condition: Callable[[EventRecord], bool]) -> EventRecord:
        """Return the record once `condition` holds for it."""
        end = time.monotonic() + 30
        while not condition(record := await self.record(event_id)):
            assert time.monotonic() < end, record
            await asyncio.sleep(0.002)
        return record

    async def forgotten(self, event_id: str) -> None:
        """Return once the event is not known any more."""
        end = time.monotonic() + 30
        while await self.engine.inspect(event_id) is not None:
            assert time.monotonic() < end, "it is still there"
            await asyncio.sleep(0.002)

    async def finished(self, event_id: str) -> EventRecord:
        record = await self.engine.wait(event_id, 30)
        assert record is not None, await self.engine.inspect(event_id)
        return record


class Gate:
    """An agent that answers when it is let: deliveries wait inside it."""

    def __init__(self, settlement: Answering = done) -> None:
        self.inside: list[Work] = []
        self.most = 0
        self.open = asyncio.Event()
        self._settlement = settlement

    async def __call__(self, work: Work) -> Settlement:
        self.inside.append(work)
        self.most = max(self.most, len(self.inside))
        try:
            await self.open.wait()
            return await self._settlement(work)
        finally:
            self.inside.remove(work)
