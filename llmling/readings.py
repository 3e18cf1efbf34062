"""What a pool shows of itself: its report for people, and its numbers for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmling.manifest.root import Manifest
from llmling.protocols import Engine
from llmling.report import AgentState, ServerState, StartReport, TriggerState
from llmling.runtime.agent import Agent
from llmling.runtime.gate import Bounds
from llmling.runtime.runnable import Runnable
from llmling.server.metrics import Sample
from llmling.spending import bound_samples
from llmling.wiring import Graph


def start_report(
    graph: Graph, triggers: tuple[TriggerState, ...], server_url: str | None, told: Iterable[str], seconds: float
) -> StartReport:
    """Return what is running; `told` are lines a person should read beside those of the agents."""
    agents: dict[str, Agent[Any]] = {name: node for name, node in graph.nodes.items() if isinstance(node, Agent)}
    notices = [*(node.notice for node in graph.nodes.values() if isinstance(node, Runnable)), *told]
    return StartReport(
        agents=tuple(_agent_state(name, agent) for name, agent in agents.items()),
        triggers=triggers,
        servers=tuple(
            ServerState(name, server.state, server.reason or "", len(server.tools()), server.ready_s)
            for name, server in graph.providers.items()
        ),
        server_url=server_url,
        notices=tuple(dict.fromkeys(filter(None, notices))),
        seconds=seconds,
    )


def unready(
    broken: Mapping[str, str], graph: Graph, manifest: Manifest, engine: Engine | None, draining: bool
) -> Iterator[str]:
    """Yield why events cannot be taken: `broken` triggers and why, MCP servers that are required, engine, the end."""
    for name, why in broken.items():
        yield f"trigger {name!r}: {why}"
    for name, server in graph.providers.items():
        config = manifest.mcp_servers.get(name)
        if config is not None and config.required and server.state != "ready":
            yield f"MCP server {name!r} is {server.state}: {server.reason}"
    if engine is not None and engine.fault:
        yield engine.fault
    if draining:
        yield "draining"


def _agent_state(name: str, agent: Agent[Any]) -> AgentState:
    parts = agent.parts
    return AgentState(name, parts.model.name, parts.state, "; ".join(parts.reasons), len(parts.tools()))


def samples(
    graph: Graph, runs: Mapping[tuple[str, str], int], bounds: Bounds | None, cost_usd: float
) -> Iterator[Sample]:
    """Yield what is counted of the deliveries `runs` by agent and how they ended, of MCP servers and of money."""
    for (agent, status), count in sorted(runs.items()):
        labels = {"agent": agent, "status": status}
        yield Sample("llmling_runs_total", count, labels, "counter", "Deliveries run, by how they ended.")
    for name, server in graph.providers.items():
        yield Sample("llmling_mcp_up", server.state == "ready", {"server": name}, "gauge", "1 while it answers.")
    yield from bound_samples(bounds)
    yield Sample("llmling_cost_usd_total", cost_usd, {}, "counter", "US dollars spent by settled events.")
