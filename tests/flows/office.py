"""A pool started again and again on one manifest whose events wait for a person."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from serving import free_port, post

from llmling import Agent, AgentPool, tool
from llmling.protocols import EventRecord


class Office:
    """A pool started again and again on one manifest, and what its tools did."""

    def __init__(self, folder: Path, manifest: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.path = folder / "agents.yml"
        self.path.write_text(manifest.replace("PORT", str(self.port)))
        self.log: list[str] = []
        self.told: asyncio.Queue[EventRecord] = asyncio.Queue()
        self.pool: AgentPool[None]

    def tools(self) -> list[Callable[..., Any]]:
        @tool(destructive=True)
        def send(to: str) -> str:
            self.log.append(f"send {to}")
            return f"sent to {to}"

        def note(text: str) -> str:
            self.log.append(f"note {text}")
            return "noted"

        return [send, note]

    @contextlib.asynccontextmanager
    async def open(self, **agents: Agent[Any]) -> AsyncGenerator[AgentPool[None]]:
        async with AgentPool[None](self.path, agents=agents, on_event=self.told.put_nowait) as self.pool:
            yield self.pool

    async def post(self) -> str:
        async with aiohttp.ClientSession() as session:
            status, body = await post(session, f"http://127.0.0.1:{self.port}/webhook", "Tell Ada.")
        assert status == 202
        return body["event_id"]

    async def next(self, status: str) -> EventRecord:
        """Return the next event that is settled or waits, which has this status."""
        record = await asyncio.wait_for(self.told.get(), 30)
        assert record.status == status, record
        assert self.pool.engine is not None
        full = await self.pool.engine.inspect(record.id)
        assert full is not None
        return full
