"""Why an event waits: computed when somebody asks, from what is written."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmling.engines import records
from llmling.protocols import EventStatus
from llmling.records import STARTING

_PLACES = "concurrency"
_SPACE, _STARTING_KEY = STARTING
_APART = 2
_RUNNING = (
    "select d.agent, count(*) from event e join delivery d on d.event_id = e.id"
    " where e.status = 'running' and e.status != 'done' and d.status = 'running' group by d.agent"
)


@dataclass(frozen=True, slots=True)
class Sight:
    """When somebody looks, and whether any process serves the journal then."""

    now: float
    served: bool


def places(connection: sqlite3.Connection, pool: int, agents: Mapping[str, int]) -> None:
    """Write down how many deliveries may run at once, for those that look from another process."""
    connection.execute(
        "insert or replace into store values (?, ?, ?)",
        (_SPACE, _PLACES, records.encode({"pool": pool, "agents": dict(agents)})),
    )


class Reasons:
    """Finds the reasons of any number of events in one snapshot; what they share is read once."""

    def __init__(self, connection: sqlite3.Connection, sight: Sight) -> None:
        self._connection = connection
        self._sight = sight
        self._running: dict[str, int] | None = None
        self._places: Any = {}
        self._starting: Any = {}

    def of_deliveries(self, event_id: str) -> list[tuple[str, EventStatus, str | None]]:
        """Return id and status of the open deliveries of an event, and why each one waits, None for no reason."""
        found = self._connection.execute(
            "select id, status, agent, not_before, turn, order_key, crashes from delivery"
            " where event_id = ? and finished is null order by seq",
            (event_id,),
        ).fetchall()
        return [(delivery_id, status, self._reason(status, *facts)) for delivery_id, status, *facts in found]

    def of_event(self, event_id: str) -> str | None:
        """Return why an event waits: as its first delivery that does, None while one runs."""
        found = self.of_deliveries(event_id)
        if any(status == "running" and reason is None for _, status, reason in found):
            return None
        return next((reason for _, _, reason in found if reason is not None), None)

    def _reason(
        self, status: EventStatus, agent: str, not_before: float, turn: int, order_key: str | bytes | None, crashes: int
    ) -> str | None:
        if status == "waiting":
            return "approval or answer of a person"
        if not self._sight.served:
            return "a process that serves: start `llmling serve`"
        running = self._look()
        if status == "running":
            servers = self._starting.get(agent, ())
            return f"agent is starting: MCP server {', '.join(servers)}" if servers else None
        if not turn and order_key is not None:
            return f"order key {records.restored(order_key)!r} behind {self._ahead(agent, order_key)}"
        if not_before > self._sight.now:
            return f"next try in {math.ceil(not_before - self._sight.now)} s"
        most = self._places.get("agents", {}).get(agent)
        if most is not None and running.get(agent, 0) >= most:
            return f"agent's concurrency {most} in use"
        most = self._places.get("pool")
        if most is not None and sum(running.values()) >= most:
            return f"the pool's concurrency {most} in use"
        return f"others: it saw the process die {crashes} times and starts apart" if crashes >= _APART else None

    def _ahead(self, agent: str, order_key: str | bytes) -> str:
        found = self._connection.execute(
            "select event_id from delivery where agent = ? and order_key = ? and turn = 1 and finished is null",
            (agent, order_key),
        ).fetchone()
        return "another one" if found is None else str(found[0])

    def _look(self) -> Mapping[str, int]:
        if self._running is None:
            self._running = dict(self._connection.execute(_RUNNING))
            facts = dict(self._connection.execute("select key, value from store where space = ?", (_SPACE,)))
            self._places = json.loads(facts.get(_PLACES, "{}"))
            self._starting = json.loads(facts.get(_STARTING_KEY, "{}"))
        return self._running
