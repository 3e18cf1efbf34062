"""What the writes look up before they decide: small reads in the same transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

from llmling.engines import records
from llmling.engines.records import EventRow
from llmling.protocols import EventStatus, Receipt, Step


def event_row(connection: sqlite3.Connection, event_id: str) -> EventRow:
    """Return the row of an event."""
    return connection.execute("select * from event_record where id = ?", (event_id,)).fetchone()


def steps_of(connection: sqlite3.Connection, delivery_id: str, reply: str | None = None) -> tuple[Step, ...]:
    """Return the steps of a delivery, in the order in which they were recorded; `reply` is that of its row."""
    found = connection.execute(
        "select key, kind, data from step where delivery_id = ? order by rowid", (delivery_id,)
    ).fetchall()
    steps = {step.key: step for step in map(records.step, found)}
    if reply is not None:
        last = records.reply_step(reply)
        steps.pop(last.key, None)
        steps[last.key] = last
    return tuple(steps.values())


def known(connection: sqlite3.Connection, event_id: str) -> Receipt:
    """Return the receipt of an event that is known already."""
    found, error = status(connection, event_id)
    return records.receipt(event_id, found, error)


def status(connection: sqlite3.Connection, event_id: str) -> tuple[Any, Any]:
    """Return status and error of an event, nothing of one that is forgotten."""
    found = connection.execute("select status, error from event where id = ?", (event_id,)).fetchone()
    return (None, None) if found is None else found


def exists(connection: sqlite3.Connection, event_id: str) -> bool:
    """Whether there is such an event."""
    return connection.execute("select 1 from event where id = ?", (event_id,)).fetchone() is not None


def first_in_line(connection: sqlite3.Connection, agent: str, order_key: str | bytes) -> bool:
    """Whether no delivery of this agent and order key is open."""
    statement = "select 1 from delivery where agent = ? and order_key = ? and finished is null"
    return connection.execute(statement, (agent, order_key)).fetchone() is None


def oldest(connection: sqlite3.Connection, agent: str) -> list[tuple[Any, ...]]:
    """Return id, event, priority and place of the oldest pending deliveries of the lowest priority."""
    statement = (
        "select id, event_id, priority, seq from delivery where agent = ? and turn = ? and status = 'pending'"
        " order by priority, seq limit 1"
    )
    return [found for turn in (0, 1) for found in connection.execute(statement, (agent, turn)).fetchall()]


def pending(connection: sqlite3.Connection, agent: str) -> int:
    """Return how many deliveries fill the inbox of an agent."""
    found = connection.execute("select pending from inbox where agent = ?", (agent,)).fetchone()
    return 0 if found is None else found[0]


def first_error(connection: sqlite3.Connection, event_id: str, status: EventStatus) -> str | bytes | None:
    """Return why the first delivery of an event with this status has it."""
    return connection.execute(
        "select error from delivery where event_id = ? and status = ? order by seq limit 1", (event_id, status)
    ).fetchone()[0]
