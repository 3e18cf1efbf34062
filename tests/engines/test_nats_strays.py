"""Tickets that NATS has lost sight of are queued again, and the old ones deleted once, however many processes look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import nats
from engine_world import until
from nats_server import nats_url

from llmling.engines.jetstream.book import Book
from llmling.engines.jetstream.lane import Lane
from llmling.engines.jetstream.link import Link
from llmling.engines.jetstream.strays import Strays
from llmling.protocols import Policy

LEASE_S = 0.5


class Forgetful(Lane):
    """A lane whose server says that all that was handed out is settled, as the one that follows a killed leader may."""

    async def settled_to(self) -> int:
        return 1_000_000


@asynccontextmanager
async def looking(book: Book) -> AsyncGenerator[None]:
    """Look after strays, as each serving process does."""
    await book.link.open()
    await book.prepare()
    lane = Forgetful(book, "a", Policy(), LEASE_S, lambda lane, ticket: None)
    task = asyncio.create_task(Strays(book, LEASE_S).run(lambda: [lane]))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await book.link.close()


async def test_of_several_processes_one_deletes_the_ticket_that_it_has_queued_again(tmp_path: Path) -> None:
    name = f"strays-{abs(hash(tmp_path)):x}"
    books = [Book(Link([nats_url()]), name, 1) for _ in range(2)]
    client: Any = await cast("Any", nats).connect(nats_url())
    deleted: list[int] = []

    async def hear(message: Any) -> None:
        deleted.append(json.loads(message.data)["seq"])

    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        await client.subscribe(f"$JS.API.STREAM.MSG.DELETE.{books[0].queue}", cb=hear)
        await client.flush()
        for book in books:
            await stack.enter_async_context(looking(book))
        await books[0].enqueue("event", {"id": "event/a", "agent": "a", "priority": 0, "turn": 0})
        await until(lambda: 3 in deleted)
        # Each was queued again behind itself.
        assert deleted == [1, 2, 3]
