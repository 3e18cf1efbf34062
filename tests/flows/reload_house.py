"""A project whose manifest is changed while its pool runs."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from serving import free_port, post

from llmling import AgentPool, Manifest
from llmling.protocols import EventRecord
from llmling.report import Reload

_numbers = itertools.count()

HOLD = '''
import asyncio

inside = 0
opened = asyncio.Event()


async def hold() -> str:
    """Wait."""
    global inside
    inside += 1
    await opened.wait()
    return "held"
'''


class House:
    """A project whose manifest is changed as a mapping, and the events its pool settled."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.path = folder / "agents.yml"
        self.port = free_port()
        self.data: dict[str, Any] = {"server": False, "engine": {"type": "memory"}, **manifest}
        self.done: list[EventRecord] = []
        self.write()

    def write(self) -> None:
        self.path.write_text(yaml.safe_dump(self.data, sort_keys=False).replace("PORT", str(self.port)))

    def pool(self, **options: Any) -> AgentPool[None]:
        return AgentPool[None](self.path, on_event=self.done.append, **options)

    async def reload(self, pool: AgentPool[None], change: Callable[[dict[str, Any]], object] | None = None) -> Reload:
        if change is not None:
            change(self.data)
            self.write()
        return await pool.reload()

    def hold(self) -> Any:
        """Make a tool that waits, and return its module."""
        name = f"hold_{next(_numbers)}_{os.getpid()}"
        (self.folder / f"{name}.py").write_text(HOLD)
        (self.folder / "held.yml").write_text(
            "- {match: held, reply: OLD}\n- {match: '.', tool_calls: [{name: hold, arguments: {}}]}\n"
        )
        self.data["agents"]["a"] |= {"model": "demo:held.yml", "tools": [f"{name}:hold"]}
        self.write()
        Manifest.load(self.path)
        return sys.modules[name]

    async def post(self, path: str = "/webhook", body: Any = None) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as session:
            return await post(session, f"http://127.0.0.1:{self.port}{path}", body or {"n": 1})

    async def event(self, pool: AgentPool[None], path: str = "/webhook") -> EventRecord:
        """Return a posted event once it is settled."""
        status, body = await self.post(path)
        assert status == 202, body
        return await self.settled(pool, body["event_id"])

    async def settled(self, pool: AgentPool[None], event_id: str) -> EventRecord:
        assert pool.engine is not None
        record = await pool.engine.wait(event_id, 60)
        assert record is not None
        return record


def hook(name: str = "hook", **keys: Any) -> dict[str, Any]:
    return {"type": "webhook", "name": name, "port": "PORT", **keys}


def house(folder: Path) -> House:
    """A pool of three agents and a team, one of each kind of part that a reload may touch."""
    (folder / "new.yml").write_text("- {match: '.', reply: NEW}\n")
    return House(
        folder,
        {
            "agents": {
                "a": {"model": "demo", "connections": ["c"], "triggers": [hook()]},
                "b": {"model": "demo", "instructions": "You help."},
                "c": {"model": "demo"},
            },
            "teams": {"desk": {"members": ["a", "b"]}, "row": {"mode": "sequential", "members": ["c"]}},
        },
    )


def at(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data.setdefault(key, {})
        data[keys[-1]] = value

    return change


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change
