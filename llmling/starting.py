"""Which agents wait for MCP servers that still start, written where any process can read it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from llmling.errors import EngineError
from llmling.protocols import Store, ToolProvider
from llmling.records import STARTING
from llmling.runtime.agent import Agent
from llmling.runtime.tasks import TaskSet

logger = logging.getLogger("llmling")


class Starting:
    """Keeps it up to date in a store, by tasks of `tasks`, until every server has started or failed to, once."""

    def __init__(self, store: Store, tasks: TaskSet) -> None:
        self._store = store
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None

    def tell(self, nodes: Iterable[object]) -> None:
        """Tell of the agents among these nodes, from now on of no others."""
        if self._task is not None:
            self._task.cancel()
        agents: list[Agent[Any]] = [node for node in nodes if isinstance(node, Agent)]
        self._task = self._tasks.spawn(_tell(self._store, agents), name="what still starts")


async def _tell(store: Store, agents: Iterable[Agent[Any]]) -> None:
    wanted = {agent.name: [*agent.parts.providers] for agent in agents if agent.parts.providers}
    async with asyncio.TaskGroup() as group:
        tasks: dict[asyncio.Task[None], ToolProvider] = {
            group.create_task(provider.settled()): provider
            for provider in {id(each): each for providers in wanted.values() for each in providers}.values()
        }
        left = set(tasks)
        while True:
            names = {tasks[task].name for task in left}
            starting = {
                name: servers
                for name, providers in wanted.items()
                if (servers := [provider.name for provider in providers if provider.name in names])
            }
            space, key = STARTING
            try:
                await store.put(space, {key: starting})
            except EngineError as error:
                logger.info("which MCP servers start cannot be written down: %s", error)
            if not left:
                return
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
