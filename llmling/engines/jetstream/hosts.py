"""The processes that serve these events: each says for itself that it is there, and reads who else does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from llmling.engines.jetstream.book import Book, Found
from llmling.engines.jetstream.link import written_at
from llmling.errors import EngineError
from llmling.protocols import Host

log = logging.getLogger("llmling.engine")
_FORGET_S = 3600.0


class Hosts:
    """Renews the record of this process three times per lease.

    How long one has been silent is measured from the newest of these records, by the server's clock alone, so those of
    the machines do not matter.
    """

    def __init__(self, book: Book, own: str, lease_s: float, wall: Callable[[], float]) -> None:
        """`own` is the id of this process, `wall` gives Unix seconds."""
        self._book = book
        self.own = own
        self._lease_s = lease_s
        self._key = f"host.{own}"
        self._facts = (socket.gethostname(), os.getpid(), wall())
        self._known: tuple[Host, ...] = ()
        self._said: Found | None = None
        self._moved = asyncio.Event()

    @property
    def known(self) -> tuple[Host, ...]:
        """All processes, as they were seen at most a third of a lease ago, those that serve longest first."""
        return self._known

    async def say(self) -> None:
        """Say that this process serves.

        Raises:
            EngineError: NATS does not answer.
        """
        self._said = await self._book.put(self._key, self._facts, group=self._key, over=self._said)

    async def run(self) -> None:
        """Say again and again that this process serves, until cancelled, and look again when one has come or gone."""
        link, news = self._book.link, f"{self._book.name}.presence"
        await link.patiently(lambda: link.listen(news, self._hear))
        first = True
        while True:
            self._moved.clear()
            try:
                await self.say()
                self._known = await self.read()
            except EngineError as error:
                log.debug("this process cannot say that it is there: %s", error)
            if first:
                await link.tell(news, b"")
            first = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / 3):
                    await self._moved.wait()

    async def leave(self) -> None:
        """Take the record of this process away."""
        try:
            if (found := await self._book.get(self._key)) is not None:
                await self._book.erase(found)
        except EngineError as error:
            log.debug("this process stays listed as silent for a while: %s", error)
        await self._book.link.tell(f"{self._book.name}.presence", b"")

    async def _hear(self, message: Any) -> None:
        self._moved.set()

    async def read(self) -> tuple[Host, ...]:
        """Return all processes; those that were silent for an hour are forgotten.

        Raises:
            EngineError: NATS does not answer.
        """
        pattern = self._book.subject("host.*")
        async with aclosing(self._book.link.scan(self._book.records, pattern)) as records:
            found = [(json.loads(message.data), message, place) async for message, place in records]
        now = max((written_at(message) for _, message, _ in found), default=0.0)
        hosts: list[Host] = []
        for (name, pid, started), message, place in found:
            silent_s = now - written_at(message)
            if silent_s > _FORGET_S:
                await self._book.link.delete(self._book.records, place)
                continue
            host_id = message.subject.rpartition(".")[2]
            state = "serving" if silent_s <= self._lease_s else "silent"
            hosts.append(Host(host_id, name, pid, started, state, round(silent_s, 1)))
        return tuple(sorted(hosts, key=lambda each: (each.started, each.id)))
