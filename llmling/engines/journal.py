"""What all engines that keep a journal in SQL share: the whole `Engine` but where the journal lives."""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from llmling.engines import operator, queries, records, upkeep
from llmling.engines.batches import Batches
from llmling.engines.database import Database
from llmling.engines.dispatch import Dispatcher
from llmling.engines.ledger import Accepted, Ledger
from llmling.engines.places import Kept
from llmling.engines.reading import Reading
from llmling.engines.records import Arrival, Change, Origin, Row
from llmling.engines.retention import Retention
from llmling.engines.steady import SteadyTime
from llmling.engines.store import EngineStore
from llmling.engines.transaction import OneOfMany
from llmling.engines.writer import NotWritable
from llmling.errors import EngineError, Full
from llmling.events import Event
from llmling.protocols import (
    Decision,
    Delivery,
    Host,
    Outcome,
    Policy,
    Receipt,
    RunDelivery,
    Settled,
    Store,
)
from llmling.runtime.clock import Clock
from llmling.written import event_text

log = logging.getLogger("llmling.engine")
_NOT_WRITABLE_S = 5.0
_STOPPED_S = 5.0
_GIVE_UP_S = 5.0


class JournalEngine(Reading, ABC):
    """An engine over a database; subclasses say which, who may serve it, and what is kept."""

    def __init__(self, retention: Retention, clock: Clock) -> None:
        super().__init__(clock)
        self._retention = retention
        self._store = EngineStore(self._opened)
        self._ledger = Ledger()
        self._batches = Batches(self._ledger)
        self._dispatcher: Dispatcher | None = None
        self._owner: asyncio.Task[None] | None = None
        self._foreign_writes = asyncio.Event()
        self._stopping = False

    # --- what a subclass decides -------------------------------------------------------------------------------------

    @abstractmethod
    def _make_database(self) -> Database:
        """Return the database, not opened yet."""

    @abstractmethod
    async def _claim(self) -> None:
        """Make sure that nobody else serves this journal.

        Raises:
            EngineBusy: Somebody does.
        """

    @abstractmethod
    def _unclaim(self) -> None:
        """Let somebody else serve this journal."""

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The small facts that live beside the events."""
        return self._store

    @property
    def fault(self) -> str | None:
        """Why the file could not be written the last time, None when it could."""
        return None if self._database is None else self._database.writer.fault

    @property
    def hosts(self) -> Sequence[Host]:
        """Nothing: one process serves a file."""
        return ()

    @property
    def loaded(self) -> int:
        """How many deliveries are held in memory; the rest is on disk until it is their turn."""
        return 0 if self._dispatcher is None else self._dispatcher.loaded

    @property
    def serving(self) -> bool:
        """Whether any process serves this journal right now."""
        return self._dispatcher is not None

    @property
    def shared(self) -> bool:
        """One process serves a journal at a time."""
        return False

    async def open(self) -> None:
        """Open the journal for this process.

        Raises:
            EngineError: It is damaged, of a newer release or not writable, or this engine was stopped.
        """
        if self._stopping:
            raise EngineError("the engine is stopped; make a new one")
        if self._database is None:
            database = self._make_database()
            await database.open()
            self._database = database

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
        """Hand out deliveries from now on; `settled` hears, on the loop, of every event that becomes done or dead.

        `waiting` hears of every event that from now on waits for a person.

        Raises:
            EngineBusy: Another process serves this journal.
            EngineError: The journal is damaged or cannot be written.
        """
        database = self._opened()
        if self._dispatcher is not None:
            raise EngineError("the engine has been started already")
        try:
            await self._claim()
            self._ledger.serve(dict(policies), max_messages_per_event, heard=settled is not None)
            time = SteadyTime(self._clock)
            recover = functools.partial(upkeep.recover, ledger=self._ledger, concurrency=concurrency, now=time.wall())
            await database.writer.submit(recover)
            self._hearing.serve(database.writer, settled, waiting)
            dispatcher = Dispatcher(database, self._batches, time, run_delivery, policies, concurrency, self._apply)
            started = asyncio.Event()
            self._dispatcher = dispatcher
            self._owner = asyncio.create_task(self._own(dispatcher, started), name="llmling-engine")
            await started.wait()
        except BaseException:
            # Who has begun to hand out keeps the claim until `stop`.
            if self._owner is None:
                self._unclaim()
            raise

    async def update(
        self, policies: Mapping[str, Policy], *, concurrency: int = 100, max_messages_per_event: int = 200
    ) -> None:
        """Hand out by these rules from now on; what waits for an agent that is gone is dead, what runs goes on.

        Raises:
            EngineError: It has not been started, or the journal cannot be written; the rules hold all the same.
        """
        if self._dispatcher is None:
            raise EngineError("the engine has not been started")
        self._dispatcher.update(policies, concurrency)
        self._ledger.update(dict(policies), max_messages_per_event)
        await self._write(functools.partial(upkeep.rules, concurrency=concurrency, policies=policies))
        await self._bury()

    async def stop(self, grace_s: float) -> int:
        """Hand out nothing more, give running deliveries `grace_s` seconds, cancel the rest and close.

        Returns how many were cut off; they run again at the next start, and this does not count as a try. A second
        call does nothing. Cancelling it cuts the grace short.
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
            self._hearing.wake_all()
            if self._owner is not None:
                await asyncio.wait([self._owner])
                _report(self._owner)
            self._hearing.flush()
            if self._database is not None:
                await self._database.close(_GIVE_UP_S)
            self._unclaim()
        return cut

    async def _own(self, dispatcher: Dispatcher, started: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    dispatcher.start(group)
                    dispatcher.spawn(functools.partial(self._watch, dispatcher))
                    dispatcher.spawn(self._retain)
                    started.set()
                    await self._leave.wait()
                except asyncio.CancelledError:
                    dispatcher.cut()
                    raise
        finally:
            started.set()
            await dispatcher.end()

    async def _retain(self) -> None:
        while True:
            try:
                await self._retention.apply(self._opened(), self._clock.unix())
            except EngineError as error:
                log.error("old events could not be deleted, trying again later: %s", error)
            await self._clock.sleep(self._retention.every_s)

    async def _watch(self, dispatcher: Dispatcher) -> None:
        """Pick up what other processes have written, at the start and whenever they write."""
        database = self._opened()
        while True:
            self._foreign_writes.clear()
            try:
                await self._bury()
                running = dispatcher.running
                dispatcher.cancel(await database.read(functools.partial(queries.not_running, delivery_ids=running)))
                await self._hearing.catch_up()
            except EngineError as error:
                log.error("what other processes wrote could not be read: %s", error)
            await self._foreign_writes.wait()
            dispatcher.reload()

    async def _bury(self) -> None:
        bury = functools.partial(upkeep.bury, ledger=self._ledger, now=self._clock.unix())
        while (await self._write(bury)).count >= upkeep.CHUNK:
            pass

    def _foreign(self) -> None:
        self._foreign_writes.set()
        self._hearing.wake_all()

    # --- events in ---------------------------------------------------------------------------------------------------

    def accept(
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
    ) -> asyncio.Future[Receipt]:
        """Commit an event and its first delivery; durable when the future is done. Cancelling it does not undo it.

        Raises:
            Full: From the future: the inbox is full, or the journal cannot be written.
            TypeError: From the call: the event holds what JSON cannot.
        """
        now = self._clock.unix()
        deliveries = () if delivery is None else (delivery,)
        data, new = event_text(event), None if delivery is None else records.new_delivery(delivery)
        key_, dead_ = None if key is None else records.stored(key), None if dead is None else records.stored(dead)
        kept = None if self._dispatcher is None else self._dispatcher.keep(deliveries)
        origin = Origin(event, trigger, agent, now)
        expires, begins = None if keep_key_s is None else now + keep_key_s, kept is not None and bool(kept.places)
        arrival = Arrival(event, data, trigger, agent, new, key_, expires, outcome, dead_, now, begins)
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def committed(accepted: Accepted) -> None:
            # Who waits goes on before what begins now: a sender hears that its event was taken, then it runs.
            if not receipt.done():
                if accepted.receipt is not None:
                    receipt.set_result(accepted.receipt)
                else:
                    receipt.set_exception(self._no_room(agent, accepted.pending))
            self._apply(accepted.change, origin, deliveries, kept)

        def failed(error: BaseException) -> None:
            if kept is not None and self._dispatcher is not None:
                self._dispatcher.free(kept)
            if not receipt.done():
                receipt.set_exception(_full(error) if isinstance(error, EngineError) else error)

        try:
            self._opened().writer.post(
                OneOfMany(self._batches.accept, arrival), patient=False, committed=committed, failed=failed
            )
        except EngineError as error:
            failed(error)
        return receipt

    def _no_room(self, agent: str, pending: int) -> Full:
        policy = (self._ledger.policies or {}).get(agent) or Policy()
        return Full(
            f"the inbox of agent {agent!r} is full: {pending} wait (inbox.size {policy.inbox_size}, "
            f"overflow: {policy.overflow})",
            retry_after_s=1.0 if self._dispatcher is None else self._dispatcher.room_in_s(agent),
        )

    # --- what an operator does ---------------------------------------------------------------------------------------

    async def retry(self, event_id: str) -> int:
        """Give the dead and waiting deliveries of an event their tries back, hasten delayed ones; return how many.

        Raises:
            EngineError: The journal cannot be written.
        """
        return await self._operate(functools.partial(operator.retry, event_id=event_id))

    async def drop(self, event_id: str) -> int:
        """Settle the open deliveries of an event as dead, running ones too, or forget an event that is settled.

        Returns how many deliveries were settled, 1 for a forgotten event, 0 for an unknown one.

        Raises:
            EngineError: The journal cannot be written.
        """
        return await self._operate(functools.partial(operator.drop, event_id=event_id))

    async def decide(self, event_id: str, decision: Decision, *, seen: Collection[str] | None = None) -> int:
        """Settle what the first waiting delivery asks that such a decision answers; return how many asks that were.

        Raises:
            EngineError: The journal cannot be written.
        """
        return await self._operate(functools.partial(operator.decide, event_id=event_id, decision=decision, seen=seen))

    async def _operate(self, operation: Callable[..., Change]) -> int:
        now = self._clock.unix()
        return (await self._write(functools.partial(operation, ledger=self._ledger, now=now))).count

    # --- after a commit ----------------------------------------------------------------------------------------------

    def _write(self, operation: Callable[[sqlite3.Connection], Change]) -> Awaitable[Change]:
        return self._opened().writer.submit(operation, committed=self._apply)

    def _apply(
        self,
        change: Change,
        origin: Origin | None = None,
        deliveries: Sequence[Delivery] = (),
        kept: Kept | None = None,
    ) -> None:
        """Let those in memory know; `deliveries` of the event of `origin` are those the change may have made pending.

        Some of them have begun, in places that were `kept` for them; the others wait for theirs.
        """
        dispatcher = self._dispatcher
        if dispatcher is not None:
            if origin is not None and change.fresh:
                one = deliveries[0] if len(deliveries) == 1 else None
                by_id = {} if one is not None else {delivery.id: delivery for delivery in deliveries}
                for delivery_id, seq in change.fresh:
                    row = Row(seq, one or by_id[delivery_id], origin)
                    if kept is not None and delivery_id in change.begun:
                        dispatcher.begin(kept, row)
                    else:
                        dispatcher.offer(row)
            if kept is not None and (kept.places or kept.coming):
                dispatcher.free(kept)
            for columns in change.turns:
                dispatcher.turn(columns)
            if change.stopped:
                dispatcher.cancel(change.stopped)
            if change.requeued:
                dispatcher.reload(change.requeued)
        self._hearing.hear(change, None if origin is None else origin.event)


def _full(error: EngineError) -> Full:
    full = Full(str(error), retry_after_s=_NOT_WRITABLE_S if isinstance(error, NotWritable) else _STOPPED_S)
    full.__cause__ = error
    return full


def _report(owner: asyncio.Task[None]) -> None:
    error = None if owner.cancelled() else owner.exception()
    if error is not None:
        log.error("the engine had ended before it was stopped: %s", error, exc_info=error)
