"""Why an event waits and where it runs: found when somebody asks, from what is written and what processes say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmling.engines.jetstream import events
from llmling.engines.jetstream.archive import Archive
from llmling.engines.jetstream.book import token
from llmling.engines.jetstream.events import NOTHING, Doc, Seen
from llmling.engines.jetstream.hearing import Hearing
from llmling.engines.jetstream.hosts import Hosts
from llmling.protocols import EventStatus, Host, Store
from llmling.records import STARTING

_SPACE, _STARTING_KEY = STARTING
_APART = 2


class Reasons:
    """Looks once for any number of events; what they share is asked for once."""

    def __init__(self, archive: Archive, hearing: Hearing, hosts: Hosts, store: Store, now: float) -> None:
        self._archive = archive
        self._hearing = hearing
        self._hosts = hosts
        self._store = store
        self._now = now
        self._served: bool | None = None
        self._known: Mapping[str, Host] | None = None
        self._starting: Mapping[str, Any] = {}
        self._full: dict[str, str | None] = {}
        self._pool: str | None = None
        self._pool_asked = False

    async def of(self, doc: Doc) -> tuple[Seen, dict[str, Seen]]:
        """Return what is to be said of an event, and of its open deliveries by their ids.

        An event waits as its first delivery that does, and does not while one runs.
        """
        found: dict[str, Seen] = {}
        runs: Seen | None = None
        for entry in doc["deliveries"]:
            if entry["status"] not in events.OVER:
                seen = found[entry["id"]] = await self._of(doc, entry)
                if entry["status"] == "running" and seen.waits_for is None and runs is None:
                    runs = seen
        first = next((seen for seen in found.values() if seen.waits_for is not None), NOTHING)
        host = next((seen.host for seen in found.values() if seen.host is not None), None)
        return (runs or Seen(first.waits_for, host)), found

    async def _of(self, doc: Doc, entry: Doc) -> Seen:
        status: EventStatus = entry["status"]
        if status == "waiting":
            return Seen("approval or answer of a person")
        if self._served is None:
            self._served = self._hearing.serves or await self._hearing.anybody()
        if not self._served:
            return Seen("a process that serves: start `llmling serve`")
        if status == "running":
            return await self._running(entry)
        if entry["order_key"] is not None:
            ahead = await self._archive.lines.ahead(doc, entry)
            if ahead is not None:
                return Seen(f"order key {entry['order_key']!r} behind {ahead}")
        if entry["due"] > self._now:
            return Seen(f"next try in {math.ceil(entry['due'] - self._now)} s")
        full = await self._agent_full(entry["agent"]) or await self._pool_full()
        if full is None and entry["crashes"] >= _APART:
            full = f"others: it saw the process die {entry['crashes']} times and starts apart"
        return Seen(full)

    async def _running(self, entry: Doc) -> Seen:
        if self._known is None:
            self._starting = await self._store.get(_SPACE, _STARTING_KEY) or {}
            self._known = {each.id: each for each in await self._hosts.read()}
        servers = self._starting.get(entry["agent"], ())
        host = self._known.get(entry["owner"])
        where = "a process that is gone" if host is None else str(host)
        if host is not None and host.state == "silent":
            where += f" (silent for {host.silent_s:.0f} s)"
        return Seen(f"agent is starting: MCP server {', '.join(servers)}" if servers else None, where)

    async def _agent_full(self, agent: str) -> str | None:
        if agent not in self._full:
            book = self._archive.book
            answer = await book.link.api(f"CONSUMER.INFO.{book.queue}.{token(agent)}")
            most = answer.get("config", {}).get("max_ack_pending")
            full = most is not None and answer["num_ack_pending"] >= most
            self._full[agent] = f"agent's concurrency {most} in use" if full else None
        return self._full[agent]

    async def _pool_full(self) -> str | None:
        if not self._pool_asked:
            self._pool_asked = True
            places = await self._hearing.places([each.id for each in await self._hosts.read()])
            if places and sum(used for used, _ in places) >= places[0][1]:
                self._pool = f"the pool's concurrency {places[0][1]} in use"
        return self._pool
