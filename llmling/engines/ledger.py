"""The writes that decide what belongs together: accepting an event, starting and settling a delivery.

Every method is an operation of the writer: it gets the connection inside a transaction and changes nothing else.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import field, replace

from llmling.engines import lookups, overlap, records, rows
from llmling.engines.records import Arrival, Change, NewDelivery
from llmling.engines.verdict import Ending
from llmling.frozen import frozen
from llmling.protocols import EventStatus, Policy, Receipt
from llmling.records import gone

QUEUED = (
    "insert into inbox(agent, pending) values {values}"
    " on conflict (agent) do update set pending = pending + excluded.pending"
)
"""Counts new deliveries that wait, by agent: triggers count only what changes afterwards."""
STEPS = "insert or replace into step(delivery_id, key, kind, data) values {values}"
UNTOLD = "insert or ignore into untold values {values}"
"""Notes settled events, of which the serving process has yet to hear."""


@frozen
class Accepted:
    """What came of an event: its receipt, or how many deliveries fill the inbox."""

    receipt: Receipt | None
    pending: int = 0
    change: Change = field(default_factory=Change)


class Ledger:
    """The rules of one process; a process that does not serve has no policies and bounds nothing."""

    def __init__(self) -> None:
        self.policies: Mapping[str, Policy] | None = None
        self._max_messages = 0
        self.tells = True

    def serve(self, policies: Mapping[str, Policy], max_messages_per_event: int, *, heard: bool) -> None:
        """Take over the rules of the serving process; `heard` when somebody listens to settled events."""
        self.tells = heard
        self.update(policies, max_messages_per_event)

    def update(self, policies: Mapping[str, Policy], max_messages_per_event: int) -> None:
        """Decide by other rules from now on."""
        self._max_messages = max_messages_per_event
        self.policies = policies

    def unknown(self, agent: str) -> bool:
        """Whether this process serves, and has no such agent."""
        return self.policies is not None and agent not in self.policies

    def room(self, connection: sqlite3.Connection, agent: str) -> float:
        """Return how many more deliveries an inbox takes."""
        policy = None if self.policies is None else self.policies.get(agent)
        return math.inf if policy is None else policy.inbox_size - lookups.pending(connection, agent)

    def endless(self, agent: str) -> bool:
        """Whether what follows from other deliveries always goes into this inbox."""
        policy = None if self.policies is None else self.policies.get(agent)
        return policy is None or policy.overflow == "block"

    def allows(self, messages: int) -> bool:
        """Whether an event may cause so many messages."""
        return messages <= self._max_messages

    # --- accept ------------------------------------------------------------------------------------------------------

    def accept(self, connection: sqlite3.Connection, arrival: Arrival) -> Accepted:
        """Write an event, its first delivery and its key, unless the key or the event is known or there is no room."""
        event_id, now = arrival.event.id, arrival.now
        new = arrival.delivery
        first_id, pending = connection.execute(
            "select (select event_id from key where trigger = ? and key = ? and (expires is null or expires > ?)),"
            " (select pending from inbox where agent = ?)",
            (arrival.trigger, arrival.key, now, arrival.agent if new is None else new.agent),
        ).fetchone()
        if first_id is not None:
            return Accepted(lookups.known(connection, first_id))
        change = Change()
        met, outcome = overlap.ALONE, arrival.outcome
        if new is not None and new.dead is None:
            watched = new.overlap in overlap.WATCHED
            if watched or self._full(new.agent, pending):
                if lookups.exists(connection, event_id):
                    return Accepted(lookups.known(connection, event_id))
                met = overlap.meet(connection, arrival.trigger, new) if watched else met
            if met.skipped:
                new, outcome = None, "skipped"
            elif self._full(new.agent, pending, len(met.replaced)) and not self._make_room(
                connection, new.agent, now, change
            ):
                return Accepted(None, pending)
        for delivery_id, replaced_id in met.replaced:
            self._coalesce(connection, delivery_id, replaced_id, event_id, now, change)
        begins = arrival.begins and new is not None and not self.unknown(new.agent)
        waits = "running" if begins else "pending"
        status = waits if new is not None else "dead" if arrival.dead is not None else "done"
        inserted = connection.execute(
            "insert or ignore into event(id, trigger, agent, type, status, outcome, created, data, first, error, line)"
            " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event_id, arrival.trigger, arrival.agent, arrival.event.type, status, outcome, now,
                arrival.data, None if new is None else new.id, arrival.dead,
                None if new is None else overlap.line(new),
            ),
        ).rowcount  # fmt: skip
        if not inserted:
            return Accepted(lookups.known(connection, event_id))
        if arrival.key is not None:
            connection.execute(
                "insert or replace into key values (?, ?, ?, ?)",
                (arrival.trigger, arrival.key, event_id, arrival.expires),
            )
        if new is None:
            self._finish(connection, event_id, status, arrival.dead, None, now, change)
        elif self._insert(connection, new, now, change, begins=begins) == "dead":
            self.refresh(connection, event_id, now, change)
        else:
            return Accepted(Receipt(event_id, new=True), change=change)
        status, error = lookups.status(connection, event_id)
        return Accepted(records.receipt(event_id, status, error, new=True), change=change)

    def _full(self, agent: str, pending: int | None, leaving: int = 0) -> bool:
        policy = None if self.policies is None else self.policies.get(agent)
        return policy is not None and pending is not None and pending - leaving >= policy.inbox_size

    def _make_room(self, connection: sqlite3.Connection, agent: str, now: float, change: Change) -> bool:
        """Drop the oldest pending delivery of the lowest priority of a full inbox if its policy says so."""
        policy = (self.policies or {})[agent]
        if policy.overflow != "drop_oldest":
            return False
        oldest, event_id, *_ = min(lookups.oldest(connection, agent), key=lambda found: found[2:])
        reason = f"dropped: inbox of {agent!r} is full (inbox.size {policy.inbox_size}, overflow: drop_oldest)"
        self.kill(connection, oldest, reason, now, change)
        self.refresh(connection, event_id, now, change)
        return True

    def _coalesce(
        self, connection: sqlite3.Connection, delivery_id: str, event_id: str, newer_id: str, now: float, change: Change
    ) -> None:
        """Settle an event that waits, and its delivery, in favour of a newer one."""
        settled = connection.execute(
            "update delivery set status = 'done', error = ?, finished = ? where id = ? and status = 'pending'",
            (f"event {newer_id} took its place (overlap: coalesce)", now, delivery_id),
        ).rowcount
        if settled:
            connection.execute("update event set outcome = 'coalesced' where id = ?", (event_id,))
            self.refresh(connection, event_id, now, change)

    def _insert(
        self, connection: sqlite3.Connection, new: NewDelivery, now: float, change: Change, *, begins: bool
    ) -> EventStatus:
        reason = new.dead
        if reason is None and self.unknown(new.agent):
            reason = gone(new.agent)
        status = "dead" if reason is not None else "running" if begins else "pending"
        line = None if reason is not None else new.order_key
        turn = line is None or lookups.first_in_line(connection, new.agent, line)
        cursor = connection.execute(
            "insert or ignore into delivery(id, event_id, agent, status, hops, message, error, created, finished,"
            " order_key, priority, turn, attempts) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                new.id, new.event_id, new.agent, status, new.hops, new.message, reason, now,
                None if reason is None else now, new.order_key, new.priority, turn, int(status == "running"),
            ),
        )  # fmt: skip
        if cursor.rowcount and status == "pending":
            rows.run(connection, QUEUED, [(new.agent, 1)])
        if cursor.rowcount and status != "dead" and turn and cursor.lastrowid is not None:
            change.fresh.append((new.id, cursor.lastrowid))
            if status == "running":
                change.begun.add(new.id)
        return status

    # --- start and settle --------------------------------------------------------------------------------------------

    def release(self, connection: sqlite3.Connection, delivery_id: str, now: float) -> Change:
        """Give a running delivery back, and its try."""
        change = Change()
        for (event_id,) in connection.execute(
            "update delivery set status = 'pending', attempts = attempts - 1 where id = ? and status = 'running'"
            " returning event_id",
            (delivery_id,),
        ).fetchall():
            self.refresh(connection, event_id, now, change)
        return change

    def settle(self, connection: sqlite3.Connection, ending: Ending) -> Change:
        """Write how a running delivery ended, its successors and what this means for its event."""
        change = Change()
        delivery, verdict, now = ending.delivery, ending.verdict, ending.now
        if verdict.status == "pending" and self.unknown(delivery.agent):
            verdict = replace(verdict, status="dead", error=records.stored(gone(delivery.agent)))
        over = verdict.status in {"done", "dead"}
        event_id = delivery.event_id
        found = connection.execute(
            "update delivery set status = ?, content = ?, error = ?, usage = ?, model = ?, finished = ?, wait_s = ?,"
            " not_before = ?, reply = ?, cost = case when ? is null then cost else coalesce(cost, 0) + ? end"
            " where id = ? and status = 'running' and attempts = ?"
            " returning (select count(*) from delivery where event_id = ?)",
            (
                verdict.status, verdict.content, verdict.error, verdict.usage, verdict.model, now if over else None,
                verdict.wait_s, verdict.not_before, ending.reply, verdict.cost_usd, verdict.cost_usd, delivery.id,
                ending.attempt, event_id,
            ),
        ).fetchall()  # fmt: skip
        if ending.step is not None and (not found or ending.leaves_a_step):
            rows.run(connection, STEPS, [ending.step])
        if not found:
            return change
        total: int = found[0][0]
        if over:
            change.touched.add(event_id)
            if delivery.order_key is not None:
                self._pass_on(connection, delivery.agent, records.stored(delivery.order_key), change)
        goes_on = self.follow(connection, total, ending, change)
        if verdict.status == "done" and goes_on:
            # The usual hop: the event was running, and with a successor that is not over it still is.
            if verdict.cost_usd is not None:
                connection.execute(
                    "update event set cost = coalesce(cost, 0) + ? where id = ?", (verdict.cost_usd, event_id)
                )
        else:
            self.refresh(connection, event_id, now, change)
        return change

    def follow(self, connection: sqlite3.Connection, total: int, ending: Ending, change: Change) -> bool:
        """Write the successors down; return whether one of them runs, or waits for its turn or a free place."""
        now, goes_on = ending.now, False
        for new in ending.verdict.successors:
            if new.dead is None and (reason := self._refusal(connection, new.agent, total, now, change)) is not None:
                new = replace(new, dead=reason)  # noqa: PLW2901
            status = self._insert(connection, new, now, change, begins=new.id in ending.begins)
            goes_on = status != "dead" or goes_on
            total += 1
        return goes_on

    def _pass_on(self, connection: sqlite3.Connection, agent: str, order_key: str | bytes, change: Change) -> None:
        """Note the delivery that has the turn of its line now and may start."""
        if self.policies is not None:
            change.turns += connection.execute(
                f"select {records.ROW} where d.agent = ? and d.order_key = ? and d.turn = 1"
                " and d.finished is null and d.status = 'pending'",
                (agent, order_key),
            ).fetchall()

    def _refusal(
        self, connection: sqlite3.Connection, agent: str, total: int, now: float, change: Change
    ) -> str | None:
        if total >= self._max_messages:
            return (
                f"the event has caused {total} messages already; raise limits.max_messages_per_event "
                f"({self._max_messages}) or look for a loop in `connections`"
            )
        policy = None if self.policies is None else self.policies.get(agent)
        # A successor that had to wait for room could wait for itself: under `block` it always goes in.
        if policy is None or policy.overflow == "block" or not self._full(agent, lookups.pending(connection, agent)):
            return None
        if self._make_room(connection, agent, now, change):
            return None
        return f"rejected: inbox of {agent!r} is full (inbox.size {policy.inbox_size}, overflow: reject)"

    # --- events ------------------------------------------------------------------------------------------------------

    def kill(
        self, connection: sqlite3.Connection, delivery_id: str, reason: str | bytes, now: float, change: Change
    ) -> None:
        """Settle a delivery as dead; its event is yet to be refreshed."""
        for agent, order_key in connection.execute(
            "update delivery set status = 'dead', error = ?, finished = ? where id = ? returning agent, order_key",
            (reason, now, delivery_id),
        ).fetchall():
            if order_key is not None:
                self._pass_on(connection, agent, order_key, change)

    def bury(self, connection: sqlite3.Connection, delivery_id: str, reason: str | bytes, now: float) -> Change:
        """Settle a pending delivery that cannot be run as dead."""
        change = Change()
        # None when somebody has dropped and forgotten its event since it was read.
        for (event_id,) in connection.execute("select event_id from delivery where id = ?", (delivery_id,)).fetchall():
            self.kill(connection, delivery_id, reason, now, change)
            self.refresh(connection, event_id, now, change)
        return change

    def refresh(self, connection: sqlite3.Connection, event_id: str, now: float, change: Change) -> None:
        """Bring an event's status, reason and cost in line with its deliveries."""
        total, pending, running, waiting, dead, cost = connection.execute(
            "select count(*), total(status = 'pending'), total(status = 'running'), total(status = 'waiting'),"
            " total(status = 'dead'), sum(cost) from delivery where event_id = ?",
            (event_id,),
        ).fetchone()
        if not pending and not running and not waiting:
            error = lookups.first_error(connection, event_id, "dead") if dead else None
            self._finish(connection, event_id, "dead" if dead else "done", error, cost, now, change)
            return
        error = None
        if pending == total:
            status = "pending"
        elif running or pending:
            status = "running"
        else:
            status = "waiting"
            error = lookups.first_error(connection, event_id, "waiting")
        changed = connection.execute(
            "update event set status = ?, error = ?, cost = ?, finished = null"
            " where id = ? and (status != ? or error is not ? or cost is not ?)",
            (status, error, cost, event_id, status, error, cost),
        ).rowcount
        if changed and status == "waiting":
            change.waiting.append(lookups.event_row(connection, event_id))

    def _finish(
        self,
        connection: sqlite3.Connection,
        event_id: str,
        status: EventStatus,
        error: str | bytes | None,
        cost: float | None,
        now: float,
        change: Change,
    ) -> None:
        connection.execute(
            "update event set status = ?, finished = ?, error = ?, cost = ?,"
            " outcome = case when ? = 'dead' then null else coalesce(outcome, 'ran') end where id = ?",
            (status, now, error, cost, status, event_id),
        )
        if self.tells:
            rows.run(connection, UNTOLD, [(event_id,)])
            change.settled.append(lookups.event_row(connection, event_id))
        change.touched.add(event_id)
