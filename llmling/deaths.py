"""Dead events to sinks that want them (`on: dead`): each at least once, also when the process dies in between."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Self

from llmling.errors import EngineError, SinkError
from llmling.messages import Message
from llmling.protocols import Answer, Engine, EventRecord, Sink
from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.node import Node
from llmling.runtime.supervise import Backoff
from llmling.runtime.tasks import TaskSet
from llmling.server.health import event_page
from llmling.server.metrics import Sample

TRIES = 12
MARKS = "dead sinks"
SINCE = "dead sinks since"
_BACKOFF = Backoff(first_s=1.0, max_s=300.0)

logger = logging.getLogger("llmling")


class Deaths:
    """Sends the dead events of an engine to the dead sinks of the agents they belong to or died at.

    That an event is dead is on disk before anybody hears of it; that a sink has been told is written down afterwards,
    in the engine's store, and what is not written down is told at the next start. A sink that is added later hears of
    what dies from then on.
    """

    def __init__(
        self, nodes: Mapping[str, Node] | None = None, engine: Engine | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Without an engine there are no events, and nothing dies."""
        self._tasks = TaskSet()
        self._nodes = nodes or {}
        self._engine = engine
        self._clock = clock
        self._mourners = self._all()

    def _all(self) -> list[Mourner]:
        return [
            Mourner(f"{name}.{index}", name, sink, self._engine, self._clock)
            for name, node in self._nodes.items()
            for index, sink in enumerate(node.dead_sinks)
            if self._engine is not None
        ]

    async def __aenter__(self) -> Self:
        for mourner in self._mourners:
            self._tasks.spawn(mourner.run(), name=f"dead sink {mourner.key}")
        return self

    async def become(self) -> None:
        """Send to the sinks that the nodes have now; what has not been sent yet is found in the engine."""
        await self._tasks.cancel()
        told = {mourner.key: mourner.told for mourner in self._mourners}
        self._mourners = self._all()
        for mourner in self._mourners:
            mourner.told.update(told.get(mourner.key, {}))
        await self.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.cancel()

    def heard(self, record: EventRecord) -> None:
        """Take an event that has settled."""
        if record.status == "dead":
            for mourner in self._mourners:
                mourner.queue.put_nowait(record.id)

    def samples(self) -> Iterator[Sample]:
        """Yield what `/metrics` shows."""
        for mourner in self._mourners:
            for outcome, count in mourner.told.items():
                labels = {"sink": mourner.key, "outcome": outcome}
                yield Sample("llmling_dead_sink_total", count, labels, "counter", "Dead events sent, or given up.")


class Mourner:
    """One dead sink: it hears of one event after the other, and waits for a sink that is down."""

    def __init__(self, key: str, agent: str, sink: Sink, engine: Engine, clock: Clock) -> None:
        self.key = key
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.told: Counter[str] = Counter()
        self._agent = agent
        self._sink = sink
        self._engine = engine
        self._clock = clock
        self._marks = f"{MARKS} {key}"

    async def run(self) -> None:
        """Tell what an earlier process left untold, then what is heard, until cancelled."""
        await self._once_writable(self._catch_up)
        while True:
            event_id = await self.queue.get()
            await self._once_writable(functools.partial(self._tell, event_id))

    async def _once_writable(self, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await work()
            except EngineError as error:
                failures += 1
                logger.warning("dead sink %s has to wait for the engine: %s", self.key, error)
                await self._clock.sleep(_BACKOFF.pause_s(failures, was_ready=False))
            else:
                return

    async def _catch_up(self) -> None:
        store, now = self._engine.store, self._clock.unix()
        since = await store.get(SINCE, self.key)
        if since is None:
            await store.put(SINCE, {self.key: now})
            return
        marks = await store.items(self._marks)
        dead = [record async for record in self._engine.runs(status="dead", limit=None)]
        for record in reversed(dead):
            if (record.finished or now) >= since and marks.get(record.id, [None])[0] != record.finished:
                self.queue.put_nowait(record.id)
        await store.remove(self._marks, sorted(marks.keys() - {record.id for record in dead}))

    async def _tell(self, event_id: str) -> None:
        record = await self._engine.inspect(event_id)
        if record is None or record.status != "dead" or not self._concerns(record):
            return
        store = self._engine.store
        mark = await store.get(self._marks, event_id)
        if mark is not None and mark[0] == record.finished:
            return
        error = await self._send(record)
        await store.put(self._marks, {event_id: [record.finished, error]})
        self.told["sent" if error is None else "given up"] += 1

    def _concerns(self, record: EventRecord) -> bool:
        died_at = {delivery.agent for delivery in record.deliveries if delivery.status == "dead"}
        return self._agent in {record.agent, *died_at}

    async def _send(self, record: EventRecord) -> str | None:
        """Return None once it was taken, or why it never will be."""
        content = {**event_page(record), "event": record.event.to_dict()}
        text = json.dumps(content, ensure_ascii=False)
        answer = Answer(text, content, Message.user(text), record.event, record.agent, record.id)
        for tries in range(1, TRIES + 1):
            try:
                await self._sink.send(answer)
            except Exception as error:  # noqa: BLE001 - the border to sinks, also of other packages
                why = str(error) if isinstance(error, SinkError) else f"{type(error).__name__}: {error}"
                if tries == TRIES or (isinstance(error, SinkError) and not error.retryable):
                    logger.error("dead event %s is not sent to %s, given up: %s", record.id, self._sink.name, why)
                    return why
                pause_s = _BACKOFF.pause_s(tries, was_ready=False)
                logger.warning(
                    "dead event %s is not at %s yet: %s; next try in %.1f s", record.id, self._sink.name, why, pause_s
                )
                await self._clock.sleep(pause_s)
            else:
                break
        return None
