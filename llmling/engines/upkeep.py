"""The writes beside the daily run: recovery at start, what an operator asks for, and retention.

Like those of the ledger, all are operations of the writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from llmling.engines.ledger import Ledger, event_row, gone
from llmling.engines.records import Change, EventRow

CHUNK = 200


def recover(connection: sqlite3.Connection, ledger: Ledger, now: float) -> Change:
    """Take back what an earlier process was running; what has killed the process too often is dead."""
    change = Change()
    policies = ledger.policies or {}
    # A delivery only runs in an event that is running, which the index on the event's status finds.
    left = connection.execute(
        "select d.id, d.event_id, d.agent, d.attempts, d.crashes + 1 from event e join delivery d on d.event_id = e.id"
        " where e.status = 'running' and d.status = 'running'"
    ).fetchall()
    for delivery_id, event_id, agent, attempts, crashes in left:
        connection.execute("update delivery set status = 'pending', crashes = ? where id = ?", (crashes, delivery_id))
        policy = policies.get(agent)
        if policy is not None and attempts >= policy.attempts:
            times = "once" if crashes == 1 else f"{crashes} times"
            reason = f"the process died {times} while running this delivery"
            if crashes < attempts:
                reason += f" ({attempts} attempts in all)"
            ledger.kill(connection, delivery_id, reason, now)
        ledger.refresh(connection, event_id, now, change)
    # A wall clock that was set back meanwhile must not make anything wait longer than it was told to.
    connection.execute(
        "update delivery set not_before = ? + wait_s where status = 'pending' and not_before > 0"
        " and not_before > ? + wait_s",
        (now, now),
    )
    return change


def bury(connection: sqlite3.Connection, ledger: Ledger, now: float) -> Change:
    """Settle up to 200 pending deliveries of agents that are gone; `count` says how many there were."""
    change = Change()
    policies = ledger.policies or {}
    agents = [row[0] for row in connection.execute("select agent from inbox where pending > 0").fetchall()]
    for agent in agents:
        if agent in policies or change.count >= CHUNK:
            continue
        rows = connection.execute(
            "select id, event_id from delivery where agent = ? and status = 'pending' order by seq limit ?",
            (agent, CHUNK - change.count),
        ).fetchall()
        for delivery_id, event_id in rows:
            ledger.kill(connection, delivery_id, gone(agent), now)
            ledger.refresh(connection, event_id, now, change)
        change.count += len(rows)
    return change


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
        connection.execute(
            "update delivery set status = 'pending', attempts = 0, crashes = 0, not_before = 0, wait_s = 0,"
            " error = null, finished = null where id = ?",
            (delivery_id,),
        )
        change.requeued.add(agent)
    if rows:
        connection.execute("update event set outcome = null, finished = null, told = 0 where id = ?", (event_id,))
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
        ledger.kill(connection, delivery_id, "dropped by operator", now)
        if status == "running":
            change.stopped.add(delivery_id)
    ledger.refresh(connection, event_id, now, change)
    change.count = len(rows)
    return change


def forget(connection: sqlite3.Connection, event_ids: Sequence[str]) -> None:
    """Delete events with all that belongs to them but their keys, so that they never run again."""
    # Somebody may have retried one since it was looked up.
    ids = [
        (event_id,)
        for event_id in event_ids
        if connection.execute("select 1 from event where id = ? and finished is not null", (event_id,)).fetchone()
    ]
    connection.executemany("delete from step where delivery_id in (select id from delivery where event_id = ?)", ids)
    connection.executemany("delete from delivery where event_id = ?", ids)
    connection.executemany("delete from event where id = ?", ids)


def forget_keys(connection: sqlite3.Connection, now: float) -> int:
    """Delete up to 200 keys that have expired; return how many."""
    return connection.execute(
        "delete from key where (trigger, key) in"
        " (select trigger, key from key where expires is not null and expires <= ? limit ?)",
        (now, CHUNK),
    ).rowcount


def untold(connection: sqlite3.Connection) -> list[EventRow]:
    """Return up to 200 settled events the serving process has not heard of."""
    rows: list[Any] = connection.execute(
        "select id from event where told = 0 and finished is not null order by n limit ?", (CHUNK,)
    ).fetchall()
    return [event_row(connection, event_id) for (event_id,) in rows]


def told(connection: sqlite3.Connection, event_ids: Sequence[str]) -> None:
    """Write down that the serving process has heard of these events."""
    connection.executemany(
        "update event set told = 1 where id = ? and finished is not null", [(event_id,) for event_id in event_ids]
    )
