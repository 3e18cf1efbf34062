"""All events by what stands above them: how many there are by status, and which are the newest."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing

from llmling.engines.jetstream.book import Book, Heading
from llmling.protocols import EventStatus

_EVENTS = "event.*"
_WINDOW = 2000


class Listing:
    """Reads only what has changed since it was asked the last time, and of the newest no more than are asked for."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._statuses: dict[str, str] = {}
        self._seen = 0
        # A server that was killed may give places anew.
        book.link.on_return(self._forget)

    def _forget(self) -> None:
        self._statuses.clear()
        self._seen = 0

    async def counts(self) -> dict[str, int]:
        """Return how many events there are by status.

        Raises:
            Unreachable: NATS does not answer.
        """
        await self._catch_up()
        if await self._book.count(_EVENTS) < len(self._statuses):
            # Events were forgotten meanwhile, and nothing of them is left to read.
            self._forget()
            await self._catch_up()
        return dict(Counter(self._statuses.values()))

    async def newest(self, status: EventStatus | None, trigger: str | None, limit: int | None) -> list[Heading]:
        """Return the headings of the newest events that match, newest first.

        Raises:
            Unreachable: NATS does not answer.
        """
        last = await self._book.last_place()
        window = _WINDOW if limit is not None else last
        while True:
            first = max(0, last - window)
            found = await self._since(first)
            # Whatever was accepted since then was also written since then; older ones may be missing.
            wanted = [
                each
                for each in found.values()
                if _accepted(each) > first
                and not each.facts["gone"]
                and status in {None, each.facts["status"]}
                and trigger in {None, each.facts["trigger"]}
            ]
            if not first or (limit is not None and len(wanted) >= limit):
                return sorted(wanted, key=_accepted, reverse=True)[:limit]
            window *= 4

    async def _catch_up(self) -> None:
        for key, heading in (await self._since(self._seen)).items():
            self._seen = max(self._seen, heading.revision)
            if heading.facts["gone"]:
                self._statuses.pop(key, None)
            else:
                self._statuses[key] = heading.facts["status"]

    async def _since(self, place: int) -> dict[str, Heading]:
        async with aclosing(self._book.headings(_EVENTS, after=place)) as headings:
            return {each.key: each async for each in headings}


def _accepted(heading: Heading) -> int:
    return heading.facts["n"] or heading.revision
