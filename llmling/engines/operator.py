"""What an operator does to an event: try it again, give it up, or decide what it waits for.

Like those of the ledger, all are operations of the writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from llmling.asks import Decision, open_asks, place
from llmling.engines import records
from llmling.engines.batches import record
from llmling.engines.ledger import Ledger
from llmling.engines.lookups import steps_of
from llmling.engines.records import Change
from llmling.engines.upkeep import forget
from llmling.records import gone


def retry(connection: sqlite3.Connection, ledger: Ledger, event_id: str, now: float) -> Change:
    """Give the dead and waiting deliveries of an event their tries back; one in its back-off is due at once.

    Calls that were in flight are forgotten, so that they are made again: somebody decided.
    """
    change = Change()
    delayed = connection.execute(
        "update delivery set not_before = 0, wait_s = 0 where event_id = ? and status = 'pending' and not_before > ?"
        " returning agent",
        (event_id, now),
    ).fetchall()
    change.requeued.update(agent for (agent,) in delayed)
    rows = connection.execute(
        "select id, agent from delivery where event_id = ? and status in ('dead', 'waiting') order by seq", (event_id,)
    ).fetchall()
    for delivery_id, agent in rows:
        connection.execute(
            "delete from step where delivery_id = ? and kind = 'call' and not exists (select 1 from step r"
            " where r.delivery_id = step.delivery_id"
            " and r.key = substr(step.key, 1, length(step.key) - length(':call')) || ':result')",
            (delivery_id,),
        )
        _requeue(connection, ledger, delivery_id, agent, now, change)
    if rows:
        connection.execute("update event set outcome = null, finished = null where id = ?", (event_id,))
        connection.execute("delete from untold where event_id = ?", (event_id,))
        ledger.refresh(connection, event_id, now, change)
    change.count = len(rows) + len(delayed)
    return change


def drop(connection: sqlite3.Connection, ledger: Ledger, event_id: str, now: float) -> Change:
    """Settle the open deliveries of an event as dead, or forget an event that is settled; keys stay."""
    change = Change()
    found = connection.execute("select finished from event where id = ?", (event_id,)).fetchone()
    if found is None:
        return change
    change.touched.add(event_id)
    if found[0] is not None:
        forget(connection, [event_id])
        change.count = 1
        return change
    rows = connection.execute(
        "select id, status from delivery where event_id = ? and status in ('pending', 'running', 'waiting')",
        (event_id,),
    ).fetchall()
    for delivery_id, status in rows:
        ledger.kill(connection, delivery_id, "dropped by operator", now, change)
        if status == "running":
            change.stopped.add(delivery_id)
    ledger.refresh(connection, event_id, now, change)
    change.count = len(rows)
    return change


def decide(
    connection: sqlite3.Connection,
    ledger: Ledger,
    event_id: str,
    decision: Decision,
    seen: Collection[str] | None,
    now: float,
) -> Change:
    """Settle what the first waiting delivery asks that such a decision answers; `count` says how many asks."""
    change = Change()
    rows = connection.execute(
        "select id, agent from delivery where event_id = ? and status = 'waiting' order by seq", (event_id,)
    ).fetchall()
    for delivery_id, agent in rows:
        asks = decision.settles(open_asks(steps_of(connection, delivery_id)))
        if not asks or (seen is not None and any(place(delivery_id, ask) not in seen for ask in asks)):
            continue
        for ask in asks:
            step = decision.step(ask.key)
            data = records.encode(dict(step.data))
            record(connection, [(delivery_id, records.stored(step.key), step.kind, data)])
        _requeue(connection, ledger, delivery_id, agent, now, change)
        ledger.refresh(connection, event_id, now, change)
        change.count = len(asks)
        break
    return change


def _requeue(
    connection: sqlite3.Connection, ledger: Ledger, delivery_id: str, agent: str, now: float, change: Change
) -> None:
    if ledger.unknown(agent):
        ledger.kill(connection, delivery_id, records.stored(gone(agent)), now, change)
        return
    connection.execute(
        "update delivery set status = 'pending', attempts = 0, crashes = 0, not_before = 0, wait_s = 0,"
        " error = null, finished = null where id = ?",
        (delivery_id,),
    )
    change.requeued.add(agent)
