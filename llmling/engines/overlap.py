"""What an event meets that is skipped or coalesced beside others of its trigger and key."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from llmling.engines.records import NewDelivery
from llmling.protocols import Overlap

WATCHED: frozenset[Overlap] = frozenset({"skip", "coalesce"})


@dataclass(frozen=True, slots=True)
class Met:
    """What comes of it: the event is skipped, or takes the place of others, each (delivery id, event id)."""

    skipped: bool = False
    replaced: tuple[tuple[str, str], ...] = ()


ALONE = Met()


def line(new: NewDelivery) -> str | bytes | None:
    """Return what events are written down under that look at one another, None for all others."""
    if new.overlap not in WATCHED:
        return None
    return "" if new.order_key is None else new.order_key


def meet(connection: sqlite3.Connection, trigger: str, new: NewDelivery) -> Met:
    """Look at the open events of the same trigger and key that were accepted under such a rule, too.

    `skip`: one that is not settled, with all that follows from it, is enough. `coalesce`: those that have not begun
    make room; one that waits for its next try has begun.
    """
    if new.overlap == "skip":
        statement = "select 1 from event where trigger = ? and line = ? and finished is null limit 1"
        return Met(skipped=connection.execute(statement, (trigger, line(new))).fetchone() is not None)
    found = connection.execute(
        "select d.id, d.event_id from event e join delivery d on d.id = e.first"
        " where e.trigger = ? and e.line = ? and e.finished is null"
        " and d.status = 'pending' and d.attempts = 0 and d.crashes = 0",
        (trigger, line(new)),
    ).fetchall()
    return Met(replaced=tuple(found))
