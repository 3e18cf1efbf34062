"""The writes beside the daily run: recovery at start, what nobody can run any more, and retention.

Like those of the ledger, all are operations of the writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from llmling.engines import reasons, rows
from llmling.engines.ledger import Ledger
from llmling.engines.records import Change, EventRow
from llmling.protocols import Policy
from llmling.records import gone

CHUNK = 200


def recover(connection: sqlite3.Connection, ledger: Ledger, concurrency: int, now: float) -> Change:
    """Take back what an earlier process was running; what has killed the process too often is dead."""
    change = Change()
    policies = ledger.policies or {}
    rules(connection, concurrency, policies)
    # An earlier release that was still open when the file was upgraded has not counted what it accepted.
    connection.execute("delete from inbox")
    connection.execute(
        "insert into inbox select agent, count(*) from delivery where status = 'pending' group by agent order by agent"
    )
    # A delivery only runs in an event that is running, which the index on the event's status finds.
    left = connection.execute(
        "select d.id, d.event_id, d.agent, d.attempts, d.crashes + 1 from event e join delivery d on d.event_id = e.id"
        " where e.status = 'running' and e.status != 'done' and d.status = 'running'"
    ).fetchall()
    for delivery_id, event_id, agent, attempts, crashes in left:
        connection.execute("update delivery set status = 'pending', crashes = ? where id = ?", (crashes, delivery_id))
        policy = policies.get(agent)
        if policy is not None and attempts >= policy.attempts:
            times = "once" if crashes == 1 else f"{crashes} times"
            reason = f"the process died {times} while running this delivery"
            if crashes < attempts:
                reason += f" ({attempts} attempts in all)"
            ledger.kill(connection, delivery_id, reason, now, change)
        ledger.refresh(connection, event_id, now, change)
    # A wall clock that was set back meanwhile must not make anything wait longer than it was told to.
    connection.execute(
        "update delivery set not_before = ? + wait_s where status = 'pending' and not_before > 0"
        " and not_before > ? + wait_s",
        (now, now),
    )
    return change


def rules(connection: sqlite3.Connection, concurrency: int, policies: Mapping[str, Policy]) -> Change:
    """Write down how many deliveries run at once, for whoever asks what one waits for."""
    reasons.places(connection, concurrency, {agent: policy.concurrency for agent, policy in policies.items()})
    return Change()


def bury(connection: sqlite3.Connection, ledger: Ledger, now: float) -> Change:
    """Settle up to 200 pending deliveries of agents that are gone; `count` says how many there were."""
    change = Change()
    policies = ledger.policies or {}
    agents = [row[0] for row in connection.execute("select agent from inbox where pending > 0").fetchall()]
    for agent in agents:
        if agent in policies or change.count >= CHUNK:
            continue
        rows = connection.execute(
            "select id, event_id from delivery where agent = ? and status = 'pending' limit ?",
            (agent, CHUNK - change.count),
        ).fetchall()
        for delivery_id, event_id in rows:
            ledger.kill(connection, delivery_id, gone(agent), now, change)
            ledger.refresh(connection, event_id, now, change)
        change.count += len(rows)
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
    connection.executemany("delete from untold where event_id = ?", ids)
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
    # Not of those that an earlier release, still open when the file was upgraded, has forgotten.
    statement = "select event_record.* from untold join event_record on id = event_id limit ?"
    return connection.execute(statement, (CHUNK,)).fetchall()


def told(connection: sqlite3.Connection, heard: Sequence[Sequence[str]]) -> list[None]:
    """Write down that the serving process has heard of these events."""
    ids = [(event_id,) for event_ids in heard for event_id in event_ids]
    rows.run(connection, "delete from untold where event_id in (values {values})", ids)
    return [None] * len(heard)
