"""The daily writes of many deliveries at once: what queues up while the disk is busy is written together.

What is out of the ordinary (a full inbox, an order key, a delivery that is dead) is left to the ledger, one by one.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from llmling.engines import rows
from llmling.engines.ledger import QUEUED, STEPS, UNTOLD, Accepted, Ledger
from llmling.engines.lookups import steps_of
from llmling.engines.records import Arrival, Change, NewDelivery, StepRow
from llmling.engines.transaction import OneByOne
from llmling.engines.verdict import Ending
from llmling.protocols import Receipt, Step

Start: TypeAlias = tuple[str, int]
_Usual: TypeAlias = tuple[Arrival, NewDelivery]
_Placed: TypeAlias = tuple[Change, float, NewDelivery, bool]

_EVENTS = "insert into event(id, trigger, agent, type, status, created, data, first) values {values}"
_KEYS = "insert into key(trigger, key, event_id, expires) values {values}"
_DELIVERIES = (
    "insert into delivery(id, event_id, agent, status, hops, message, created, priority, attempts) values {values}"
)
_STARTS = (
    "with start(id, tries) as (values {values})"
    " update delivery set status = 'running', attempts = attempts + 1 from start"
    " where delivery.id = start.id and delivery.attempts = start.tries and delivery.status = 'pending'"
    " returning id"
)
_STEPPED = "select distinct delivery_id from step where delivery_id in (values {values})"
# Not with its `with` in front: of such a statement Python does not say how many rows it has changed.
_ENDS = (
    "update delivery set status = 'done', content = ending.content, error = null, usage = ending.usage,"
    " model = ending.model, finished = ending.finished, reply = ending.reply, wait_s = 0, not_before = 0,"
    " cost = ending.cost from ("
    "with ending(id, tries, content, usage, model, finished, cost, reply) as (values {values}) select * from ending"
    ") as ending"
    " where delivery.id = ending.id and delivery.attempts = ending.tries and delivery.status = 'running'"
)
_TOTALS = (
    "select event_id, count(*), total(status = 'done'), sum(cost) from delivery"
    " where event_id in (values {values}) group by event_id"
)
_FINISHED = (
    "with over(id, finished, cost) as (values {values})"
    " update event set status = 'done', finished = over.finished, error = null, cost = over.cost,"
    " outcome = coalesce(outcome, 'ran') from over where event.id = over.id"
)
_SPENT = (
    "with spent(id, cost) as (values {values})"
    " update event set cost = coalesce(event.cost, 0) + spent.cost from spent where event.id = spent.id"
)
_SETTLED = "select * from event_record where id in (values {values})"


class Batches:
    """Operations of the writer on many items; each returns what the ledger would for every one of them in turn."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def accept(self, connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """Write events, their first deliveries and their keys.

        Raises:
            sqlite3.IntegrityError: One of them is known; each for itself is answered as it should be.
        """
        found: list[Accepted] = []
        start = 0
        while start < len(arrivals):
            usual = self._usual(connection, arrivals, start)
            if len(usual) > 1:
                found += _accept(connection, usual)
                start += len(usual)
            else:
                found.append(self.ledger.accept(connection, arrivals[start]))
                start += 1
        return found

    def _usual(self, connection: sqlite3.Connection, arrivals: Sequence[Arrival], start: int) -> list[_Usual]:
        """Return those from `start` on that come in without a look at others and fit into their inboxes."""
        usual: list[_Usual] = []
        room: dict[str, float] = {}
        for place in range(start, len(arrivals)):
            arrival = arrivals[place]
            new = arrival.delivery
            if new is None or arrival.outcome is not None or arrival.dead is not None or not self._plain(new):
                break
            left = room[new.agent] if new.agent in room else self.ledger.room(connection, new.agent)
            if left <= 0:
                break
            room[new.agent] = left if arrival.begins else left - 1
            usual.append((arrival, new))
        return usual

    def _plain(self, new: NewDelivery) -> bool:
        if new.order_key is not None or new.dead is not None or self.ledger.unknown(new.agent):
            return False
        return new.overlap == "queue" or new.overlap == "parallel"

    def begin(self, connection: sqlite3.Connection, starts: Sequence[Start]) -> list[tuple[Step, ...] | None]:
        """Count a try of each and return the steps of earlier ones, or None for one that is not as it was."""
        begun = rows.run(connection, _STARTS, starts)
        stepped = rows.run(connection, _STEPPED, begun)
        steps: dict[str, tuple[Step, ...]] = dict.fromkeys((delivery_id for (delivery_id,) in begun), ())
        steps |= {delivery_id: steps_of(connection, delivery_id) for (delivery_id,) in stepped}
        return [steps.pop(delivery_id, None) for delivery_id, _ in starts]

    def settle(self, connection: sqlite3.Connection, endings: Sequence[Ending]) -> list[Change]:
        """Write how deliveries ended, what follows from them and what this means for their events.

        Raises:
            OneByOne: One of them is not running any more; each for itself is settled as it should be.
        """
        written: list[rows.Values] = []
        last: list[Ending] = []
        others: list[Ending] = []
        for ending in endings if len(endings) > 1 else ():
            if self._follows(ending):
                written.append(_written(ending))
                (last if ending.is_last else others).append(ending)
        if rows.change(connection, _ENDS, written) != len(written):
            raise OneByOne
        done = self._finish(connection, last) | self._go_on(connection, others)
        return [done.get(id(ending)) or self.ledger.settle(connection, ending) for ending in endings]

    def _follows(self, ending: Ending) -> bool:
        """Whether it is done and what follows goes in without a look at others."""
        verdict = ending.verdict
        if verdict.status != "done" or ending.row.delivery.order_key is not None or ending.leaves_a_step:
            return False
        plain, endless = self._plain, self.ledger.endless
        return not verdict.successors or all(plain(new) and endless(new.agent) for new in verdict.successors)

    def _finish(self, connection: sqlite3.Connection, endings: Sequence[Ending]) -> dict[int, Change]:
        """Settle the events of which these were the only deliveries."""
        changes: dict[int, Change] = {}
        over: list[rows.Values] = []
        for ending in endings:
            event_id, origin, now, cost = ending.row.delivery.event_id, ending.row.origin, ending.now, ending.cost_usd
            over.append((event_id, now, cost))
            change = changes[id(ending)] = Change()
            change.touched.add(event_id)
            if self.ledger.tells:
                # As `event_record` shows it; who hears of it has the event at hand.
                row = event_id, origin.trigger, origin.agent, "done", "ran", ending.attempt, origin.created, now, cost
                change.settled.append((*row, None, None))
        self._over(connection, over)
        return changes

    def _over(self, connection: sqlite3.Connection, over: Sequence[rows.Values]) -> None:
        """Write down that events have settled, each (id, time, cost)."""
        rows.run(connection, _FINISHED, over)
        if self.ledger.tells:
            rows.run(connection, UNTOLD, [row[:1] for row in over])

    def _go_on(self, connection: sqlite3.Connection, endings: Sequence[Ending]) -> dict[int, Change]:
        """Write what follows, and settle the events of which every delivery is done."""
        ids = dict.fromkeys(ending.delivery.event_id for ending in endings)
        totals = {row[0]: row for row in rows.run(connection, _TOTALS, [(event_id,) for event_id in ids])}
        messages = {event_id: row[1] for event_id, row in totals.items()}
        changes: dict[int, Change] = {}
        successors: list[_Placed] = []
        last: dict[str, tuple[Change, float]] = {}
        spent: dict[str, float] = {}
        for ending in endings:
            event_id, verdict = ending.delivery.event_id, ending.verdict
            change = changes[id(ending)] = Change()
            change.touched.add(event_id)
            before, goes_on = messages[event_id], bool(verdict.successors)
            messages[event_id] += len(verdict.successors)
            if self.ledger.allows(messages[event_id]):
                successors += [(change, ending.now, new, new.id in ending.begins) for new in verdict.successors]
            else:
                goes_on = self.ledger.follow(connection, before, ending, change)
            if not goes_on:
                last[event_id] = change, ending.now
            elif verdict.cost_usd is not None:
                spent[event_id] = spent.get(event_id, 0.0) + verdict.cost_usd
        _insert(connection, successors)
        rows.run(connection, _SPENT, list(spent.items()))
        over = {event_id for event_id in last if totals[event_id][1:3] == (messages[event_id],) * 2}
        for event_id in last.keys() - over:
            self.ledger.refresh(connection, event_id, last[event_id][1], last[event_id][0])
        self._over(connection, [(event_id, last[event_id][1], totals[event_id][3]) for event_id in over])
        if self.ledger.tells:
            for row in rows.run(connection, _SETTLED, [(event_id,) for event_id in over]):
                last[row[0]][0].settled.append(row)
        return changes


def record(connection: sqlite3.Connection, steps: Sequence[StepRow]) -> list[None]:
    """Write steps down, each (delivery id, key, kind, data)."""
    rows.run(connection, STEPS, steps)
    return [None] * len(steps)


def _written(ending: Ending) -> rows.Values:
    verdict = ending.verdict
    return (
        ending.row.delivery.id, ending.attempt, verdict.content, verdict.usage, verdict.model, ending.now,
        ending.cost_usd, ending.reply,
    )  # fmt: skip


def _accept(connection: sqlite3.Connection, arrivals: Sequence[_Usual]) -> list[Accepted]:
    events: list[rows.Values] = []
    keys: list[rows.Values] = []
    deliveries: list[_Placed] = []
    found: list[Accepted] = []
    for arrival, new in arrivals:
        event, now, begins, change = arrival.event, arrival.now, arrival.begins, Change()
        status = "running" if begins else "pending"
        events.append((event.id, arrival.trigger, arrival.agent, event.type, status, now, arrival.data, new.id))
        if arrival.key is not None:
            keys.append((arrival.trigger, arrival.key, event.id, arrival.expires))
        deliveries.append((change, now, new, begins))
        found.append(Accepted(Receipt(event.id, True), 0, change))  # noqa: FBT003 - it is new
    rows.run(connection, _EVENTS, events)
    rows.run(connection, _KEYS, keys)
    _insert(connection, deliveries)
    return found


def _insert(connection: sqlite3.Connection, deliveries: Sequence[_Placed]) -> None:
    """Write deliveries down and note in the change of each that it may start, or has started with this."""
    written: list[rows.Values] = []
    waiting: Counter[str] = Counter()
    for _, now, new, begins in deliveries:
        if not begins:
            waiting[new.agent] += 1
        status = "running" if begins else "pending"
        facts = new.id, new.event_id, new.agent, status, new.hops, new.message, now, new.priority, int(begins)
        written.append(facts)
    rows.run(connection, QUEUED, list(waiting.items()))
    for seq, (change, _, new, begins) in zip(rows.insert(connection, _DELIVERIES, written), deliveries, strict=True):
        change.fresh.append((new.id, seq))
        if begins:
            change.begun.add(new.id)
