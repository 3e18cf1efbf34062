"""Runs what the queue hands out to this process, and sees it settled or given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.book import Found, token
from llmling.engines.jetstream.events import Doc
from llmling.engines.jetstream.gate import Gate
from llmling.engines.jetstream.ghosts import Ghosts
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.hosts import Hosts
from llmling.engines.jetstream.lane import Lane, Ticket
from llmling.engines.jetstream.leases import Leases
from llmling.engines.jetstream.owners import Owners
from llmling.engines.jetstream.places import Places
from llmling.engines.jetstream.recorder import StepRecorder
from llmling.engines.jetstream.rooms import Rooms
from llmling.engines.jetstream.settle import Settler
from llmling.engines.jetstream.strays import Strays
from llmling.engines.steady import SteadyTime
from llmling.errors import EngineError
from llmling.events import Event
from llmling.protocols import Again, Dead, Done, Policy, RunDelivery, Settlement, Work
from llmling.runtime.tasks import TaskSet

log = logging.getLogger("llmling.engine")

_CANCEL_AGAIN_S = 1.0
_ASK_AGAIN_S = 1.0
_TURN_S = 0.2
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 300.0


class Dispatcher:
    """Takes tickets of the queue and runs their deliveries; the tickets are renewed meanwhile."""

    def __init__(
        self,
        archive: Archive,
        hearing: Hearing,
        rooms: Rooms,
        settler: Settler,
        time: SteadyTime,
        hosts: Hosts,
        lease_s: float,
        tasks: TaskSet,
    ) -> None:
        self._archive = archive
        self._hearing = hearing
        self._rooms = rooms
        self._time = time
        self._hosts = hosts
        self._host = hosts.own
        self._places = Places(archive.book, hosts)
        self._lease_s = lease_s
        self._tasks = tasks
        self._held: dict[str, Ticket] = {}
        self._handlers: set[asyncio.Task[None]] = set()
        self._leases = Leases(archive.book.link, lease_s, tasks, self._held)
        self._owners = Owners(archive.book.link, hearing, hosts, lease_s)
        self._settler = settler
        self._stopping = False
        self._cutting = False
        self._cut = 0

    async def start(
        self, run: RunDelivery, policies: Mapping[str, Policy], concurrency: int, max_messages: int
    ) -> None:
        """Begin to take deliveries.

        Raises:
            EngineError: NATS refuses.
        """
        self._run = run
        self._settler.serve(policies, max_messages)
        self._gate = Gate(concurrency)
        self._places.serve(policies, concurrency)
        # Whoever is not listed is taken for silent, and its places for free.
        await self._hosts.say()
        await self._places.open()
        link, book = self._archive.book.link, self._archive.book
        lanes = {agent: Lane(book, agent, policy, self._lease_s, self._arrived) for agent, policy in policies.items()}
        self._lanes = lanes
        self._rooms.serve(policies, lanes)
        link.on_return(self._returned)
        await link.listen(f"$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.{book.queue}.*", self._led)
        for lane in lanes.values():
            await lane.open()
        self._tasks.spawn(self._leases.run(), name="leases")
        self._tasks.spawn(self._ask(), name="questions to the queue")
        self._tasks.spawn(self._owners.run(), name="roll of processes")
        self._tasks.spawn(Ghosts(book, self._lease_s).run(self._served), name="ghosts of the queue")
        self._tasks.spawn(Strays(book, self._lease_s).run(self._served), name="strays of the queue")

    async def update(self, policies: Mapping[str, Policy], concurrency: int, max_messages: int) -> None:
        """Take deliveries by these from now on; of an agent that is gone only what runs is seen to its end.

        Raises:
            EngineError: NATS refuses.
        """
        before, book = self._lanes, self._archive.book
        self._settler.serve(policies, max_messages)
        self._gate.resize(concurrency)
        self._places.serve(policies, concurrency)
        self._lanes = lanes = {
            agent: before.get(agent) or Lane(book, agent, policy, self._lease_s, self._arrived)
            for agent, policy in policies.items()
        }
        self._rooms.serve(policies, lanes)
        for agent, lane in before.items():
            if agent not in lanes:
                await lane.close()
        for agent, lane in lanes.items():
            await (lane.change(policies[agent]) if agent in before else lane.open())

    def _served(self) -> Iterable[Lane]:
        return self._lanes.values()

    @property
    def loaded(self) -> int:
        """How many deliveries are held in memory."""
        return len(self._held)

    def places(self) -> tuple[int, int]:
        """Return how many deliveries run in this process, and how many may."""
        return self._gate.places

    def runs(self, delivery_id: str) -> bool:
        """Whether a delivery is this process's."""
        return delivery_id in self._held

    def take(self, handed: Doc) -> bool:
        """Take the ticket of a delivery that went ahead here, as another process got it; return whether it did."""
        held, lane = self._held.get(handed["delivery_id"]), self._lanes.get(handed["agent"])
        if held is None or lane is None or not held.ahead:
            return False
        lane.took_over(Ticket(**{name: value for name, value in handed.items() if name != "agent"}))
        return True

    def stop_runs(self, delivery_ids: Iterable[str]) -> None:
        """Stop running deliveries that somebody has settled."""
        for delivery_id in delivery_ids:
            ticket = self._held.get(delivery_id)
            if ticket is not None and ticket.run is not None:
                ticket.stopped = True
                ticket.run.cancel()

    # --- holding tickets ---------------------------------------------------------------------------------------------

    def _returned(self) -> None:
        for lane in self._lanes.values():
            self._tasks.spawn(lane.pull(anew=True), name=f"queue of {lane.agent}")

    async def _led(self, message: Any) -> None:
        # What the server that led a queue was asked for has gone with it.
        for lane in self._lanes.values():
            if message.subject.endswith(f".{token(lane.agent)}"):
                await lane.pull(anew=True)

    async def _ask(self) -> None:
        # A question that got lost, or that the server cannot answer right now, is asked again.
        while True:
            await asyncio.sleep(_ASK_AGAIN_S)
            for lane in self._lanes.values():
                await lane.pull()

    def _arrived(self, lane: Lane, ticket: Ticket) -> None:
        task = asyncio.create_task(self._seat(lane, ticket), name=f"llmling delivery {ticket.delivery_id}")
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _seat(self, lane: Lane, ticket: Ticket) -> None:
        """Run what is next in the place that a ticket gives, until it was one that the queue has handed out."""
        held = self._held.get(ticket.delivery_id)
        try:
            if held is None:
                self._held[ticket.delivery_id] = ticket
                lane.wait(ticket)
            elif held.turn != ticket.turn:
                # The try before this one is about to end.
                await lane.give_back(ticket, _TURN_S)
                return
            elif held.ahead:
                held.handed_out(ticket)
            else:
                # Not given back, here and below: what runs is handed out again only when its lease is over.
                return
            look = ticket.behind > 0
            while (chosen := await lane.next(self._held, look=look)) is not None:
                await self._handle(lane, chosen)
                look = True
                if not chosen.ahead:
                    break
        finally:
            await lane.leave()

    async def _handle(self, lane: Lane, ticket: Ticket) -> None:
        self._held[ticket.delivery_id] = ticket
        try:
            if self._stopping:
                await lane.give_back(ticket)
            else:
                await self._take(lane, ticket)
        except EngineError as error:
            log.info("delivery %s is left to the queue: %s", ticket.delivery_id, error)
        except Exception:
            # One of ours failing must not take the others with it; the delivery comes again.
            log.exception("a mistake in llmling at delivery %s; it runs again", ticket.delivery_id)
        finally:
            self._held.pop(ticket.delivery_id, None)

    # --- before a run ------------------------------------------------------------------------------------------------

    async def _take(self, lane: Lane, ticket: Ticket) -> None:
        link = self._archive.book.link
        found = await link.patiently(lambda: self._archive.find(ticket.event_id))
        doc = None if found is None else found.value
        entry = None if doc is None else events.find(doc, ticket.delivery_id)
        if found is None or doc is None or entry is None:
            await lane.ack(ticket)
            return
        if entry["turn"] != ticket.turn or entry["status"] not in {"pending", "running"}:
            await self._settler.complete(lane, ticket, found)
            return
        if entry["order_key"] is not None and not await self._has_turn(lane, ticket, doc, entry):
            return
        crashed = again = False
        if entry["status"] == "running":
            if ticket.ahead:
                return
            mine = entry["owner"] == self._host
            running = False if mine else await self._owners.runs(ticket, entry)
            if running:
                # It went ahead there, or the queue was too early: not given back, for it would only come again.
                await self._hearing.hand_over(entry["owner"], lane.handed(ticket))
                return
            # Whoever began it is alive and has given it up, or is gone.
            crashed, again = running is None, running is not None
        crashes = entry["crashes"] + crashed
        if crashed and entry["attempts"] >= lane.policy.attempts:
            await self._settler.bury(lane, ticket, found)
            return
        last_try = entry["attempts"] + 1 >= lane.policy.attempts
        async with self._gate.place(crashes, last_try=last_try), self._places.place():
            if self._stopping or not self._rooms.knows(lane.agent):
                await lane.give_back(ticket)
            elif not ticket.fenced:
                await self._begin(lane, ticket, found, crashed=crashed, again=again)

    async def _has_turn(self, lane: Lane, ticket: Ticket, doc: Doc, entry: Doc) -> bool:
        """Whether a delivery is the one of its line that may run; if not, it is queued again when it is."""
        link = self._archive.book.link
        member = await link.patiently(lambda: self._archive.lines.holds(doc, entry))
        if member is not None:
            ticket.stood = member.place
            return True
        await lane.ack(ticket)
        # Whoever has given it the turn meanwhile found this ticket still there.
        await link.patiently(lambda: self._archive.queue(doc, [entry]))
        return False

    async def _begin(self, lane: Lane, ticket: Ticket, found: Found, *, crashed: bool, again: bool) -> None:
        seen = events.find(found.value, ticket.delivery_id)
        now = self._time.wall()

        def begin(doc: Doc) -> bool:
            entry = events.find(doc, ticket.delivery_id)
            if entry is None or seen is None or entry["turn"] != ticket.turn:
                return False
            if any(entry[name] != seen[name] for name in ("status", "owner", "attempts")):
                return False
            # How often one that goes ahead has been handed out by then, nobody knows.
            handed = None if ticket.ahead else ticket.deliveries
            events.begin(entry, self._host, handed, crashed=crashed, again=again)
            entry["place"] = ticket.stood
            events.refresh(doc, now)
            return True

        begun = await self._archive.change(ticket.event_id, begin, found=found, patient=True)
        if begun is None:
            # Somebody has settled it, or runs it, since we looked.
            return
        doc = begun.value
        entry = events.find(doc, ticket.delivery_id)
        if entry is None or seen is None:
            return
        steps: Iterable[Any] = ()
        if seen["attempts"] or seen["turn"]:
            link = self._archive.book.link
            steps = (await link.patiently(lambda: self._archive.steps(doc, entry)))[entry["id"]]
        journal = StepRecorder(self._archive, self._tasks, begun, entry["id"], steps)
        try:
            delivery = events.delivery_of(doc, entry)
            work = Work(delivery, Event.from_dict(doc["event"]), entry["attempts"], journal)
        except (EngineError, ValueError, KeyError, TypeError) as error:
            await self._settler.settle(lane, ticket, begun, entry["attempts"], Dead(str(error)), journal)
            return
        began = self._time.monotonic()
        settlement = await self._outcome(ticket, work)
        self._rooms.took(lane.agent, self._time.monotonic() - began)
        if settlement is None:
            journal.give_up()
            if self._cutting and not ticket.fenced:
                await self._settler.release(lane, ticket, begun, work.attempt)
            return
        await self._settler.settle(lane, ticket, begun, work.attempt, settlement, journal)

    # --- running -----------------------------------------------------------------------------------------------------

    async def _outcome(self, ticket: Ticket, work: Work) -> Settlement | None:
        """Run a delivery and return how it ended; None when it is given up."""
        if ticket.fenced or self._cutting:
            self._cut += self._cutting
            return None
        ticket.run = run = asyncio.ensure_future(self._run(work))
        await asyncio.wait({run})
        ticket.run = None
        if run.cancelled():
            if ticket.fenced:
                return None
            if ticket.stopped:
                log.info("delivery %s was stopped: it has been settled by an operator", ticket.delivery_id)
                return Dead("stopped")
            if self._cutting:
                self._cut += 1
                return None
            log.error("delivery %s was cancelled from outside", ticket.delivery_id)
            reason = "cancelled from outside the engine"
        elif (error := run.exception()) is not None:
            log.error("a mistake outside the model and its tools ended delivery %s", ticket.delivery_id, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        else:
            settlement = run.result()
            try:
                self._check(settlement)
                return settlement
            except Exception as error:
                log.error("what delivery %s answers cannot be written", ticket.delivery_id, exc_info=error)
                reason = f"{type(error).__name__}: {error}"
        return Again(reason, min(_FIRST_BACKOFF_S * 2 ** min(work.attempt - 1, 30), _LONGEST_BACKOFF_S))

    @staticmethod
    def _check(settlement: Settlement) -> None:
        if isinstance(settlement, Done):
            for delivery in settlement.successors:
                events.records.encode(delivery.message.to_dict())

    # --- stopping ----------------------------------------------------------------------------------------------------

    async def stop(self, grace_s: float) -> int:
        """Take nothing more, give what is running `grace_s` seconds, cancel the rest; return how many that were."""
        self._stopping = True
        self._settler.close()
        self._places.close()
        try:
            for lane in self._lanes.values():
                await lane.close()
            if self._handlers and grace_s > 0:
                await asyncio.wait(self._handlers, timeout=grace_s)
        finally:
            self._cutting = True
            # A run may take a while to let go, or even swallow a cancellation.
            while self._handlers:
                for ticket in self._held.values():
                    if ticket.run is not None:
                        ticket.run.cancel()
                await asyncio.wait(self._handlers, timeout=_CANCEL_AGAIN_S)
                if not self._archive.book.link.fault:
                    continue
                for handler in self._handlers:
                    # What waits for NATS is found by whoever runs it next.
                    handler.cancel()
        return self._cut
