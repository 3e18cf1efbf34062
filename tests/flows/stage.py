"""A pool on a manifest in a folder, the events it settled, and a sender of POSTs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from serving import free_port, post, until

from llmling import Agent, AgentPool
from llmling.protocols import EventRecord, EventStatus, ModelRequest
from llmling.testing import ScriptedModel


class Stage:
    """What a story needs: `pool` writes the manifest (PORT stands for a free port), `done` fills with its events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.done: list[EventRecord] = []

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def pool(self, manifest: str, **models: Callable[[ModelRequest], Any]) -> AgentPool[None]:
        """Return the pool of a manifest; an agent named here answers with that function instead of its own model."""
        path = self.write("agents.yml", manifest.replace("PORT", str(self.port)))
        agents = {name: Agent[Any](name, model=ScriptedModel(answer)) for name, answer in models.items()}
        return AgentPool[None](path, agents=agents, on_event=self.done.append)

    async def settled(self, count: int) -> list[EventRecord]:
        """Return the settled events once there are so many."""
        await until(lambda: len(self.done) >= count, f"{count} settled events")
        return self.done

    async def count(self, pool: AgentPool[None], status: EventStatus | None = None) -> int:
        """Return how many events the pool knows, of one status or of all."""
        assert pool.engine is not None
        counts = await pool.engine.counts()
        return sum(counts.values()) if status is None else counts.get(status, 0)

    async def content(self, pool: AgentPool[None], record: EventRecord) -> str:
        """Return the answer of the first agent of an event."""
        assert pool.engine is not None
        full = await pool.engine.inspect(record.id)
        assert full is not None
        assert full.content is not None
        return full.content

    async def post(self, body: Any, path: str = "/webhook", **headers: str) -> tuple[int, dict[str, Any]]:
        """POST a JSON body to a webhook of the pool."""
        async with aiohttp.ClientSession() as session:
            return await post(session, f"http://127.0.0.1:{self.port}{path}", body, **headers)

    async def get(self, url: str) -> tuple[int, dict[str, Any]]:
        """GET a page that answers with JSON."""
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.json()


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 30.0) -> None:
    """Return once a condition that must be awaited holds."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {timeout_s:g} s in vain for: {what}"
        await asyncio.sleep(0.02)


def prompt_of(request: ModelRequest) -> str:
    """Return the last message of a model request."""
    return request.messages[-1].text
