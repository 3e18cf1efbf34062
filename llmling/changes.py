"""What two manifests have in common: which parts of a running pool another one leaves as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmling.manifest.agents import AgentConfig, RedeliveryConfig
from llmling.manifest.root import Manifest
from llmling.manifest.teams import TeamConfig
from llmling.report import Reload
from llmling.wiring import described

# What is read anew without building a node anew.
_AROUND: Mapping[str, Any] = {"triggers": [], "connections": [], "redelivery": RedeliveryConfig(), "budget": None}


@dataclass(frozen=True, slots=True)
class Changes:
    """The way from a manifest to another one. `nodes` and `servers` are the parts that may go on as they are."""

    before: Manifest
    after: Manifest
    nodes: frozenset[str]
    servers: frozenset[str]

    def report(self, restart: Iterable[str], seconds: float) -> Reload:
        """Return what a reload tells of it, once it is done."""
        before, after = self.before, self.after

        def same(name: str) -> bool:
            return name in self.nodes and _whole(before, name) == _whole(after, name)

        sections: dict[str, tuple[Collection[str], Collection[str], Callable[[str], bool]]] = {
            "agents": (before.agents, after.agents, same),
            "teams": (before.teams, after.teams, same),
            "mcp_servers": (before.mcp_servers, after.mcp_servers, self.servers.__contains__),
            "triggers": _triggers(before, after),
        }
        pool = tuple(key for key in ("limits", "budget") if getattr(before, key) != getattr(after, key))
        added: dict[str, tuple[str, ...]] = {}
        changed: dict[str, tuple[str, ...]] = {"pool": pool} if pool else {}
        removed: dict[str, tuple[str, ...]] = {}
        kept: dict[str, tuple[str, ...]] = {}
        for section, (old, new, stays) in sections.items():
            _put(added, section, (name for name in new if name not in old))
            _put(removed, section, (name for name in old if name not in new))
            _put(changed, section, (name for name in new if name in old and not stays(name)))
            _put(kept, section, (name for name in new if name in old and stays(name)))
        return Reload(
            applied=True,
            added=added,
            changed=changed,
            removed=removed,
            kept=kept,
            restart=tuple(restart),
            seconds=seconds,
        )


def changes(before: Manifest, after: Manifest, given: Collection[str]) -> Changes:
    """Compare two manifests; agents that were `given` are nobody's to build anew."""
    servers = frozenset(
        name
        for name, config in after.mcp_servers.items()
        if before.mcp_servers.get(name) == config and _accepted(before, name) == _accepted(after, name)
    )
    nodes = {name for name in after.agents if name in before.agents and name in given}
    for name, agent in after.agents.items():
        old = before.agents.get(name)
        uses = {server for server in agent.mcp_servers if isinstance(server, str)}
        own = [] if before.pins == after.pins else [each for each in agent.mcp_servers if not isinstance(each, str)]
        if old is not None and uses <= servers and not own and _built(old, before) == _built(agent, after):
            nodes.add(name)
    # A team holds its members themselves; one team may be in another.
    while more := {name for name in after.teams if name not in nodes and _same_team(name, before, after, nodes)}:
        nodes |= more
    return Changes(before, after, frozenset(nodes), servers)


def _accepted(manifest: Manifest, server: str) -> Mapping[str, str] | None:
    return None if manifest.pins is None else manifest.pins.servers.get(server, {})


def _same_team(name: str, before: Manifest, after: Manifest, nodes: Collection[str]) -> bool:
    old, new = before.teams.get(name), after.teams[name]
    return old is not None and _built(old, before) == _built(new, after) and all(each in nodes for each in new.names)


def _built(config: AgentConfig | TeamConfig, manifest: Manifest) -> Any:
    if isinstance(config, TeamConfig):
        return config.model_copy(update={key: value for key, value in _AROUND.items() if key != "budget"})
    return described(config, manifest).model_copy(update=_AROUND)


def _whole(manifest: Manifest, name: str) -> Any:
    return manifest.nodes[name].model_copy(update={"triggers": []})


def _triggers(before: Manifest, after: Manifest) -> tuple[Collection[str], Collection[str], Callable[[str], bool]]:
    old, new = (
        {
            trigger.name: (name, trigger)
            for name, node in manifest.nodes.items()
            for trigger in node.triggers
            if trigger.enabled
        }
        for manifest in (before, after)
    )
    return old, new, lambda name: old[name] == new[name]


def _put(parts: dict[str, tuple[str, ...]], section: str, names: Iterable[str]) -> None:
    if found := tuple(names):
        parts[section] = found
