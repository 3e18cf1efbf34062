"""A Flow as steps one after the other, and where each step's inputs come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmling.agentspec.document import Part
from llmling.agentspec.fields import AGENTS
from llmling.agentspec.given import written
from llmling.agentspec.prose import of_event
from llmling.agentspec.shapes import schema_of

_STEPS = ("AgentNode", "LlmNode")
_NODES = ("StartNode", "EndNode", *_STEPS)


@dataclass(frozen=True, slots=True)
class Step:
    """Where the inputs of one node come from, by name: an expression of a manifest.

    `message` is the answer of the step before, or for the first step of a flow with one input the prompt of the run.
    `plain` tells that nothing but events fill it, under the names it has itself.
    """

    sources: tuple[tuple[str, str], ...] = ()
    plain: bool = False

    def from_message(self, name: str) -> bool:
        """Whether an input is the message the agent gets."""
        return dict(self.sources).get(name) == "message"

    def filled(self, name: str, part: Part) -> str:
        """Return the expression of an input."""
        return dict(self.sources).get(name) or of_event(name, _default(part, name))

    def output(self, part: Part) -> Any:
        """Return `output:` of a step; a step that answers one text needs none."""
        outputs = part.properties("outputs")
        if len(outputs) == 1 and outputs[0].get("type", "string") == "string":
            return None
        return written(schema_of(outputs)) if outputs else None


def _properties(node: Part, name: str) -> list[dict[str, Any]]:
    """Return the inputs or outputs of a node: its own, else those of what it holds."""
    inner = node.part("agent", AGENTS) if node.type == "AgentNode" else None
    return node.properties(name) or (inner.properties(name) if inner is not None else [])


def _default(part: Part, name: str) -> Any:
    return next((item.get("default") for item in part.properties("inputs") if item["title"] == name), None)


class FlowReader:
    """Follows a flow from its start to its end; whatever is no chain is a problem."""

    def __init__(self, flow: Part) -> None:
        self._flow = flow
        self._start = flow.part("start_node", ("StartNode",))
        self._nodes = list(flow.parts("nodes", _NODES))
        # Our own flows hand agents on as they are: what they ask for is the event's, under its own name.
        self._ours = bool(flow.extras)

    def steps(self) -> Iterator[tuple[Part, Step]]:
        """Yield the nodes between start and end in their order, and what fills each of them."""
        way = self._way()
        for index, node in enumerate(way):
            yield node, self._step(way, index)
        for edge in self._flow.parts("data_flow_connections", ("DataFlowEdge",)):
            source, target = edge.part("source_node", _NODES), edge.part("destination_node", _NODES)
            if source and target and target.type == "EndNode" and way and source is not way[-1]:
                name = edge.text("destination_input")
                self._broken(
                    edge, f"its output {name!r} comes from {source.name!r}, and the last one is {way[-1].name!r}"
                )

    def _way(self) -> list[Part]:
        after: dict[int, Part] = {}
        for edge in self._flow.parts("control_flow_connections", ("ControlFlowEdge",)):
            source, target = edge.part("from_node", _NODES), edge.part("to_node", _NODES)
            if source is None or target is None:
                continue
            if id(source) in after:
                self._broken(edge, f"{source.name!r} has more than one way on")
            if edge.value("from_branch") not in (None, "next"):
                self._broken(edge, f"{source.name!r} goes on over a branch of its own")
            after[id(source)] = target
        way: list[Part] = []
        node = self._start
        while node is not None and node.type != "EndNode":
            if node in way:
                self._broken(node, f"{node.name!r} comes after itself")
                return way
            if node.type != "StartNode":
                way.append(node)
            following = after.get(id(node))
            if following is None:
                self._broken(node, f"nothing comes after {node.name!r}")
            node = following
        if self._start is not None and not way:
            self._broken(self._flow, "it has no agent")
        for left in self._nodes:
            if left.type in _STEPS and left not in way:
                self._broken(left, f"{left.name!r} is not on the way from start to end")
        return way

    def _broken(self, part: Part, what: str) -> None:
        hint = "only flows that run from start to end without a choice can be loaded"
        part.problem(None, "LL607", f"this flow is no chain: {what}", hint=hint)

    def _step(self, way: list[Part], index: int) -> Step:
        node = way[index]
        if self._ours:
            return Step(plain=True)
        sources: list[tuple[str, str]] = []
        for item in _properties(node, "inputs"):
            name = item["title"]
            source, output = self._source(way, index, name)
            if source is None:
                if "default" not in item:
                    node.problem("inputs", "LL607", f'nothing fills the input "{name}"', hint="add a data flow edge")
                continue
            if source.type == "StartNode":
                sources.append((name, self._of_flow(output, index)))
            elif index and source is way[index - 1]:
                self._alone(node, name, source)
                sources.append((name, "message"))
            else:
                what = f"the input {name!r} of {node.name!r} comes from {source.name!r}, which is not right before it"
                self._broken(node, what)
        return Step(tuple(sources))

    def _alone(self, node: Part, name: str, source: Part) -> None:
        inner = (
            source.part("agent", ("Agent", "Flow", "ManagerWorkers", "Swarm")) if source.type == "AgentNode" else source
        )
        outputs = source.properties("outputs") or (inner.properties("outputs") if inner is not None else [])
        if len(outputs) > 1:
            self._broken(node, f"{node.name!r} takes {name!r} out of the {len(outputs)} outputs of {source.name!r}")

    def _of_flow(self, name: str, index: int) -> str:
        inputs = self._start.properties("inputs") if self._start is not None else []
        if len(inputs) != 1:
            return of_event(name)
        # The only input of a flow is the prompt of the run; a later step finds it in the event.
        return "message" if index == 0 else f"{of_event(name)} if event.data is mapping else event.data"

    def _source(self, way: list[Part], index: int, name: str) -> tuple[Part | None, str]:
        if self._flow.has("data_flow_connections"):
            for edge in self._flow.parts("data_flow_connections", ("DataFlowEdge",)):
                if edge.text("destination_input") == name and edge.part("destination_node", _NODES) is way[index]:
                    return edge.part("source_node", _NODES), edge.text("source_output")
            return None, ""
        # Without edges, what has the same name belongs together; the nearest one counts.
        for node in reversed(way[:index]):
            if any(item["title"] == name for item in node.properties("outputs")):
                return node, name
        start = self._start
        if start is not None and any(item["title"] == name for item in start.properties("inputs")):
            return start, name
        return None, ""
