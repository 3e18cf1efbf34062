"""From a manifest to live parts: nodes and their connections, triggers and the way from a trigger to the engine."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from llmling import plugins
from llmling.errors import StartupError
from llmling.events import Event
from llmling.manifest.agents import AgentConfig, ConnectionConfig
from llmling.manifest.importing import import_object
from llmling.manifest.models import HumanModelConfig, ModelConfig
from llmling.manifest.root import Manifest
from llmling.manifest.tools import AgentToolConfig
from llmling.messages import Message, RunResult
from llmling.models.keys import missing_key, needs_litellm
from llmling.prompts.instructions import event_message
from llmling.protocols import Delivery, Engine, Policy, Receipt, Trigger
from llmling.runtime.agent import Agent
from llmling.runtime.connection import Connection
from llmling.runtime.context import RunContext, current_run
from llmling.runtime.node import Node, run_event
from llmling.runtime.real_models import refusing
from llmling.runtime.services import Services
from llmling.runtime.team import Team
from llmling.templates import TemplateFailed, expression, key_template

logger = logging.getLogger("llmling")
_LONGEST_KEY, _SHOWN = 256, 40
_PRIORITIES = {"high": 1, "normal": 0, "low": -1}
_model_config: TypeAdapter[Any] = TypeAdapter(ModelConfig)


@dataclass(slots=True)
class Graph:
    """The nodes of a pool, by name, and the ways its parts find each other.

    `edges` are the connections a manifest has made, by the name of their source; `leaving` are nodes that have left
    the manifest, whose last runs are going on.
    """

    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    providers: dict[str, Any] = field(default_factory=dict[str, Any])
    edges: dict[str, list[tuple[ConnectionConfig, Connection]]] = field(
        default_factory=dict[str, list[tuple[ConnectionConfig, Connection]]]
    )
    leaving: dict[str, Node] = field(default_factory=dict[str, Node])

    async def ask(self, name: str, prompt: str) -> RunResult:
        """Run an agent as a tool of the run going on, without its sinks and connections.

        Raises:
            RunError: It failed.
        """
        message = Message.user(prompt)
        context = current_run.get() or RunContext(run_event(name, message))
        node = self.nodes.get(name) or self.leaving.get(name)
        if node is None:
            raise StartupError(f"agent {name!r} is not in the manifest any more")
        return await node.answer(message, context)

    async def read_resource(self, server: str, uri: str) -> str:
        """Read a resource of an MCP server of the pool."""
        if server not in self.providers:
            raise StartupError(f"MCP server {server!r} is not in the manifest any more")
        return await self.providers[server].read_resource(uri)


def open_engine(manifest: Manifest) -> Engine:
    """Return the engine of a manifest, not opened yet."""
    return plugins.create("engines", manifest.engine, manifest.folder)


def check_keys(manifest: Manifest, model: str | None = None, env: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for every model of an agent or team that needs a key that is not in the environment.

    None does while real models are refused, since none will be asked.
    """
    if refusing():
        return []
    env = os.environ if env is None else env
    if model is not None:
        missing = missing_key(_model_config.validate_python(model), env)
        return [] if missing is None else [f"the model given for every agent: {missing}"]
    lines: list[str] = []
    for name, node in manifest.nodes.items():
        missing = None if node.model is None else missing_key(node.model, env)
        if missing is not None:
            kind = "team" if name in manifest.teams else "agent"
            lines.append(f"{manifest.locate(f'{kind}s', name, 'model')}: {kind} {name!r}: {missing}")
    return lines


def begin_loading(manifest: Manifest, model: str | None = None) -> None:
    """Begin to import what models need, in a thread, when one of them needs it; called while a pool starts."""
    written = (
        [node.model for node in manifest.nodes.values()] if model is None else [_model_config.validate_python(model)]
    )
    if not refusing() and any(map(needs_litellm, written)):
        plugins.load(plugins.LITELLM)()


def build_nodes(
    manifest: Manifest,
    services: Services,
    *,
    model: str | None = None,
    agents: Mapping[str, Agent[Any]] | None = None,
    parallel: bool = True,
    ready: Mapping[str, Node] | None = None,
) -> dict[str, Node]:
    """Return the agents and teams of a manifest, by name; `ready` are those that are there already."""
    nodes: dict[str, Node] = {}
    for name, config in manifest.agents.items():
        given = (agents or {}).get(name)
        if given is not None and name not in (ready or {}):
            given.keep.lend(services.store)
            if services.bounds is not None:
                given.share(services.bounds)
        nodes[name] = (
            (ready or {}).get(name)
            or given
            or Agent[Any].from_config(
                name,
                described(config, manifest),
                services,
                model=_replaced(config.model, model),
                parallel_init=parallel,
            )
        )
    nodes.update({name: node for name, node in (ready or {}).items() if name in manifest.teams})
    for name in manifest.teams:
        _team(name, manifest, nodes, services, (), model)
    return {name: nodes[name] for name in manifest.nodes}


def connect(manifest: Manifest, graph: Graph, nodes: Mapping[str, Node]) -> list[Connection]:
    """Put these nodes into the graph, joined as the manifest says; return connections nobody uses any more.

    What Python code has joined stays joined, with the node that has the name now.
    """
    before, edges, left = dict(graph.nodes), graph.edges, list[Connection]()
    graph.nodes.clear()
    graph.nodes.update(nodes)
    graph.edges = {}

    def now(target: Node) -> Node | None:
        return nodes.get(target.name) if before.get(target.name) is target else target

    for name, config in manifest.nodes.items():
        node, old = nodes[name], before.get(name)
        node.max_hops = manifest.limits.max_hops
        node.max_messages = manifest.limits.max_messages_per_event
        made = edges.get(name, [])
        own = [] if old is None else [each for each in old.connections if all(each is not edge for _, edge in made)]
        if old is node:
            wanted = [(edge, nodes[edge.to]) for edge in config.connections]
            as_it_was = [(edge, connection.target) for edge, connection in made] == wanted
            if as_it_was and all(now(each.target) is each.target for each in own):
                graph.edges[name] = made
                continue
            left += node.connections
            node.connections = []
        graph.edges[name] = [(edge, _edge(node, nodes[edge.to], edge, manifest)) for edge in config.connections]
        for each in own:
            if (target := now(each.target)) is not None:
                node.connect_to(target, when=each.when, transform=each.transform, wait=each.wait)
    return left


def _edge(node: Node, target: Node, edge: ConnectionConfig, manifest: Manifest) -> Connection:
    transform = import_object(edge.transform, manifest.folder) if edge.transform else None
    return node.connect_to(target, when=edge.when, transform=transform, wait=edge.wait)


def described(config: AgentConfig, manifest: Manifest) -> AgentConfig:
    """Return an agent's config with what its model reads of agents it may ask: their own descriptions."""
    tools = [
        tool.model_copy(update={"description": manifest.nodes[tool.name].description})
        if isinstance(tool, AgentToolConfig) and not tool.description
        else tool
        for tool in config.tools
    ]
    return config.model_copy(update={"tools": tools})


def _team(
    name: str,
    manifest: Manifest,
    nodes: dict[str, Node],
    services: Services,
    outer: tuple[str, ...],
    model: str | None,
) -> Node:
    if name in nodes:
        return nodes[name]
    if name in outer:
        raise StartupError(f"team {name!r} contains itself: {' > '.join((*outer, name))}", usage=True)
    config = manifest.teams[name]
    inner = (*outer, name)
    members = [_team(member, manifest, nodes, services, inner, model) for member in config.names]
    nodes[name] = team = Team.from_config(name, config, members, services, model=_replaced(config.model, model))
    return team


def _replaced(config: Any, model: str | None) -> str | None:
    # No model answers for a person.
    return None if isinstance(config, HumanModelConfig) else model


def policies(manifest: Manifest) -> dict[str, Policy]:
    """Return how deliveries of each node are handed out."""
    return {
        name: Policy(node.concurrency, node.inbox.size, node.inbox.overflow, node.redelivery.attempts)
        for name, node in manifest.nodes.items()
    }


@dataclass(frozen=True, slots=True)
class Source:
    """The way from a trigger to the engine: its config, the node it runs, and the engine that keeps its events."""

    config: Any
    node: str
    engine: Engine

    def emit(
        self, event: Event, *, key: str | None = None, keep_key_s: float | None = None, dead: str | None = None
    ) -> Awaitable[Receipt]:
        """Commit an event with its first delivery; see `protocols.Emit`."""
        wanted, dead = self._wanted(event, dead)
        delivery: Delivery | None = None
        if wanted and dead is None:
            delivery, dead = self._delivery(event)
        return self.engine.accept(
            event,
            delivery,
            trigger=self.config.name,
            agent=self.node,
            key=key,
            keep_key_s=keep_key_s,
            outcome=None if wanted else "filtered",
            dead=dead,
        )

    def _delivery(self, event: Event) -> tuple[Delivery | None, str | None]:
        """Return the first delivery of an event, or why there is none."""
        config, part = self.config, "prompt"
        try:
            message = event_message(event, config.prompt)
            if not message.text.strip():
                return None, f"trigger {config.name!r} made an empty message of this event: check its `prompt`"
            part = "key"
            order_key = order_key_of(config, event)
        except TemplateFailed as error:
            return None, f"trigger {config.name!r}, {part}: {error}"
        delivery = Delivery(
            f"{event.id}/{self.node}",
            event.id,
            self.node,
            message,
            order_key=order_key,
            overlap=config.overlap,
            priority=_PRIORITIES[config.priority],
        )
        return delivery, None

    def _wanted(self, event: Event, dead: str | None) -> tuple[bool, str | None]:
        if dead is not None or self.config.filter is None:
            return True, dead
        try:
            return expression(self.config.filter)({"event": event}), None
        except TemplateFailed as error:
            return True, f"trigger {self.config.name!r}, filter: {error}"


def order_key_of(config: Any, event: Event) -> str | None:
    """Return the key by which a trigger orders an event, None when it waits for no other.

    Raises:
        TemplateFailed: The key cannot be made of this event.
    """
    if config.overlap == "parallel":
        return None
    key = "" if config.key is None else key_template(config.key)({"event": event}).strip()
    if len(key) > _LONGEST_KEY:
        key = f"{key[:_SHOWN]}... {hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
    # Without a key, one event of the trigger at a time: what is coalesced would have nothing to wait for.
    return key or (config.name if config.overlap == "coalesce" else None)


def build_triggers(manifest: Manifest, services: Services, engine: Engine) -> list[tuple[Source, Trigger]]:
    """Return every enabled trigger of a manifest, not armed yet."""
    triggers: list[tuple[Source, Trigger]] = []
    for name, config in manifest.nodes.items():
        for trigger in config.triggers:
            if trigger.enabled:
                live: Trigger = plugins.create("triggers", trigger, services, name)
                triggers.append((Source(trigger, name, engine), live))
    return triggers


def with_engine(services: Services, engine: Engine, listeners: Any, status_url: Any) -> Services:
    """Return services for triggers: those of the pool, with engine and listeners."""
    return replace(services, engine=engine, listeners=listeners, status_url=status_url)
