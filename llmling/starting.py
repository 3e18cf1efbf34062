"""Which agents wait for MCP servers that still start, written where any process can read it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from llmling.errors import EngineError
from llmling.protocols import Store, ToolProvider
from llmling.records import STARTING
from llmling.runtime.agent import Agent

logger = logging.getLogger("llmling")


async def tell_starting(store: Store, agents: Mapping[str, Agent[Any]]) -> None:
    """Keep it up to date until every server has started, or failed to, once."""
    wanted = {name: [*agent.parts.providers] for name, agent in agents.items() if agent.parts.providers}
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
