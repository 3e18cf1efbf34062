"""Hands deliveries out: oldest first by agent, within the limits of agent and pool, and sees them settled."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from llmling.engines import queries, records
from llmling.engines.batches import Batches
from llmling.engines.database import Database
from llmling.engines.inbox import Inbox
from llmling.engines.places import Kept, Places
from llmling.engines.recorder import StepRecorder
from llmling.engines.records import Change, Origin, Row
from llmling.engines.steady import SteadyTime
from llmling.engines.transaction import OneOfMany
from llmling.engines.verdict import Ending, Verdict, judge
from llmling.errors import EngineError
from llmling.protocols import Again, Delivery, Policy, RunDelivery, Step, Work

log = logging.getLogger("llmling.engine")

_LONGEST_SLEEP_S = 30.0
_RELOAD_S = 1.0
_CANCEL_AGAIN_S = 1.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 300.0
_UNWRITTEN = "delivery %s is done, but this cannot be written; it runs again"


class Dispatcher:
    """Starts what is due and settles what has ended; `end` is awaited by whoever starts it, whatever happens.

    `applied` is told of every settled delivery right after the commit, with its successors and their places.
    """

    _group: asyncio.TaskGroup
    _loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        database: Database,
        batches: Batches,
        time: SteadyTime,
        run: RunDelivery,
        policies: Mapping[str, Policy],
        concurrency: int,
        applied: Callable[[Change, Origin | None, Sequence[Delivery], Kept | None], None],
    ) -> None:
        self._database = database
        self._batches = batches
        self._ledger = batches.ledger
        self._time = time
        self._run = run
        self._applied = applied
        self._inboxes = {agent: Inbox(agent, policy) for agent, policy in policies.items()}
        self._places = Places(concurrency)
        # By delivery, from its start until its end is committed; the task itself has ended by then.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._fresh: list[tuple[Inbox, Row]] = []
        self._unbegun: set[str] = set()
        self._quiet: asyncio.Event | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._stopped: set[str] = set()
        self._cutting = False
        self._cut = 0

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin to hand out, from what is on disk; `group` owns what goes on beside the deliveries."""
        self._group, self._loop = group, asyncio.get_running_loop()
        self.reload()

    def update(self, policies: Mapping[str, Policy], concurrency: int) -> None:
        """Hand out by these from now on; the inbox of an agent that is gone only sees what runs to its end."""
        self._places.count = concurrency
        for inbox in self._inboxes.values():
            inbox.gone = inbox.agent not in policies
        for agent, policy in policies.items():
            self._inboxes.setdefault(agent, Inbox(agent, policy)).policy = policy
        self.reload()
        self._pump()

    @property
    def loaded(self) -> int:
        """How many deliveries are held in memory."""
        return sum(len(inbox.held) for inbox in self._inboxes.values())

    @property
    def running(self) -> list[str]:
        """The ids of the deliveries that are running."""
        return list(self._tasks)

    def room_in_s(self, agent: str) -> float:
        """When an agent's inbox may have room again, in seconds."""
        inbox = self._inboxes.get(agent)
        return 1.0 if inbox is None else inbox.room_in_s

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run something beside the deliveries until the engine stops."""
        task = self._group.create_task(_supervised(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # --- what there is to start --------------------------------------------------------------------------------------

    def offer(self, row: Row) -> None:
        """Take a delivery that was just written; without room it is left on disk."""
        inbox = self._inboxes.get(row.delivery.agent)
        if inbox is None or inbox.gone or self._places.closed:
            return
        if inbox.offer(row) and inbox.eligible:
            self._places.queue(inbox)
            self._pump()

    def turn(self, columns: tuple[Any, ...]) -> None:
        """Take a delivery, as `records.row` reads it, whose turn has come since the one before it has settled."""
        try:
            self.offer(records.row(columns))
        except (ValueError, KeyError, TypeError):
            # Reading it from the disk is what buries it.
            self.reload([columns[3]])

    def reload(self, agents: Iterable[str] | None = None) -> None:
        """Look at the disk again: somebody has changed which deliveries of these agents are next."""
        for agent in self._inboxes if agents is None else agents:
            inbox = self._inboxes.get(agent)
            if inbox is not None:
                self._clear(inbox)
                inbox.more = True
                inbox.renew = inbox.loading
                self._feed(inbox)

    def cancel(self, delivery_ids: Iterable[str]) -> None:
        """Stop running deliveries that somebody else has settled."""
        for delivery_id in delivery_ids:
            task = self._tasks.get(delivery_id)
            if task is not None:
                self._stopped.add(delivery_id)
                task.cancel()

    def _clear(self, inbox: Inbox) -> None:
        self._places.quarantine.forget(inbox)
        inbox.clear()

    def _feed(self, inbox: Inbox) -> None:
        if not inbox.loading and not inbox.gone and not self._places.closed and inbox.low:
            inbox.loading = True
            self.spawn(functools.partial(self._load, inbox))

    async def _load(self, inbox: Inbox) -> None:
        inbox.passed.clear()
        inbox.renew = False
        held = frozenset(inbox.held)
        query = functools.partial(queries.due, agent=inbox.agent, now=self._time.now(), room=inbox.room, held=held)
        try:
            found = await self._database.read(query)
        except EngineError as error:
            log.error("the deliveries of agent %r cannot be read, trying again: %s", inbox.agent, error)
            await self._time.sleep(_RELOAD_S)
            found = None
        for delivery_id, reason in () if found is None else found.broken:
            await self._bury(delivery_id, reason)
        inbox.loading = False
        if found is None or inbox.renew:
            inbox.more = True
        else:
            for row in found.rows:
                if not self._places.quarantine.take(inbox, row):
                    inbox.push(row)
            inbox.behind = inbox.passed | found.more
            inbox.more = inbox.overlook(found.held)
        if found is not None and found.later is not None:
            self._ring_at(inbox, found.later)
        self._places.queue(inbox)
        self._pump()
        self._feed(inbox)

    async def _bury(self, delivery_id: str, reason: str) -> None:
        log.error("delivery %s %s", delivery_id, reason)
        await self._database.writer.submit(
            functools.partial(
                self._ledger.bury, delivery_id=delivery_id, reason=records.stored(reason), now=self._time.wall()
            ),
            patient=True,
            committed=lambda change: self._applied(change, None, (), None),
        )

    def _ring_at(self, inbox: Inbox, due: float) -> None:
        if self._places.closed or (inbox.due is not None and inbox.due <= due):
            return
        if inbox.timer is not None:
            inbox.timer.cancel()
        inbox.due = due
        inbox.timer = self.spawn(functools.partial(self._ring, inbox, due))

    async def _ring(self, inbox: Inbox, due: float) -> None:
        while (left_s := due - self._time.now()) > 0:
            await self._time.sleep(min(left_s, _LONGEST_SLEEP_S))
        inbox.due = inbox.timer = None
        self.reload([inbox.agent])

    # --- starting ----------------------------------------------------------------------------------------------------

    def keep(self, deliveries: Iterable[Delivery]) -> Kept:
        """Keep places for those of these deliveries that may start with the commit that writes them."""
        return self._places.keep(self._inboxes, deliveries)

    def begin(self, kept: Kept, row: Row) -> None:
        """Run a delivery that was written as running, in the place that was kept for it."""
        inbox = kept.places.pop(row.delivery.id)
        inbox.held.add(row.delivery.id)
        self._begun(inbox, row, ())

    def free(self, kept: Kept) -> None:
        """Let others have the places of deliveries that have not started, since all are written or will not be."""
        inboxes = list(kept.places.values())
        self._places.free(kept)
        if inboxes:
            self._pump()
            for inbox in inboxes:
                self._feed(inbox)

    def _pump(self) -> None:
        while (started := self._places.take()) is not None:
            inbox, row = started
            self._database.writer.post(
                OneOfMany(self._batches.begin, (row.delivery.id, row.attempts)),
                committed=functools.partial(self._begun, inbox, row),
            )
            self._feed(inbox)

    def _begun(self, inbox: Inbox, row: Row, steps: tuple[Step, ...] | None) -> None:
        if steps is None:
            self._leave(inbox, row)
            self.reload([inbox.agent])
            return
        if self._places.closed:
            self._release(row.delivery)
            self._leave(inbox, row)
            return
        delivery = row.delivery
        inbox.overlooked.discard(delivery.id)
        journal = StepRecorder(self._database.writer, delivery.id, steps)
        work = Work(delivery, row.origin.event, row.attempts + 1, journal)
        self._unbegun.add(delivery.id)
        # The group that owns the engine's other tasks would be told of the end of each of these, one by one.
        self._tasks[delivery.id] = self._loop.create_task(self._deliver(inbox, row, work, journal))
        if not self._fresh:
            self._loop.call_soon(self._started)
        self._fresh.append((inbox, row))

    def _started(self) -> None:
        # The first steps of those that were begun in one turn of the loop with the first of them are still to come.
        fresh, self._fresh = self._fresh, []
        self._loop.call_soon(self._never_started, fresh)

    def _never_started(self, fresh: list[tuple[Inbox, Row]]) -> None:
        for inbox, row in fresh:
            # Nothing of a task that was cancelled before its first step has run; a later cancellation ends in it.
            if row.delivery.id in self._unbegun:
                self._unbegun.discard(row.delivery.id)
                self._cut += self._cutting
                if row.delivery.id not in self._stopped:
                    self._release(row.delivery)
                self._over(inbox, row)

    def _over(self, inbox: Inbox, row: Row) -> None:
        del self._tasks[row.delivery.id]
        self._stopped.discard(row.delivery.id)
        if self._quiet is not None and not self._tasks:
            self._quiet.set()
        self._leave(inbox, row)

    def _leave(self, inbox: Inbox, row: Row) -> None:
        if self._places.leave(inbox, row):
            self.reload([inbox.agent])
        self._pump()
        self._feed(inbox)

    def _release(self, delivery: Delivery) -> None:
        try:
            self._database.writer.post(
                functools.partial(self._ledger.release, delivery_id=delivery.id, now=self._time.wall()),
                committed=lambda _: self.reload([delivery.agent]),
            )
        except EngineError:
            log.warning("delivery %s could not be given back before the end; it counts as a try", delivery.id)

    # --- running and settling ----------------------------------------------------------------------------------------

    async def _deliver(self, inbox: Inbox, row: Row, work: Work, journal: StepRecorder) -> None:
        self._unbegun.discard(row.delivery.id)
        began = self._time.monotonic()
        verdict = await self._outcome(inbox, work)
        inbox.took(self._time.monotonic() - began)
        if verdict is None:
            self._over(inbox, row)
            return
        kept = self.keep(verdict.follows) if verdict.follows else Kept()
        try:
            step = journal.take_back() if verdict.status == "done" else None
            ending = Ending(row, work.attempt, verdict, self._time.wall(), kept.places, step)
            # The writer settles it whatever happens from now on; the agent's place is taken until then.
            self._database.writer.post(
                OneOfMany(self._batches.settle, ending),
                committed=lambda change: self._settled(inbox, row, verdict, change, kept),
                failed=lambda error: self._unsettled(inbox, row, kept, error),
            )
        except Exception as error:  # noqa: BLE001 - the border of its task: its places must not be lost with it
            self._unsettled(inbox, row, kept, error)

    def _settled(self, inbox: Inbox, row: Row, verdict: Verdict, change: Change, kept: Kept) -> None:
        # Who hears of the end and comes back at once finds the place free.
        self._over(inbox, row)
        self._applied(change, row.origin, verdict.follows, kept)
        if verdict.status == "pending":
            self._ring_at(inbox, verdict.not_before)

    def _unsettled(self, inbox: Inbox, row: Row, kept: Kept, error: BaseException) -> None:
        log.error(_UNWRITTEN, row.delivery.id, exc_info=error)
        self._over(inbox, row)
        self.free(kept)

    async def _outcome(self, inbox: Inbox, work: Work) -> Verdict | None:
        delivery_id = work.delivery.id
        try:
            return judge(await self._run(work), work.attempt, inbox.policy.attempts, self._time.now())
        except asyncio.CancelledError:
            if self._cutting:
                self._cut += 1
                self._release(work.delivery)
                return None
            if delivery_id in self._stopped:
                log.info("delivery %s was stopped: it has been settled by an operator", delivery_id)
                return None
            _uncancel()
            log.error("delivery %s was cancelled from outside", delivery_id)
            reason = "cancelled from outside the engine"
        except Exception as error:
            log.exception("a mistake outside the model and its tools ended delivery %s", delivery_id)
            reason = f"{type(error).__name__}: {error}"
        backoff_s = min(_FIRST_BACKOFF_S * 2 ** min(work.attempt - 1, 30), _LONGEST_BACKOFF_S)
        return judge(Again(reason, backoff_s), work.attempt, inbox.policy.attempts, self._time.now())

    # --- stopping ----------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Start nothing more, and take every cancellation from now on for the end of the engine."""
        self._places.closed = self._cutting = True

    async def stop(self, grace_s: float) -> int:
        """Start nothing more, give what is running `grace_s` seconds, cancel the rest; return how many that were."""
        self._places.closed = True
        for task in self._background:
            task.cancel()
        for inbox in self._inboxes.values():
            self._clear(inbox)
        try:
            # What is just about to begin is given back while the writer still takes it.
            with contextlib.suppress(EngineError):
                await self._database.writer.submit(lambda connection: None)
            if self._tasks and grace_s > 0:
                self._quiet = asyncio.Event()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._quiet.wait(), grace_s)
        finally:
            await self.end()
        return self._cut

    async def end(self) -> None:
        """Cancel what is running, and return when it has let go; what is only to be written is left to the writer."""
        self.cut()
        # A run may take a while to let go, or even swallow a cancellation.
        while running := [task for key, task in self._tasks.items() if not task.done() or key in self._unbegun]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


async def _supervised(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # Called here, since a task that is cancelled before its first step would leave a coroutine nobody awaited.
    try:
        await work()
    except Exception:
        # One of ours failing must not take the running deliveries with it.
        log.exception("a mistake in llmling ended a task of the engine; restart the process when you can")
