"""Records in a key-value bucket, each written only over the version that was read, and the queue beside them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from llmling.engines.jetstream.link import Conflict, Link, Unreachable
from llmling.errors import EngineError
from llmling.events import new_id

# NATS takes messages of 1 MB as it comes; what is larger than this is written in parts.
_PART_BYTES = 512 * 1024
_PARTS = "$parts"
_HEADER = "Llmling"
_CHANGED = ("num_replicas", "max_msgs_per_subject")
"""What a stream of an earlier start may have otherwise."""
_IN_USE = frozenset({10058, 10065})
"""Codes of the server: the name, or the subjects, are those of another stream."""
_BEING_MADE_S, _LOOK_S = 5.0, 0.05
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A value as it was read under a key, the place of that version, and where its parts are, if it has any."""

    key: str
    value: Any
    revision: int
    parts: str | None = None


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above a record: its key, its place, and the facts by which records are listed."""

    key: str
    revision: int
    facts: Mapping[str, Any]


class Book:
    """The records and the queue of one pool; pools with different names share a server without touching each other."""

    def __init__(self, link: Link, name: str, replicas: int) -> None:
        self.link = link
        self.name = name
        self.records = f"KV_{name}"
        self.queue = f"{name}-queue"
        self.lines = f"{name}-lines"
        self._replicas = replicas
        self._prefix = f"$KV.{name}."

    async def prepare(self) -> None:
        """Make what is not there yet.

        Raises:
            EngineError: The server refuses.
        """
        # Whoever writes a new version deletes the old one. Server 2.9.10, when killed, may forget that it is gone,
        # and where there is a limit of one it then deletes the new one.
        common: dict[str, Any] = {
            "num_replicas": self._replicas, "storage": "file", "discard": "new", "max_age": 0, "max_bytes": -1,
            "max_msgs": -1, "max_msgs_per_subject": -1, "max_consumers": -1, "max_msg_size": -1,
            "duplicate_window": 120_000_000_000,
        }  # fmt: skip
        records = {
            **common, "name": self.records, "subjects": [f"{self._prefix}>"], "retention": "limits",
            "allow_rollup_hdrs": True, "deny_delete": False,
        }  # fmt: skip
        queue = {**common, "name": self.queue, "subjects": [f"{self.name}.queue.>"], "retention": "workqueue"}
        lines = {**common, "name": self.lines, "subjects": [f"{self.name}.line.>"], "retention": "limits"}
        for config in (records, queue, lines):
            await self._make(config)

    async def _make(self, config: Mapping[str, Any]) -> None:
        stream, until = config["name"], time.monotonic() + _BEING_MADE_S
        while True:
            found = await self.link.api(f"STREAM.INFO.{stream}")
            if found.get("error", {}).get("code") != 404 and "error" in found:
                raise EngineError(f"NATS does not show its stream {stream}: {found['error']['description']}")
            call = "CREATE" if "error" in found else "UPDATE"
            if call == "UPDATE" and all(found["config"].get(name) == config.get(name) for name in _CHANGED):
                return
            answer = await self.link.api(f"STREAM.{call}.{stream}", config)
            if (error := answer.get("error")) is None:
                return
            if call == "UPDATE" or error.get("err_code") not in _IN_USE or time.monotonic() > until:
                raise EngineError(
                    f"NATS cannot keep events in {stream}: {error['description']}; `engine.replicas` is "
                    f"{self._replicas}, and a cluster needs at least so many servers"
                )
            # Another process is making it.
            await asyncio.sleep(_LOOK_S)

    # --- records -----------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> Found | None:
        """Return what is written under a key, or None."""
        torn = 0
        while (found := await self.link.last(self.records, self._prefix + key)) is not None:
            message, revision = found
            if (value := await self._found(key, _decoded(message.get("data", "")), revision)) is not None:
                return value
            if revision == torn:
                raise EngineError(f"a part of {key} is missing in NATS")
            # A newer version has just replaced this one.
            torn = revision
        return None

    async def write(
        self,
        key: str,
        value: Any,
        over: Found | None,
        *,
        facts: Mapping[str, Any] | None = None,
        group: str = "value",
    ) -> Found:
        """Write a value over the version `over`, None: there must be none; that one is deleted with its parts.

        Raises:
            Conflict: Another version is there.
        """
        data, parts = await self._parted(value, group)
        headers = None if facts is None else {_HEADER: json.dumps(facts)}
        last = 0 if over is None else over.revision
        try:
            revision = await self.link.publish(self._prefix + key, data, last=last, headers=headers)
        except Conflict:
            if parts is not None:
                await self.link.purge(self.records, f"{self._prefix}body.{parts}.*")
            raise
        if over is not None:
            await self.link.drop(self.records, over.revision)
        if over is not None and over.parts is not None:
            await self.link.purge(self.records, f"{self._prefix}body.{over.parts}.*")
        return Found(key, value, revision, parts)

    async def put(self, key: str, value: Any, *, group: str, over: Found | None = None) -> Found:
        """Write a value over whatever is there; `over` is the version that is known to be there."""
        data, parts = await self._parted(value, group)
        revision = await self.link.publish(self._prefix + key, data)
        if over is not None:
            await self.link.drop(self.records, over.revision)
        return Found(key, value, revision, parts)

    async def erase(self, found: Found | Heading) -> None:
        """Delete a version of a record and what is left of those before it; a newer one stays."""
        await self.link.delete(self.records, found.revision)
        subject = self._prefix + found.key
        while (left := await self.link.last(self.records, subject)) is not None and left[1] < found.revision:
            await self.link.delete(self.records, left[1])
        if isinstance(found, Found) and found.parts is not None:
            await self.link.purge(self.records, f"{self._prefix}body.{found.parts}.*")

    async def forget(self, pattern: str) -> None:
        """Delete all records whose key matches, where nobody scans."""
        await self.link.purge(self.records, self._prefix + pattern)

    async def headings(self, pattern: str, *, after: int | None = None) -> AsyncGenerator[Heading]:
        """Yield what stands above all records whose key matches, `after` a place or all, without reading them."""
        scan = self.link.scan(self.records, self._prefix + pattern, headers_only=True, after=after)
        async with aclosing(scan) as messages:
            async for message, revision in messages:
                headers: Any = message.headers or {}
                facts: dict[str, Any] = json.loads(headers.get(_HEADER, "{}"))
                yield Heading(message.subject.removeprefix(self._prefix), revision, facts)

    async def count(self, pattern: str) -> int:
        """Return how many records there are whose key matches."""
        return await self.link.count(self.records, self._prefix + pattern)

    async def last_place(self) -> int:
        """Return the place of what was written last."""
        answer = await self.link.api(f"STREAM.INFO.{self.records}")
        if (error := answer.get("error")) is not None:
            raise Unreachable(f"NATS cannot read right now: {error['description']}")
        return answer["state"]["last_seq"]

    def subject(self, pattern: str) -> str:
        """Return under which subject records are written whose key matches."""
        return self._prefix + pattern

    async def scan(self, pattern: str) -> AsyncGenerator[tuple[str, Found]]:
        """Yield all records whose key matches, those written last at the end."""
        async with aclosing(self.link.scan(self.records, self._prefix + pattern)) as messages:
            async for message, revision in messages:
                key = message.subject.removeprefix(self._prefix)
                found = await self._found(key, message.data, revision) or await self.get(key)
                if found is not None:
                    yield key, found

    async def _parted(self, value: Any, group: str) -> tuple[bytes, str | None]:
        data = json.dumps(value, separators=(",", ":")).encode()
        if len(data) <= _PART_BYTES:
            return data, None
        parts = f"{group}.{new_id()}"
        count = 0
        for start in range(0, len(data), _PART_BYTES):
            await self.link.publish(f"{self._prefix}body.{parts}.{count}", data[start : start + _PART_BYTES])
            count += 1
        return json.dumps({_PARTS: [parts, count]}).encode(), parts

    async def _found(self, key: str, data: bytes, revision: int) -> Found | None:
        """Return a value with its parts, None when one of them is gone."""
        value: Any = json.loads(data)
        if not isinstance(value, dict) or _PARTS not in value:
            return Found(key, value, revision)
        parts: str
        count: int
        parts, count = cast("Any", value)[_PARTS]
        whole = b""
        for number in range(count):
            found = await self.link.last(self.records, f"{self._prefix}body.{parts}.{number}")
            if found is None:
                return None
            whole += _decoded(found[0].get("data", ""))
        return Found(key, json.loads(whole), revision, parts)

    # --- the queue ---------------------------------------------------------------------------------------------------

    async def enqueue(self, event_id: str, entry: Mapping[str, Any]) -> None:
        """Queue a delivery, once however often it is asked for."""
        body = json.dumps([event_id, entry["id"], entry["turn"]]).encode()
        with contextlib.suppress(Conflict):
            await self.link.publish(self._ticket(event_id, entry), body, last=0)

    async def dequeue(self, event_id: str, entry: Mapping[str, Any]) -> None:
        """Take a delivery out of the queue."""
        found = await self.link.last(self.queue, self._ticket(event_id, entry))
        if found is not None:
            await self.link.delete(self.queue, found[1])

    def tickets(self, agent: str, priority: int | None = None) -> str:
        """Return what matches all tickets of an agent, or those of a priority."""
        return f"{self.name}.queue.{token(agent)}.{'' if priority is None else f'{priority}.'}>"

    def _ticket(self, event_id: str, entry: Mapping[str, Any]) -> str:
        place = f"{token(entry['agent'])}.{entry['priority']}.{token(event_id)}"
        return f"{self.name}.queue.{place}.{digest(entry['id'])}.{entry['turn']}"


def _decoded(data: str) -> bytes:
    return base64.b64decode(data)


def token(text: str) -> str:
    """Return a text as one part of a key: itself where NATS allows that."""
    return text if _SAFE.fullmatch(text) else "=" + digest(text)


def digest(text: str) -> str:
    """Return a part of a key that stands for any text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def event_name(event_id: str) -> str:
    """Return under which key an event is written."""
    return f"event.{token(event_id)}"
