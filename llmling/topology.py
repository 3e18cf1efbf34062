"""The topology of a pool: what stands in it, and what goes from where to where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmling.planning import Plan

Shape: TypeAlias = Literal["agent", "team", "trigger", "sink"]


@dataclass(frozen=True, slots=True)
class Node:
    """A box: its title, a second line, and the team it stands in."""

    id: str
    shape: Shape
    title: str
    detail: str = ""
    team: str | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow; `loose` ones are calls of an agent as a tool, or membership in a further team."""

    source: str
    target: str
    label: str = ""
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """What is drawn, in the order of the manifest."""

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]


def topology(planned: Plan) -> Topology:
    """Return the boxes and arrows of a plan; an agent stands in the first team that names it."""
    ids = {agent.name: f"n{index}" for index, agent in enumerate(planned.agents)}
    teams = [agent for agent in planned.agents if agent.members]
    home: dict[str, str] = {}
    reasons: dict[str, str] = {}
    edges: list[Edge] = []
    for team in teams:
        for member in dict.fromkeys(team.members):
            reason = (team.conditions[member] or "otherwise") if team.conditions else ""
            if home.setdefault(member, ids[team.name]) != ids[team.name]:
                edges.append(Edge(ids[team.name], ids[member], reason or "member", loose=True))
            elif reason:
                reasons[member] = reason
    nodes: dict[str, Node] = {}
    for index, trigger in enumerate(planned.triggers):
        name = f"t{index}"
        state = "" if trigger.enabled else " (disabled)"
        nodes[name] = Node(name, "trigger", f"{trigger.name}{state}", trigger.listens)
        edges.append(Edge(name, ids[trigger.agent]))
    for agent in planned.agents:
        shape: Shape = "team" if agent.members else "agent"
        detail = " · ".join(part for part in (agent.model or agent.kind, reasons.get(agent.name)) if part)
        nodes[ids[agent.name]] = Node(ids[agent.name], shape, agent.name, detail, home.get(agent.name))
        edges += [
            Edge(ids[agent.name], ids[tool.removeprefix("agent ")], "tool", loose=True)
            for tool in agent.tools
            if tool.removeprefix("agent ") in ids and tool.startswith("agent ")
        ]
    edges += [Edge(ids[edge.source], ids[edge.target], edge.when or "") for edge in planned.edges]
    for agent in planned.agents:
        for sink in agent.sinks:
            kind, _, place = sink.partition(" ")
            name = f"s{sum(node.shape == 'sink' for node in nodes.values())}"
            nodes[name] = Node(name, "sink", kind, place)
            edges.append(Edge(ids[agent.name], name))
    return Topology(nodes, tuple(edges))
