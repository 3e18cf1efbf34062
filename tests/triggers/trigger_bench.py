"""Triggers at work over a real engine, and a record of every event that was new."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmling.engines.sqlite import SqliteEngine
from llmling.errors import Full
from llmling.events import Event
from llmling.manifest.pool import SqliteEngineConfig
from llmling.manifest.triggers import FileTriggerConfig, ScheduleTriggerConfig
from llmling.messages import Message
from llmling.protocols import Dead, Delivery, Done, EventRecord, Policy, Receipt, Settlement, Trigger, Work
from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.services import Services
from llmling.testing import until
from llmling.triggers.file import FileTrigger
from llmling.triggers.schedule import ScheduleTrigger


@dataclass
class Bench:
    """One folder and the triggers that are started over it; every `running` is a start of the process.

    `dead` maps a subject to the reason its delivery fails for; deliveries run only while `gate` is set; the next
    `refusals` emits find the engine full, for `refused_s` each.
    """

    folder: Path
    clock: Clock = SYSTEM_CLOCK
    events: list[Event] = field(default_factory=list[Event])
    dead: dict[str, str] = field(default_factory=dict[str, str])
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: int = 0
    refused_s: float = 0.02
    _engine: SqliteEngine | None = None
    _triggers: dict[str, Trigger] = field(default_factory=dict[str, Trigger])

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def engine(self) -> SqliteEngine:
        """The engine that runs."""
        assert self._engine is not None
        return self._engine

    @property
    def subjects(self) -> list[str]:
        """What the events are about."""
        return [event.subject for event in self.events]

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What happened to which file."""
        return [(event.type.rpartition(".")[2], event.subject) for event in self.events]

    async def expect(self, *subjects: str, timeout_s: float = 10.0) -> None:
        """Wait until exactly these files have had their events, in any order."""
        await until(lambda: len(self.events) >= len(subjects), timeout_s=timeout_s)
        assert sorted(self.subjects) == sorted(subjects)

    async def stored(self, space: str, part: str) -> None:
        """Wait until a space of the store holds `part`, in a key or a value."""
        async with asyncio.timeout(10):
            while part not in str(await self.engine.store.items(space)):  # noqa: ASYNC110 - a store tells nobody
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[SqliteEngine]:
        """Run the engine, unless it runs already."""
        if self._engine is not None:
            yield self._engine
            return
        engine = SqliteEngine(SqliteEngineConfig(), self.folder)
        await engine.open()
        async with asyncio.TaskGroup() as tasks:

            def settled(record: EventRecord) -> None:
                trigger = self._triggers.get(record.trigger)
                work = None if trigger is None else trigger.settled(record.event, record.status, record.error)
                if work is not None:
                    tasks.create_task(work)

            await engine.start(self._run, {"agent": Policy(concurrency=50, inbox_size=100_000)}, settled=settled)
            self._engine = engine
            try:
                yield engine
            finally:
                self._engine = None
                await engine.stop(0)

    @contextlib.asynccontextmanager
    async def running(self, *paths: str, name: str = "watch", **keys: Any) -> AsyncGenerator[FileTrigger]:
        """Run a file trigger, armed on entry."""
        config = FileTriggerConfig.model_validate(
            {"name": name, "paths": list(paths), "settle_s": 0.05, "poll_s": 30, **keys}
        )
        async with self.serving() as engine:
            trigger = FileTrigger(config, Services(folder=self.folder, engine=engine), "agent")
            async with self._armed(trigger):
                yield trigger

    @contextlib.asynccontextmanager
    async def ticking(self, **keys: Any) -> AsyncGenerator[ScheduleTrigger]:
        """Run a schedule trigger, armed on entry."""
        config = ScheduleTriggerConfig.model_validate({"name": "tick", "prompt": "go", **keys})
        async with self.serving() as engine:
            services = Services(folder=self.folder, engine=engine, clock=self.clock)
            trigger = ScheduleTrigger(config, services, "agent")
            async with self._armed(trigger):
                yield trigger

    @contextlib.asynccontextmanager
    async def _armed(self, trigger: Trigger) -> AsyncGenerator[None]:
        armed = asyncio.Event()
        self._triggers[trigger.name] = trigger
        work = asyncio.create_task(trigger.run(self.emit, armed.set))
        arming = asyncio.create_task(armed.wait())
        try:
            await asyncio.wait((work, arming), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            yield
        finally:
            arming.cancel()
            work.cancel()
            await asyncio.wait((work, arming))
            del self._triggers[trigger.name]
            if not work.cancelled():
                work.result()

    async def emit(
        self, event: Event, *, key: str | None = None, keep_key_s: float | None = None, dead: str | None = None
    ) -> Receipt:
        """Hand an event to the engine, with a delivery of its own."""
        if self.refusals > 0:
            self.refusals -= 1
            raise Full("inbox is full", retry_after_s=self.refused_s)
        delivery = None
        if dead is None:
            delivery = Delivery(f"{event.id}/agent", event.id, "agent", Message.user(event.subject))
        receipt = await self.engine.accept(
            event, delivery, trigger=event.source, agent="agent", key=key, keep_key_s=keep_key_s, dead=dead
        )
        if receipt.new:
            self.events.append(event)
        return receipt

    async def _run(self, work: Work) -> Settlement:
        await self.gate.wait()
        reason = self.dead.get(work.event.subject)
        return Done(work.event.subject) if reason is None else Dead(reason)
