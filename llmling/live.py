"""The live parts of a pool: MCP servers, agents and teams, each with a task that owns it, replaced while they run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from llmling import plugins
from llmling.errors import StartupError
from llmling.manifest.importing import import_object
from llmling.manifest.root import Manifest
from llmling.runtime.agent import Agent
from llmling.runtime.channel import Outstanding
from llmling.runtime.connection import Connection
from llmling.runtime.gate import Bounds
from llmling.runtime.lifespan import Lifespans, Opened, reason
from llmling.runtime.node import Node
from llmling.runtime.runnable import Runnable
from llmling.runtime.services import Services
from llmling.runtime.tasks import TaskSet
from llmling.runtime.team import Team
from llmling.wiring import Graph, begin_loading, build_nodes, connect

logger = logging.getLogger("llmling")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The parts of a manifest, started, and not in use yet; `new` are those that were not there before."""

    manifest: Manifest
    providers: Mapping[str, Any]
    nodes: Mapping[str, Node]
    new: Sequence[object]


@dataclass(frozen=True, slots=True)
class _Left:
    """Parts nobody will use any more once the runs that are going on have ended."""

    answers: Sequence[Outstanding]
    nodes: Sequence[Node]
    parts: Sequence[object]
    connections: Sequence[Connection]


class Live:
    """Starts the parts of a manifest and those of the next one; leaving ends them all.

    Parts that are replaced are ended when every run that was going on then has ended, since it may still use them.
    """

    def __init__(self, services: Services, graph: Graph, agents: Mapping[str, Agent[Any]], model: str | None) -> None:
        self.graph = graph
        self._services = services
        self.given = agents
        self._model = model
        self._spans = Lifespans()
        self._tasks = TaskSet()
        self._names: dict[int, str] = {}
        self._started = 0

    async def __aenter__(self) -> Live:
        await self._spans.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.cancel()
        await self._spans.__aexit__(None, None, None)

    async def prepare(
        self, manifest: Manifest, nodes: frozenset[str], servers: frozenset[str], *, parallel: bool = True
    ) -> Prepared:
        """Build and start the parts of a manifest, but for those of these names, which go on as they are.

        Raises:
            StartupError: One that must start did not; then none of them is left.
        """
        if manifest.triggered:
            begin_loading(manifest, self._model)
        graph = self.graph
        providers = {name: graph.providers[name] for name in servers}
        services = replace(self._services, providers=providers, tools=manifest.tools, pins=manifest.pins)
        for name, config in manifest.mcp_servers.items():
            if name not in servers:
                providers[name] = plugins.create("mcp_servers", config, services, name)
        built = build_nodes(
            manifest,
            services,
            model=self._model,
            agents=self.given,
            parallel=parallel,
            ready={name: graph.nodes[name] for name in nodes},
        )
        for edge in (edge for node in manifest.nodes.values() for edge in node.connections):
            # Imported now, where it may still fail.
            _ = edge.transform and import_object(edge.transform, manifest.folder)
        entered: dict[str, tuple[object, AbstractAsyncContextManager[Any]]] = {}
        for name, server in providers.items():
            if name not in servers:
                entered[self._name(f"MCP server {name}")] = server, server
        for name, node in built.items():
            if name not in nodes and isinstance(node, Runnable):
                entered[self._name(f"agent {name}")] = node, Opened(node)
        await self._start(entered, parallel=parallel)
        return Prepared(manifest, providers, built, [part for part, _ in entered.values()])

    async def _start(
        self, entered: Mapping[str, tuple[object, AbstractAsyncContextManager[Any]]], *, parallel: bool
    ) -> None:
        self._names.update({id(part): name for name, (part, _) in entered.items()})
        try:
            managers = {name: manager for name, (_, manager) in entered.items()}
            started = await self._spans.enter_all(managers, parallel=parallel)
        except BaseException:
            await self._end([part for part, _ in entered.values()])
            raise
        if error := next((start.error for start in started.values() if start.error is not None), None):
            await self._end([part for part, _ in entered.values()])
            raise StartupError(reason(error), usage=isinstance(error, StartupError) and error.usage) from error

    def _name(self, name: str) -> str:
        # A part and the one that takes its place are there at the same time for a while.
        self._started += 1
        return name if not self.graph.nodes else f"{name} ({self._started})"

    async def discard(self, prepared: Prepared) -> None:
        """End what was prepared and is not wanted."""
        await self._end(prepared.new)

    def install(self, prepared: Prepared, bounds: Bounds | None = None) -> list[Node]:
        """Use what was prepared from now on; return the nodes that are left, whose last runs go on.

        With `bounds` every node is bounded by them anew.
        """
        graph = self.graph
        nodes, providers = dict(graph.nodes), dict(graph.providers)
        answers = [node.turn_over() for node in nodes.values()]
        connections = connect(prepared.manifest, graph, prepared.nodes)
        graph.providers.clear()
        graph.providers.update(prepared.providers)
        for node in graph.nodes.values():
            if bounds is not None and isinstance(node, Agent | Team):
                node.share(bounds)
        gone = [node for name, node in nodes.items() if graph.nodes.get(name) is not node]
        graph.leaving.update({node.name: node for node in gone})
        ended = [server for name, server in providers.items() if graph.providers.get(name) is not server]
        if gone or ended or connections:
            left = _Left(answers, gone, [*gone, *ended], connections)
            self._tasks.spawn(self._retire(left), name="end of replaced parts")
        return gone

    async def _retire(self, left: _Left) -> None:
        try:
            for answers in left.answers:
                await answers.wait()
            for node in left.nodes:
                await node.complete_tasks()
                await node.turn_over().wait()
        finally:
            for connection in left.connections:
                for envelope in await connection.channel.aclose():
                    connection.target.settled(envelope)
        for node in left.nodes:
            if self.graph.leaving.get(node.name) is node:
                del self.graph.leaving[node.name]
        await self._end(left.parts)

    async def _end(self, parts: Sequence[object]) -> None:
        await self._spans.leave([name for part in parts if (name := self._names.pop(id(part), None)) is not None])

    async def settled(self) -> None:
        """Return when the first start of every MCP server has succeeded or failed."""
        await asyncio.gather(*(server.settled() for server in self.graph.providers.values()))
