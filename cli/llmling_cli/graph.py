"""`llmling graph`: the topology as text for Mermaid, or as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmling.manifest import Manifest
from llmling.planning import Plan, plan
from llmling_cli import console
from llmling_cli.svg import draw

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


def show(manifest: Manifest, output: Literal["mermaid", "svg"]) -> None:
    """Print the topology of a manifest."""
    drawn = topology(plan(manifest))
    console.say(mermaid(drawn) if output == "mermaid" else draw(drawn.nodes.values(), drawn.edges))


def mermaid(drawn: Topology) -> str:
    """Return the topology as a Mermaid flowchart."""
    lines = ["flowchart LR"]

    def place(node: Node, depth: int) -> None:
        indent = "  " * depth
        if node.shape == "team":
            lines.append(f'{indent}subgraph {node.id}["{_escaped(node.title)}: {_escaped(node.detail)}"]')
            for inner in drawn.nodes.values():
                if inner.team == node.id:
                    place(inner, depth + 1)
            lines.append(f"{indent}end")
        else:
            start, end = {"agent": ("[", "]"), "trigger": ("([", "])"), "sink": ("[(", ")]")}[node.shape]
            text = "<br/>".join(_escaped(part) for part in (node.title, node.detail) if part)
            lines.append(f'{indent}{node.id}{start}"{text}"{end}')

    for node in drawn.nodes.values():
        if node.team is None:
            place(node, 1)
    for edge in drawn.edges:
        arrow = "-.->" if edge.loose else "-->"
        label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
        lines.append(f"  {edge.source} {arrow}{label} {edge.target}")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    # Mermaid reads these inside quotes too; its own entities are the only way to write them.
    for char, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("`", "#96;")):
        text = text.replace(char, entity)
    return text
