"""Whether the valid parts of a manifest fit together: references, names, addresses."""

from __future__ import annotations

from llmling.manifest.agents import AgentConfig
from llmling.manifest.draft import Draft
from llmling.manifest.knowledge import ResourceKnowledgeConfig
from llmling.manifest.loops import check_connections, check_files, cycles
from llmling.manifest.material import check_material
from llmling.manifest.models import AutoModelConfig
from llmling.manifest.nodes import Loc, find
from llmling.manifest.people import check_people
from llmling.manifest.pool import NatsEngineConfig, ServerConfig
from llmling.manifest.problems import Place, did_you_mean
from llmling.manifest.scopes import check_scopes
from llmling.manifest.shape import Part
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import AgentToolConfig
from llmling.manifest.trifecta import check_trifecta
from llmling.manifest.triggers import LOOPBACK, TriggerBase, WebhookTriggerConfig

_ANY_HOST = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, not bound


def check_draft(draft: Draft) -> None:
    """Report everything that does not fit together, and give triggers without a name theirs."""
    _check_names(draft)
    for name, part in draft.nodes():
        _check_references(draft, name, part)
    _check_teams(draft)
    check_people(draft)
    _check_triggers(draft)
    _check_webhooks(draft)
    _check_engine(draft)
    check_material(draft)
    check_scopes(draft)
    check_files(draft)
    check_connections(draft)
    check_trifecta(draft)
    # Last: until here a trigger without a name is told by its place.
    _name_triggers(draft)


def _check_engine(draft: Draft) -> None:
    """Warn of a NATS that keeps each event once: what it says it has, it may not have written to its disk yet."""
    if draft.engine is None or not isinstance(draft.engine.config, NatsEngineConfig):
        return
    if draft.engine.config.replicas == 1:
        draft.problem(
            draft.engine,
            ("type",),
            "LL215",
            "one NATS server answers before its disk has what it was sent: events survive `kill -9`, but those of the "
            "last two minutes may be lost with its power",
            hint="`replicas: 3` on a cluster of three servers with power of their own, or `sqlite` on one machine",
            severity="warning",
        )


def _check_names(draft: Draft) -> None:
    for name, key in draft.team_names.items():
        if (other := draft.agent_names.get(name)) is not None:
            message = f'team "{name}" has the name of an agent (line {other.place.line})'
            draft.report.add(key.place, "LL303", message, hint="rename one of them")


def _check_references(draft: Draft, name: str, part: Part) -> None:
    config: AgentConfig | TeamConfig = part.config
    for index, connection in enumerate(config.connections):
        _known_node(draft, name, part, ("connections", index, "to"), connection.to)
    if isinstance(config, TeamConfig):
        for index, member in enumerate(config.members):
            loc = ("members", index, "name")
            _known_node(draft, name, part, loc, member.name)
        return
    for index, tool in enumerate(config.tools):
        if isinstance(tool, AgentToolConfig):
            _known_node(draft, name, part, ("tools", index, "name"), tool.name)
    for index, server in enumerate(config.mcp_servers):
        if isinstance(server, str):
            _known_server(draft, part, ("mcp_servers", index), server)
    for index, item in enumerate(config.knowledge):
        if isinstance(item, ResourceKnowledgeConfig):
            _known_server(draft, part, ("knowledge", index, "server"), item.server)


def _known_node(draft: Draft, owner: str, part: Part, loc: Loc, name: str) -> None:
    if name in draft.agent_names or name in draft.team_names:
        return
    known = [*draft.agent_names, *draft.team_names]
    hint = did_you_mean(name, [other for other in known if other != owner] or known)
    if not hint and draft.report.incomplete:
        return
    if not hint:
        hint = f"known: {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
    draft.problem(part, loc, "LL301", f'unknown agent or team "{name}"', hint=hint, sentence=False)


def _known_server(draft: Draft, part: Part, loc: Loc, name: str) -> None:
    if name not in draft.server_names:
        hint = did_you_mean(name, draft.server_names)
        if not hint and draft.report.incomplete:
            return
        hint = hint or "define it in `mcp_servers:` at the root"
        draft.problem(part, loc, "LL302", f'unknown MCP server "{name}"', hint=hint, sentence=False)


def _check_teams(draft: Draft) -> None:
    """No team contains itself, and its keys fit its mode; one that asks a model without naming it gets the default."""
    graph = {
        name: [member for member in part.config.names if member in draft.teams] for name, part in draft.teams.items()
    }
    for cycle in cycles(graph):
        part = draft.teams[cycle[-1]]
        loc = ("members", part.config.names.index(cycle[0]), "name")
        text = " -> ".join([*cycle, cycle[0]])
        draft.problem(part, loc, "LL304", f"team contains itself: {text}", hint="remove one member")
    for part in draft.teams.values():
        config: TeamConfig = part.config
        for loc, message, hint in config.faults():
            draft.problem(part, loc, "LL212", message, hint=hint)
        if config.picks_by == "model" and config.model is None:
            part.config = config.model_copy(update={"model": draft.default_model or AutoModelConfig()})


def _check_triggers(draft: Draft) -> None:
    """Names are unique in the pool."""
    taken: dict[str, tuple[str, Place]] = {}
    for name, part in draft.nodes():
        for index, trigger in enumerate(part.config.triggers):
            if not trigger.name:
                continue
            place = find(part.node, ("triggers", index, "name")).value_place
            first = taken.setdefault(trigger.name, (name, place))
            if first == (name, place):
                continue
            if first[1] == place and (below := find(part.node, ("extends",))).rest == ():
                message = f'"{name}" inherits the trigger "{trigger.name}", which belongs to "{first[0]}"'
                hint = f"write `triggers:` in {name}, or `triggers: []`"
                draft.report.add(below.value_place, "LL305", message, hint=hint)
            else:
                message = f'trigger name "{trigger.name}" is already used at {first[1]}'
                draft.problem(part, ("triggers", index, "name"), "LL305", message, hint="names are unique in the pool")


def _name_triggers(draft: Draft) -> None:
    """A trigger without a name becomes `<type>-<n>`, counted over the pool; names in use are skipped."""
    taken = {trigger.name for _, part in draft.nodes() for trigger in part.config.triggers}
    counts: dict[str, int] = {}
    for _, part in draft.nodes():
        triggers: list[TriggerBase] = []
        for trigger in part.config.triggers:
            named = trigger
            if not trigger.name:
                kind = str(trigger.type)
                number = counts.get(kind, 0) + 1
                while f"{kind}-{number}" in taken:
                    number += 1
                counts[kind] = number
                named = trigger.model_copy(update={"name": f"{kind}-{number}"})
            triggers.append(named)
        if triggers:
            part.config = part.config.model_copy(update={"triggers": triggers})


def _check_webhooks(draft: Draft) -> None:
    """One address leads to one trigger, and no port has two listeners."""
    server: ServerConfig | None = None
    if draft.server is not None and isinstance(draft.server.config, ServerConfig):
        server = draft.server.config
    addresses: dict[tuple[str, int, str], tuple[str, str, Place]] = {}
    listeners: dict[int, dict[str, str]] = {}
    for name, part in draft.nodes():
        for index, trigger in enumerate(part.config.triggers):
            if not isinstance(trigger, WebhookTriggerConfig) or not trigger.enabled:
                continue
            loc: Loc = ("triggers", index)
            host = _host(trigger.host)
            if server is not None and server.port == trigger.port and _meet(host, _host(server.host)):
                message = f"port {trigger.port} is taken by `server:`"
                draft.problem(part, (*loc, "port"), "LL307", message, hint="give one of them another port")
            address = (host, trigger.port, trigger.path)
            place = find(part.node, loc).value_place
            owner, first, at = addresses.get(address, ("", "", place))
            if owner and owner != name and at == place and find(part.node, ("extends",)).rest == ():
                # One with a name has been told of already, by its name.
                if not trigger.name:
                    message = f'"{name}" inherits the webhook {first}, which belongs to "{owner}"'
                    hint = f"write `triggers:` in {name}, or `triggers: []`"
                    draft.problem(part, ("extends",), "LL306", message, hint=hint)
                continue
            if owner:
                message = f"another webhook, {first}, has the same host, port and path {trigger.path}"
                draft.problem(part, (*loc, "path"), "LL306", message, hint="give one of them another path")
            addresses.setdefault(address, (name, draft.title(part, index), place))
            others = listeners.setdefault(trigger.port, {})
            clash = next((name for other, name in others.items() if other != host and _meet(other, host)), None)
            if clash is not None:
                message = f"port {trigger.port} is taken by webhook {clash} on an overlapping host"
                draft.problem(part, (*loc, "port"), "LL307", message, hint="use the same host or another port")
            else:
                others.setdefault(host, draft.title(part, index))


def _host(host: str) -> str:
    return "localhost" if host in LOOPBACK else host


def _meet(one: str, other: str) -> bool:
    return one == other or one in _ANY_HOST or other in _ANY_HOST
