"""Where text of strangers, private data and a way out meet: who writes the first could make the third send the second.

What is known offline is taken as it is, what an MCP server does is not and counts as the worst.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from llmling import plugins
from llmling.manifest.agents import AgentConfig
from llmling.manifest.draft import Draft
from llmling.manifest.importing import ImportFailed, import_object
from llmling.manifest.knowledge import (
    FileKnowledgeConfig,
    FolderKnowledgeConfig,
    ResourceKnowledgeConfig,
    UrlKnowledgeConfig,
)
from llmling.manifest.loops import reachable
from llmling.manifest.models import HumanModelConfig
from llmling.manifest.nodes import Loc, find
from llmling.manifest.problems import label
from llmling.manifest.shape import Part
from llmling.manifest.sinks import FileSinkConfig, HttpSinkConfig
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import AgentToolConfig, FunctionToolConfig, HttpServerConfig
from llmling.manifest.triggers import (
    LOOPBACK,
    BearerAuth,
    FileTriggerConfig,
    HmacAuth,
    ScheduleTriggerConfig,
    StandardAuth,
    WebhookTriggerConfig,
)

_OWN = (HmacAuth, BearerAuth, StandardAuth)
"""Senders that hold a secret the owner gave them. What GitHub and Stripe sign is theirs, but strangers wrote it."""
_INSIDE = (".localhost", ".local", ".internal", ".localdomain", ".lan", ".home.arpa")


@dataclass(frozen=True, slots=True)
class _Source:
    part: Part
    loc: Loc
    what: str

    def __str__(self) -> str:
        found = find(self.part.node, self.loc)
        at = str(found.value_place) if found.node.start else label((*self.part.loc, *self.loc))
        return f"{self.what}, {at}"


@dataclass(slots=True)
class _Labels:
    """What one node brings along, and which nodes it hands text to or has text from."""

    posts: list[_Source] = field(default_factory=list[_Source])
    untrusted: list[_Source] = field(default_factory=list[_Source])
    private: list[_Source] = field(default_factory=list[_Source])
    tools_out: list[_Source] = field(default_factory=list[_Source])
    sinks_out: list[_Source] = field(default_factory=list[_Source])
    remote: list[_Source] = field(default_factory=list[_Source])
    """Servers elsewhere whose harmless tools are called unasked: a way out for everything but their own data."""
    onward: set[str] = field(default_factory=set[str])
    inner: set[str] = field(default_factory=set[str])

    @property
    def ways(self) -> bool:
        return bool(self.tools_out or self.sinks_out or self.remote)


def check_trifecta(draft: Draft) -> None:
    """Warn where all three meet without a person in between and nothing says that this is meant."""
    # Nothing passes a person unseen.
    nodes = {name: part for name, part in draft.nodes() if not isinstance(part.config.model, HumanModelConfig)}
    labels = {name: _labels(draft, part) for name, part in nodes.items()}
    for brought in labels.values():
        brought.onward &= labels.keys()
        brought.inner &= labels.keys()
    every = labels.values()
    outs = {name for name, brought in labels.items() if brought.ways and not nodes[name].config.trust}
    if not outs or not any(one.private for one in every) or not any(one.posts or one.untrusted for one in every):
        return
    told: set[int] = set()
    for start in labels:
        opened, flow = _event(labels, start)
        for name in outs & flow.keys():
            for way, found in _meeting(labels, start, name, flow, opened=name in opened):
                if id(way) not in told:
                    told.add(id(way))
                    _warn(draft, name, way, found)


def _event(labels: Mapping[str, _Labels], start: str) -> tuple[set[str], dict[str, set[str]]]:
    """Return the nodes an event of one node comes to by the door, and from where each node it comes to has its text."""
    opened = _spread(labels, {start}, "onward")
    # An agent that another one asks answers it alone: no sinks, no connections.
    asked = _spread(labels, opened, "inner")
    flow: dict[str, set[str]] = {name: set() for name in asked}
    for name in asked:
        for other in labels[name].inner:
            flow[name].add(other)
            flow[other].add(name)
        for other in labels[name].onward if name in opened else ():
            flow[other].add(name)
    return opened, flow


def _spread(labels: Mapping[str, _Labels], start: set[str], way: Literal["onward", "inner"]) -> set[str]:
    found = set(start)
    todo = list(start)
    while todo:
        brought = labels[todo.pop()]
        fresh = (brought.onward if way == "onward" else brought.inner) - found
        found |= fresh
        todo += fresh
    return found


def _meeting(
    labels: Mapping[str, _Labels], start: str, name: str, flow: Mapping[str, set[str]], *, opened: bool
) -> Iterator[tuple[_Source, tuple[_Source, _Source]]]:
    """Yield the ways out of a node, each with the untrusted input and the private data that reach it."""
    brought = labels[name]
    sources = sorted(reachable(flow, name), key=lambda other: (other != name, other))
    untrusted = [
        *(labels[start].posts if start in sources else ()),
        *(source for other in sources for source in labels[other].untrusted),
    ]
    private = [source for other in sources for source in labels[other].private]
    if not untrusted or not private:
        return
    for way in (*brought.tools_out, *(brought.sinks_out if opened else ())):
        yield way, (untrusted[0], private[0])
    for way in brought.remote:
        others = [source for source in private if (source.part, source.loc) != (way.part, way.loc)]
        if others:
            yield way, (untrusted[0], others[0])


def _warn(draft: Draft, name: str, way: _Source, found: tuple[_Source, _Source]) -> None:
    untrusted, private = found
    draft.problem(
        way.part,
        way.loc,
        "LL403",
        f"untrusted input ({untrusted}), private data ({private}) and a way out ({way}) meet with no person in between",
        hint=f"whoever writes the first could have the second sent; take one of them away, ask a person before tools "
        f'with `approval: always`, or write why it is meant: `trust: "..."` in {label(way.part.loc) or name}',
        severity="warning",
    )


def _labels(draft: Draft, part: Part) -> _Labels:
    config: AgentConfig | TeamConfig = part.config
    brought = _Labels(onward={connection.to for connection in config.connections})
    for index, trigger in enumerate(config.triggers):
        if what := _strangers(trigger):
            title = f' "{trigger.name}"' if trigger.name else ""
            brought.posts.append(_Source(part, ("triggers", index), f"{what}{title}"))
    for index, sink in enumerate(config.sinks):
        if what := _leads_out(sink):
            brought.sinks_out.append(_Source(part, ("sinks", index), what))
    if isinstance(config, TeamConfig):
        brought.inner = set(config.names)
        return brought
    brought.inner = {tool.name for tool in config.tools if isinstance(tool, AgentToolConfig)}
    _label_knowledge(brought, part, config)
    _label_servers(draft, brought, part, config)
    _label_functions(draft, brought, part, config)
    return brought


def _strangers(trigger: Any) -> str:
    """Return what a trigger is when others than the owner may write what it brings; else nothing.

    Files and ticks are the owner's: who may write into a watched folder is said by its permissions.
    """
    if not trigger.enabled or isinstance(trigger, FileTriggerConfig | ScheduleTriggerConfig):
        return ""
    if isinstance(trigger, WebhookTriggerConfig):
        if isinstance(trigger.auth, _OWN):
            return ""
        return "webhook without auth" if trigger.auth.type == "none" else f"webhook of {trigger.auth.type}"
    return f"{trigger.type} trigger"


def _leads_out(sink: Any) -> str:
    """Return what a sink is when it takes answers away from this machine and one's own network; else nothing."""
    if isinstance(sink, FileSinkConfig):
        return ""
    if isinstance(sink, HttpSinkConfig):
        return "" if _inside(sink.url) else f"http sink to {urlsplit(sink.url).hostname}"
    return f"{sink.type} sink"


def _label_knowledge(brought: _Labels, part: Part, config: AgentConfig) -> None:
    for index, item in enumerate(config.knowledge):
        loc = ("knowledge", index)
        if isinstance(item, FileKnowledgeConfig | FolderKnowledgeConfig):
            brought.private.append(_Source(part, loc, f"knowledge {item.path}"))
        elif isinstance(item, ResourceKnowledgeConfig):
            source = _Source(part, loc, f"resource of MCP server {item.server}")
            brought.private.append(source)
            brought.untrusted.append(source)
        elif isinstance(item, UrlKnowledgeConfig):
            where = brought.private if item.allow_private or _inside(item.url) else brought.untrusted
            where.append(_Source(part, loc, f"page of {urlsplit(item.url).hostname}"))


def _label_servers(draft: Draft, brought: _Labels, part: Part, config: AgentConfig) -> None:
    for index, entry in enumerate(config.mcp_servers):
        server = entry
        if isinstance(entry, str):
            server = draft.servers[entry].config if entry in draft.servers else None
        if server is None or isinstance(server, str) or server.tools == []:
            continue
        name = f" {entry}" if isinstance(entry, str) else ""
        source = _Source(part, ("mcp_servers", index), f"MCP server{name}")
        brought.untrusted.append(source)
        brought.private.append(source)
        if config.approval == "never":
            brought.tools_out.append(source)
        elif config.approval == "destructive" and isinstance(server, HttpServerConfig) and not _inside(server.url):
            brought.remote.append(source)


def _label_functions(draft: Draft, brought: _Labels, part: Part, config: AgentConfig) -> None:
    """Functions are the owner's own code: they count when they say that they send or destroy, and nobody is asked."""
    for index, tool in enumerate(config.tools):
        if not isinstance(tool, FunctionToolConfig):
            continue
        live = _described(draft, tool)
        if live is not None and live.destructive and (live.approval or config.approval) == "never":
            brought.tools_out.append(_Source(part, ("tools", index), f"tool {live.spec.name}"))


def _described(draft: Draft, tool: FunctionToolConfig) -> Any:
    try:
        found = draft.tools.get(tool.function) or import_object(tool.function, draft.folder)
        return plugins.load(plugins.DESCRIBE)(tool, found)
    except (ImportFailed, ValueError):
        # Told by `check_material`.
        return None


def _inside(url: str) -> bool:
    """Whether an address says itself that it lies on this machine or in a network of one's own."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host in LOOPBACK or host.endswith(_INSIDE) or ("." not in host.strip(":") and ":" not in host):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
