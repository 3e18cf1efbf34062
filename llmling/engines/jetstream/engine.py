"""The engine for several machines: every process that serves the same manifest shares its work through NATS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive, key_of
from llmling.engines.jetstream.book import Book
from llmling.engines.jetstream.dispatch import Dispatcher
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.hosts import Hosts
from llmling.engines.jetstream.intake import Intake
from llmling.engines.jetstream.link import REQUEST_S, Link
from llmling.engines.jetstream.operator import Operator
from llmling.engines.jetstream.reading import Reader
from llmling.engines.jetstream.rooms import Rooms
from llmling.engines.jetstream.settle import Settler
from llmling.engines.jetstream.store import BookStore
from llmling.engines.jetstream.upkeep import Upkeep
from llmling.engines.jetstream.watch import Watch, watched
from llmling.engines.steady import SteadyTime
from llmling.errors import EngineError, Full
from llmling.events import Event, new_id
from llmling.manifest.pool import NatsEngineConfig
from llmling.protocols import (
    Decision,
    Delivery,
    EventRecord,
    EventStatus,
    Host,
    Outcome,
    Policy,
    Receipt,
    RunDelivery,
    Settled,
    Store,
)
from llmling.records import gone
from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.tasks import TaskSet

log = logging.getLogger("llmling.engine")
_DAY_S = 86_400
_LOOK_S = 5.0
_CANCEL_AGAIN_S = 0.5
_NOT_WRITABLE_S = 5.0
_MOST_MESSAGES = 2000
"""Beyond so many deliveries the record of an event would not fit into a message."""


class NatsEngine:
    """Keeps events in NATS JetStream; any number of processes serve them, on any machine that reaches the servers."""

    def __init__(self, config: NatsEngineConfig, folder: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        """`folder` is what every engine gets; nothing of it is needed here."""
        self._config = config
        self._clock = clock
        self._time = SteadyTime(clock)
        self._host = new_id()
        self._link = Link(config.servers)
        self._book = Book(self._link, config.name, config.replicas)
        self._store = BookStore(self._opened)
        self._tasks = TaskSet()
        self._accepting = TaskSet()
        self._archive = Archive(self._book)
        self._hearing = Hearing(self._archive, self._host, self._tasks)
        self._rooms = Rooms(self._archive, self._drop_oldest)
        self._watch = Watch(self._archive, self._hearing, self._time.wall)
        self._operator = Operator(self._archive, self._hearing, self._watch, self._time, self._rooms.knows)
        self._intake = Intake(self._archive, self._hearing, self._rooms, self._watch)
        self._hosts = Hosts(self._book, self._host, config.lease_s, self._time.wall)
        self._reader = Reader(self._archive, self._hearing, self._hosts, self._store, self._time)
        self._dispatcher: Dispatcher | None = None
        self._upkeep: Upkeep | None = None
        self._open = self._started = self._stopping = False
        self._others_serve = False
        self._leave = asyncio.Event()

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The small facts that live beside the events."""
        return self._store

    @property
    def fault(self) -> str | None:
        """Why NATS cannot be reached right now, None when it can."""
        return self._link.fault

    @property
    def loaded(self) -> int:
        """How many deliveries are held in memory; the rest is in NATS until it is their turn."""
        return 0 if self._dispatcher is None else self._dispatcher.loaded

    @property
    def shared(self) -> bool:
        """That several processes serve these events: what only one may do, it does in its turn."""
        return True

    @property
    def serving(self) -> bool:
        """Whether any process serves these events, as far as this one has heard."""
        return self._started or self._others_serve

    async def open(self) -> None:
        """Connect, and make what is not there yet.

        Raises:
            EngineError: No server answers or it refuses, the package is missing, or this engine was stopped.
        """
        if self._stopping:
            raise EngineError("the engine is stopped; make a new one")
        if self._open:
            return
        try:
            await self._link.open()
            await self._book.prepare()
            await self._hearing.open()
        except BaseException:
            await self._link.close()
            raise
        self._open = True
        self._others_serve = await self._hearing.anybody()

    async def start(
        self,
        run_delivery: RunDelivery,
        policies: Mapping[str, Policy],
        *,
        concurrency: int = 100,
        max_messages_per_event: int = 200,
        settled: Settled | None = None,
        waiting: Settled | None = None,
    ) -> None:
        """Take deliveries from now on; `settled` hears, on the loop, of every event that becomes done or dead.

        It hears of those that were accepted in this process, and of those whose process is gone. `waiting` hears of
        events that from now on wait for a person because of a run in this process.

        Raises:
            EngineError: NATS cannot be reached, or the engine was started already.
        """
        self._opened()
        if self._dispatcher is not None:
            raise EngineError("the engine has been started already")
        lease_s = self._config.lease_s
        settler = Settler(self._archive, self._hearing, self._rooms, self._time, self._host, self._tasks)
        dispatcher = Dispatcher(
            self._archive, self._hearing, self._rooms, settler, self._time, self._hosts, lease_s, self._tasks
        )
        self._dispatcher = dispatcher

        async def heard(news: Doc) -> None:
            dispatcher.stop_runs(news["stopped"])
            settler.queue_later(news["id"], news["deliveries"])

        hears = dispatcher.runs, heard, dispatcher.stop_runs, dispatcher.places, dispatcher.take
        await self._hearing.serve(settled, waiting, *hears)
        most = min(max_messages_per_event, _MOST_MESSAGES)
        await dispatcher.start(run_delivery, dict(policies), concurrency, most)
        self._started = True
        keep_s = self._config.keep_days * _DAY_S
        upkeep = Upkeep(
            self._archive, self._hearing, self._watch, settler, self._operator, self._rooms, self._clock, keep_s
        )
        self._upkeep = upkeep
        self._tasks.spawn(upkeep.run(), name="upkeep of events")
        self._tasks.spawn(self._hosts.run(), name="presence of this process")

    async def update(
        self, policies: Mapping[str, Policy], *, concurrency: int = 100, max_messages_per_event: int = 200
    ) -> None:
        """Take deliveries by these rules from now on; what waits for an agent that is gone is dead, what runs goes on.

        The last process to change the rules decides how many deliveries of an agent run at once in all of them.

        Raises:
            EngineError: It has not been started, or NATS cannot be reached; the rules hold all the same.
        """
        if self._dispatcher is None or self._upkeep is None:
            raise EngineError("the engine has not been started")
        self._upkeep.look_soon()
        await self._dispatcher.update(dict(policies), concurrency, min(max_messages_per_event, _MOST_MESSAGES))

    async def stop(self, grace_s: float) -> int:
        """Take nothing more, give running deliveries `grace_s` seconds, cancel the rest and disconnect.

        Returns how many were cut off; they go to another process, or run at the next start, and this does not count
        as a try. A second call does nothing. Cancelling it cuts the grace short.
        """
        if self._stopping:
            return 0
        self._stopping = True
        cut = 0
        try:
            if self._dispatcher is not None:
                cut = await self._dispatcher.stop(grace_s)
        finally:
            self._leave.set()
            if self._started:
                await self._hosts.leave()
            await self._hearing.close()
            with contextlib.suppress(TimeoutError):
                # Who sends an event must hear what came of it.
                async with asyncio.timeout(REQUEST_S):
                    await self._accepting.finish()
            await _end(self._accepting)
            await _end(self._tasks)
            await self._link.close()
        return cut

    # --- events in ---------------------------------------------------------------------------------------------------

    async def accept(
        self,
        event: Event,
        delivery: Delivery | None,
        *,
        trigger: str,
        agent: str,
        key: str | None = None,
        keep_key_s: float | None = None,
        outcome: Outcome | None = None,
        dead: str | None = None,
    ) -> Receipt:
        """Commit an event and its first delivery; durable on return. Cancelling the wait does not undo it.

        Raises:
            Full: The inbox is full, or NATS cannot be reached.
            TypeError: The event holds what JSON cannot.
        """
        now, host = self._clock.unix(), self._host if self._started else None
        name = None if key is None else key_of(trigger, key)
        doc = events.new_doc(event, trigger, agent, now=now, outcome=outcome, key=name, host=host)
        doc["mark"] = new_id()
        if delivery is None:
            events.finish(doc, "done" if dead is None else "dead", dead, now)
        else:
            reason = delivery.dead
            if reason is None and not self._rooms.knows(delivery.agent):
                reason = gone(delivery.agent)
            events.add(doc, delivery, now, reason)
            watched(doc, trigger, delivery)
            events.refresh(doc, now)
        expires = None if keep_key_s is None else now + keep_key_s
        try:
            self._opened()
        except EngineError as error:
            raise Full(str(error), retry_after_s=_NOT_WRITABLE_S) from error
        # A task of its own, so that cancelling the wait leaves nothing half done.
        accepting = self._accepting.spawn(self._accepted(doc, expires, now), name=f"accept of {event.id}")
        accepted = await asyncio.shield(accepting)
        if isinstance(accepted, Full):
            raise accepted
        if isinstance(accepted, EngineError):
            raise Full(str(accepted), retry_after_s=_NOT_WRITABLE_S) from accepted
        return accepted

    async def _accepted(self, doc: Doc, expires: float | None, now: float) -> Receipt | EngineError:
        # Returned, not raised: whoever asked may not wait any more, and a refusal is no failure of a task.
        try:
            return await self._intake.accept(doc, expires, now)
        except EngineError as error:
            return error

    async def known(self, trigger: str, keys: Sequence[str]) -> dict[str, Receipt]:
        """Return the receipts of those keys that are known."""
        self._opened()
        return await self._intake.known(trigger, keys, self._clock.unix())

    async def _drop_oldest(self, event_id: str, delivery_id: str, reason: str) -> int:
        return await self._operator.settle(event_id, delivery_id, reason)

    # --- what happened -----------------------------------------------------------------------------------------------

    async def runs(
        self, *, status: EventStatus | None = None, trigger: str | None = None, limit: int | None = 100
    ) -> AsyncIterator[EventRecord]:
        """Yield events, newest first, without their deliveries."""
        self._opened()
        async with aclosing(self._reader.runs(status, trigger, limit)) as records:
            async for record in records:
                yield record

    async def inspect(self, event_id: str) -> EventRecord | None:
        """Return one event with its deliveries and their steps, first delivery first."""
        self._opened()
        return await self._reader.inspect(event_id)

    async def counts(self) -> dict[str, int]:
        """Return how many events there are by status; a status nobody has is left out."""
        self._opened()
        return await self._reader.counts()

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All processes that serve these events, as far as this one, when it serves, has seen lately."""
        return self._hosts.known

    async def wait(self, event_id: str, timeout_s: float | None = None) -> EventRecord | None:
        """Return the event once it is done or dead, or None after `timeout_s`, when unknown and when stopped."""
        return await self._wait_for(event_id, timeout_s, lambda doc: doc["status"] in events.OVER)

    async def wait_answer(self, event_id: str, timeout_s: float | None = None) -> EventRecord | None:
        """Return the event once its first delivery is settled, whatever its successors do; None after `timeout_s`.

        An event that is done or dead returns at once, an unknown one is None at once.
        """
        return await self._wait_for(
            event_id,
            timeout_s,
            lambda doc: (
                doc["status"] in events.OVER
                or bool(doc["deliveries"] and doc["deliveries"][0]["status"] in events.OVER)
            ),
        )

    async def _wait_for(
        self, event_id: str, timeout_s: float | None, over: Callable[[Doc], bool]
    ) -> EventRecord | None:
        self._opened()
        try:
            async with asyncio.timeout(timeout_s):
                with self._hearing.listen(event_id) as changed:
                    while True:
                        changed.clear()
                        found = await self._link.patiently(lambda: self._archive.find(event_id))
                        if found is None:
                            return None
                        if over(found.value):
                            return await self._archive.record(found)
                        if self._leave.is_set():
                            return None
                        # News may get lost while NATS restarts.
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LOOK_S):
                                await changed.wait()
        except TimeoutError:
            if not self._started:
                self._others_serve = await self._hearing.anybody()
        except EngineError:
            if not self._leave.is_set():
                raise
        return None

    # --- what an operator does ---------------------------------------------------------------------------------------

    async def retry(self, event_id: str) -> int:
        """Give the dead and waiting deliveries of an event their tries back, hasten delayed ones; return how many.

        Raises:
            EngineError: NATS cannot be reached.
        """
        self._opened()
        return await self._operator.retry(event_id)

    async def drop(self, event_id: str) -> int:
        """Settle the open deliveries of an event as dead, running ones too, or forget an event that is settled.

        Returns how many deliveries were settled, 1 for a forgotten event, 0 for an unknown one.

        Raises:
            EngineError: NATS cannot be reached.
        """
        self._opened()
        return await self._operator.drop(event_id)

    async def decide(self, event_id: str, decision: Decision, *, seen: Collection[str] | None = None) -> int:
        """Settle what the first waiting delivery asks that such a decision answers; return how many asks that were.

        Raises:
            EngineError: NATS cannot be reached.
        """
        self._opened()
        return await self._operator.decide(event_id, decision, seen)

    def _opened(self) -> Book:
        if self._link.closed:
            raise EngineError("the engine is stopped")
        if not self._open:
            raise EngineError("the engine is not open")
        return self._book


async def _end(tasks: TaskSet) -> None:
    while True:
        try:
            async with asyncio.timeout(_CANCEL_AGAIN_S):
                return await tasks.cancel()
        except TimeoutError:
            # `wait_for` of Python 3.11, which the client uses, swallows a cancellation that comes with its result.
            continue
