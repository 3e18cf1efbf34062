"""What is read: every function gets the reading connection and changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmling.engines import records
from llmling.engines.lookups import steps_of
from llmling.engines.reasons import Reasons, Sight
from llmling.engines.records import Row
from llmling.protocols import EventRecord, EventStatus, Receipt

_LAST = 2**62


def known(connection: sqlite3.Connection, trigger: str, keys: Sequence[str], now: float) -> dict[str, Receipt]:
    """Return the receipts of those keys that are known."""
    receipts: dict[str, Receipt] = {}
    for key in keys:
        found = connection.execute(
            "select k.event_id, e.status, e.error from key k left join event e on e.id = k.event_id"
            " where k.trigger = ? and k.key = ? and (k.expires is null or k.expires > ?)",
            (trigger, records.stored(key), now),
        ).fetchone()
        if found is not None:
            receipts[key] = records.receipt(*found)
    return receipts


def page(
    connection: sqlite3.Connection,
    status: EventStatus | None,
    trigger: str | None,
    before: int | None,
    limit: int,
    sight: Sight,
) -> tuple[list[EventRecord], int | None]:
    """Return events before place `before`, newest first, and the place of the last one, None when there is none."""
    place = _LAST if before is None else before
    conditions, values = "n < ? and (? is null or trigger = ?)", (place, trigger, trigger, limit)
    if status is not None:
        # The index holds the few events that are not done; done are nearly all, so they are found on the way.
        conditions += " and status = ?" if status == "done" else " and status = ? and status != 'done'"
        values = (place, trigger, trigger, status, limit)
    rows = connection.execute(
        f"select * from event_record where {conditions} order by n desc limit ?",  # noqa: S608 - our own words
        values,
    ).fetchall()
    reasons = Reasons(connection, sight)
    found = [
        records.event_record(columns, waits_for=None if columns[7] is not None else reasons.of_event(columns[0]))
        for columns in rows
    ]
    return found, rows[-1][11] if rows else None


def inspect(connection: sqlite3.Connection, event_id: str, sight: Sight) -> EventRecord | None:
    """Return one event with its deliveries and their steps."""
    columns = connection.execute("select * from event_record where id = ?", (event_id,)).fetchone()
    if columns is None:
        return None
    rows = connection.execute("select * from delivery_record where event_id = ? order by seq", (event_id,)).fetchall()
    reasons = Reasons(connection, sight)
    waits = {delivery_id: reason for delivery_id, _, reason in reasons.of_deliveries(event_id)}
    deliveries = tuple(
        records.delivery_record(row, steps_of(connection, row[0], row[11]), waits_for=waits.get(row[0])) for row in rows
    )
    return records.event_record(columns, deliveries, reasons.of_event(event_id))


def awaited(
    connection: sqlite3.Connection,
    event_id: str,
    over: Callable[[EventStatus, EventStatus | None], bool],
    sight: Sight,
) -> tuple[bool, EventRecord | None]:
    """Return whether there is such an event and, once `over` holds for its status and its first delivery's, it."""
    found = connection.execute("select status, first_status from event_record where id = ?", (event_id,)).fetchone()
    return found is not None, inspect(connection, event_id, sight) if found is not None and over(*found) else None


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return how many events there are by status."""
    found = dict(connection.execute("select status, count(*) from event where status != 'done' group by status"))
    done = connection.execute("select count(*) from event").fetchone()[0] - sum(found.values())
    return {**found, "done": done} if done else found


@dataclass(frozen=True, slots=True)
class Due:
    """Deliveries that are due: those to hold now, those that are pending but held, priorities that may have more.

    `broken` are (id, reason) of those that cannot be read. `later` is when the next one that is not due yet will be.
    """

    rows: list[Row]
    held: list[str]
    broken: list[tuple[str, str]]
    more: frozenset[int]
    later: float | None


def due(
    connection: sqlite3.Connection, agent: str, now: float, room: Callable[[int], int], held: Collection[str]
) -> Due:
    """Return the first pending deliveries of an agent that may start and are not in `held`, `room(priority)` of each.

    A delivery that is not due yet or whose order key has another one before it may not start.
    """
    found = Due([], [], [], frozenset(), _later(connection, agent, now))
    more: set[int] = set()
    for priority in _priorities(connection, agent):
        limit = room(priority)
        rows = connection.execute(
            f"select {records.ROW} where d.status = 'pending' and d.agent = ? and d.turn = 1 and d.priority = ?"
            " and d.not_before <= ? order by d.seq limit ?",
            (agent, priority, now, limit + len(held)),
        ).fetchall()
        fresh = [columns for columns in rows if columns[1] not in held]
        found.held.extend(columns[1] for columns in rows if columns[1] in held)
        if len(rows) == limit + len(held) or len(fresh) > limit:
            more.add(priority)
        for columns in fresh[:limit]:
            try:
                found.rows.append(records.row(columns))
            except (ValueError, KeyError, TypeError) as error:
                reason = f"cannot be read from the engine's file ({type(error).__name__}: {error})"
                found.broken.append((columns[1], reason))
    return replace(found, more=frozenset(more))


def _priorities(connection: sqlite3.Connection, agent: str) -> Iterator[int]:
    """Yield the priorities of pending deliveries, highest first; each is found in the index."""
    statement = (
        "select max(priority) from delivery where agent = ? and turn = 1 and status = 'pending' and priority < ?"
    )
    priority = _LAST
    while (priority := connection.execute(statement, (agent, priority)).fetchone()[0]) is not None:
        yield priority


def _later(connection: sqlite3.Connection, agent: str, now: float) -> float | None:
    return connection.execute(
        "select min(not_before) from delivery where agent = ? and status = 'pending' and not_before > 0"
        " and not_before > ?",
        (agent, now),
    ).fetchone()[0]


def not_running(connection: sqlite3.Connection, delivery_ids: Sequence[str]) -> list[str]:
    """Return those deliveries that are not running by what is written."""
    return [delivery_id for delivery_id in delivery_ids if _status(connection, delivery_id) != "running"]


def outdated(connection: sqlite3.Connection, finished_before: float, after: int, limit: int) -> tuple[list[str], int]:
    """Return settled events that finished before a time, and the place up to which was looked, 0 at the end.

    Events lie in the order in which they came, so the look ends at the first that came after that time.
    """
    rows = connection.execute(
        "select n, id, created, finished from event where n > ? order by n limit ?", (after, limit)
    ).fetchall()
    old = [event_id for _, event_id, _, finished in rows if finished is not None and finished < finished_before]
    at_end = len(rows) < limit or rows[-1][2] >= finished_before
    return old, 0 if at_end else rows[-1][0]


def surplus(connection: sqlite3.Connection, keep: int, limit: int) -> list[str]:
    """Return the oldest settled events beyond the newest `keep` events."""
    rows = connection.execute(
        "select id from event where finished is not null and n <= (select max(n) from event) - ? order by n limit ?",
        (keep, limit),
    ).fetchall()
    return [row[0] for row in rows]


def value(connection: sqlite3.Connection, space: str, key: str) -> Any:
    """Return a value of the store, or None."""
    found = connection.execute(
        "select value from store where space = ? and key = ?", (records.stored(space), records.stored(key))
    ).fetchone()
    return None if found is None else json.loads(found[0])


def values(connection: sqlite3.Connection, space: str) -> dict[str, Any]:
    """Return all values of a space."""
    rows = connection.execute("select key, value from store where space = ?", (records.stored(space),)).fetchall()
    return {records.restored(key): json.loads(text) for key, text in rows}


def _status(connection: sqlite3.Connection, delivery_id: str) -> EventStatus | None:
    found = connection.execute("select status from delivery where id = ?", (delivery_id,)).fetchone()
    return None if found is None else found[0]
