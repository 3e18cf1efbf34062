"""What a manifest would run, without running it and without the network."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llmling import plugins
from llmling.errors import Problem
from llmling.manifest.agents import AgentConfig
from llmling.manifest.importing import import_object
from llmling.manifest.models import (
    AutoModelConfig,
    FallbackModelConfig,
    LiteLLMModelConfig,
    ReplayModelConfig,
    ScriptModelConfig,
)
from llmling.manifest.root import Manifest
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import AgentToolConfig, FunctionToolConfig
from llmling.manifest.triggers import FileTriggerConfig, ScheduleTriggerConfig, WebhookTriggerConfig
from llmling.models.keys import KEYS, missing_keys
from llmling.models.naming import unknown_models
from llmling.protocols import Tool
from llmling.runtime.approval import needs_approval
from llmling.spending import budgets, models_of, unpriced_models


@dataclass(frozen=True, slots=True)
class PlannedAgent:
    """An agent or team: its model or members, and what it may use.

    `conditions` says for each member of a team that picks by conditions when it is picked; None: when no other is.
    `asks` names the tools a person is asked for before each call, as far as this is known before the start.
    """

    name: str
    kind: str
    model: str
    members: tuple[str, ...]
    tools: tuple[str, ...]
    mcp_servers: tuple[str, ...]
    knowledge: tuple[str, ...]
    sinks: tuple[str, ...]
    missing_key: str | None
    place: str
    conditions: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    asks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedEdge:
    """A connection and its condition."""

    source: str
    target: str
    when: str | None


@dataclass(frozen=True, slots=True)
class PlannedTrigger:
    """A trigger and where it listens."""

    name: str
    type: str
    agent: str
    listens: str
    enabled: bool
    place: str


@dataclass(frozen=True, slots=True)
class PlannedBudget:
    """A budget, whose it is, and its limits by key."""

    owner: str
    limits: Mapping[str, float]
    mode: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a manifest would run; `warnings` are what this machine lacks, with the place that asks for it."""

    agents: tuple[PlannedAgent, ...]
    edges: tuple[PlannedEdge, ...]
    triggers: tuple[PlannedTrigger, ...]
    mcp_servers: Mapping[str, str]
    ports: tuple[str, ...]
    folders: tuple[str, ...]
    engine: str
    budgets: tuple[PlannedBudget, ...]
    warnings: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data JSON can hold."""
        return asdict(self)


def plan(manifest: Manifest, env: Mapping[str, str] | None = None) -> Plan:
    """Return what a manifest would run; missing keys, busy ports, unknown prices and models are warnings."""
    env = os.environ if env is None else env
    agents = tuple(_agent(name, manifest, env) for name in manifest.nodes)
    addresses = _addresses(manifest)
    warnings = [
        _warning(agent.place, "LL501", f"{'team' if agent.members else 'agent'} {agent.name!r}: {agent.missing_key}")
        for agent in agents
        if agent.missing_key
    ]
    warnings += [
        _warning(
            place, "LL502", f"port {port} on {host} is in use; choose another `port:` or stop the program that has it"
        )
        for (host, port), place in addresses.items()
        if _busy(host, port)
    ]
    warnings += [
        _warning(manifest.locate("teams" if name in manifest.teams else "agents", name, "model"), "LL503", message)
        for name, message in unpriced_models(manifest, env=env)
    ]
    warnings += [
        _warning(manifest.locate("teams" if name in manifest.teams else "agents", name, "model"), "LL504", message)
        for name, config in models_of(manifest)
        for message in unknown_models(config, env)
    ]
    return Plan(
        agents=agents,
        edges=tuple(
            PlannedEdge(name, edge.to, edge.when) for name, node in manifest.nodes.items() for edge in node.connections
        ),
        triggers=tuple(_triggers(manifest)),
        mcp_servers={name: _server(config) for name, config in manifest.mcp_servers.items()},
        ports=tuple(f"{host}:{port}" for host, port in addresses),
        folders=tuple(dict.fromkeys(path for trigger in _files(manifest) for path in trigger.paths)),
        engine=_engine(manifest),
        budgets=tuple(PlannedBudget(b.owner, b.config.limits, b.config.mode) for b in budgets(manifest)),
        warnings=tuple(warnings),
    )


def _warning(place: str, code: str, message: str) -> Problem:
    path, _, position = place.rpartition(":")
    path, _, line = path.rpartition(":")
    if not (line.isdecimal() and position.isdecimal()):
        path, line, position = place, "1", "1"
    return Problem(path, int(line), int(position), code, message, severity="warning")


def _agent(name: str, manifest: Manifest, env: Mapping[str, str]) -> PlannedAgent:
    if name in manifest.teams:
        return _team(name, manifest, env)
    agent = manifest.agents[name]
    missing = missing_keys(agent.model, env)
    return PlannedAgent(
        name=name,
        kind="agent",
        model=model_name(agent.model),
        members=(),
        tools=tuple(getattr(tool, "function", None) or f"agent {tool.name}" for tool in agent.tools),
        mcp_servers=tuple(s if isinstance(s, str) else _server(s) for s in agent.mcp_servers),
        knowledge=tuple(_short(source) for source in agent.knowledge),
        sinks=tuple(_short(sink) for sink in agent.sinks),
        missing_key="; ".join(str(key) for key in missing) or None,
        place=manifest.locate("agents", name, "model"),
        asks=tuple(_asks(agent, manifest)),
    )


def _team(name: str, manifest: Manifest, env: Mapping[str, str]) -> PlannedAgent:
    team = manifest.teams[name]
    missing = () if team.model is None else missing_keys(team.model, env)
    conditions = {member.name: member.when for member in team.members} if team.picks_by == "when" else {}
    return PlannedAgent(
        name=name,
        kind=f"team ({_way(team)})",
        model="",
        members=team.names,
        tools=(),
        mcp_servers=(),
        knowledge=(),
        sinks=tuple(_short(sink) for sink in team.sinks),
        missing_key="; ".join(str(key) for key in missing) or None,
        place=manifest.locate("teams", name, *(("model",) if missing else ())),
        conditions=conditions,
    )


def _way(team: TeamConfig) -> str:
    """Return how the members of a team work together."""
    match team.picks_by:
        case "model":
            return f"pick by {model_name(team.model)}"
        case "pick":
            return f"pick by {team.pick}"
        case "when":
            return "pick by when"
        case None:
            return f"map over {team.over}" if team.over else team.mode


def _asks(agent: AgentConfig, manifest: Manifest) -> Iterator[str]:
    """Yield the names of the tools that need a person's yes before every call."""
    # Tools of other packages have configs of their own, and say what they want once they are there.
    configs: list[Any] = list(agent.tools)
    for config in configs:
        if isinstance(config, AgentToolConfig):
            name, rule, destructive = plugins.load(plugins.AGENT_TOOL_NAME)(config.name), config.approval, False
        elif isinstance(config, FunctionToolConfig):
            found = import_object(config.function, manifest.folder)
            tool: Tool = plugins.load(plugins.DESCRIBE)(config, found)
            name, rule, destructive = tool.spec.name, tool.approval, tool.destructive
        else:
            continue
        if needs_approval(rule or agent.approval, destructive=destructive):
            yield name
    for server in agent.mcp_servers if agent.approval != "never" else ():
        which = "all tools" if agent.approval == "always" else "tools not marked as harmless"
        yield f"{which} of MCP {server if isinstance(server, str) else _server(server)}"


def model_name(config: Any) -> str:
    """Return the name of a model as the user would write it."""
    match config:
        case LiteLLMModelConfig():
            return config.name
        case ScriptModelConfig():
            return f"demo:{config.path}"
        case ReplayModelConfig():
            return f"replay:{config.path}"
        case FallbackModelConfig():
            return " | ".join(model_name(model) for model in config.models)
        case AutoModelConfig():
            return "auto"
        case _:
            return str(config.type)


def keys_set(env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the names of the variables with a provider's key that are set, never a value."""
    env = os.environ if env is None else env
    return tuple(dict.fromkeys(name for names in KEYS.values() for name in names if env.get(name)))


def listens(config: Any) -> str:
    """Return where a trigger listens, for people."""
    match config:
        case FileTriggerConfig():
            return ", ".join(config.paths)
        case WebhookTriggerConfig():
            return f"http://{config.host}:{config.port}{config.path}"
        case ScheduleTriggerConfig():
            return f"{config.cron} {config.timezone}" if config.cron else f"every {config.every_s:g} s"
        case _:
            return str(config.type)


def _triggers(manifest: Manifest) -> list[PlannedTrigger]:
    return [
        PlannedTrigger(
            trigger.name,
            trigger.type,
            name,
            listens(trigger),
            trigger.enabled,
            manifest.locate("teams" if name in manifest.teams else "agents", name, "triggers", index),
        )
        for name, node in manifest.nodes.items()
        for index, trigger in enumerate(node.triggers)
    ]


def _files(manifest: Manifest) -> list[FileTriggerConfig]:
    triggers = [trigger for node in manifest.nodes.values() for trigger in node.triggers if trigger.enabled]
    return [trigger for trigger in triggers if isinstance(trigger, FileTriggerConfig)]


def _addresses(manifest: Manifest) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    for name, node in manifest.nodes.items():
        section = "teams" if name in manifest.teams else "agents"
        for index, trigger in enumerate(node.triggers):
            if trigger.enabled and isinstance(trigger, WebhookTriggerConfig):
                place = manifest.locate(section, name, "triggers", index, "port")
                found.setdefault((trigger.host, trigger.port), place)
    if manifest.server is not False and manifest.server.port is not None and manifest.triggered:
        found.setdefault((manifest.server.host, manifest.server.port), manifest.locate("server", "port"))
    return found


def _busy(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _server(config: Any) -> str:
    return " ".join([config.command, *config.args]) if config.type == "stdio" else str(config.url)


def _engine(manifest: Manifest) -> str:
    path = getattr(manifest.engine, "path", None)
    return f"{manifest.engine.type} {path}" if path else manifest.engine.type


def _short(config: Any) -> str:
    for key in ("path", "url", "uri"):
        value = getattr(config, key, None)
        if value:
            return f"{config.type} {value}"
    return str(config.type)
