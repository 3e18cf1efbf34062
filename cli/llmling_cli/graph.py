"""`llmling graph`: the topology as text for Mermaid, or as a picture."""

from __future__ import annotations

from typing import Literal

from llmling.manifest import Manifest
from llmling.picture import picture
from llmling.planning import plan
from llmling.topology import Node, Topology, topology
from llmling_cli import console


def show(manifest: Manifest, output: Literal["mermaid", "svg"]) -> None:
    """Print the topology of a manifest."""
    console.say(mermaid(topology(plan(manifest))) if output == "mermaid" else picture(manifest))


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
