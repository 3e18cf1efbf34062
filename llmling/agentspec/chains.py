"""Agents one after the other as a Flow: start, a node for each, end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmling.agentspec.component import Component

_NEXT = ["next"]


def flow(name: str, steps: Sequence[Component], description: str | None, extras: Mapping[str, Any]) -> Component:
    """Return components as a flow in which each continues where the one before it ended."""
    inputs: dict[str, dict[str, Any]] = {}
    for step in steps:
        for item in step.fields["inputs"]:
            inputs.setdefault(item["title"], item)
    outputs: list[dict[str, Any]] = steps[-1].fields["outputs"]
    taken = list(inputs.values())
    start = Component("StartNode", "start", {"inputs": taken, "outputs": taken, "branches": _NEXT})
    end = Component("EndNode", "end", {"inputs": outputs, "outputs": outputs, "branches": [], "branch_name": "next"})
    nodes = [start, *_nodes(steps), end]
    data: list[Component] = []
    for node, step in zip(nodes[1:-1], steps, strict=True):
        data.extend(_data(start, node, item["title"]) for item in step.fields["inputs"])
    data.extend(_data(nodes[-2], end, item["title"]) for item in outputs)
    fields: dict[str, Any] = {
        "inputs": taken,
        "outputs": outputs,
        "start_node": start,
        "nodes": nodes,
        "control_flow_connections": [_control(nodes[index], nodes[index + 1]) for index in range(len(nodes) - 1)],
        "data_flow_connections": data,
    }
    return Component("Flow", name, fields, description, dict(extras))


def _nodes(steps: Sequence[Component]) -> list[Component]:
    nodes: list[Component] = []
    for index, step in enumerate(steps, 1):
        fields: dict[str, Any] = {name: step.fields[name] for name in ("inputs", "outputs")}
        nodes.append(Component("AgentNode", f"{index} {step.name}", {**fields, "branches": _NEXT, "agent": step}))
    return nodes


def _control(source: Component, target: Component) -> Component:
    fields: dict[str, Any] = {"from_node": source, "from_branch": None, "to_node": target}
    return Component("ControlFlowEdge", f"{source.name} to {target.name}", fields)


def _data(source: Component, target: Component, title: str) -> Component:
    fields: dict[str, Any] = {
        "source_node": source,
        "source_output": title,
        "destination_node": target,
        "destination_input": title,
    }
    return Component("DataFlowEdge", f"{title}: {source.name} to {target.name}", fields)
