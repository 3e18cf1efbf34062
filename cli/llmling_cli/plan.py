"""`llmling plan`: what would run."""

from __future__ import annotations

from llmling.manifest import Manifest
from llmling.planning import Plan, PlannedAgent, PlannedBudget, plan
from llmling_cli import console


def show(manifest: Manifest, *, json: bool) -> None:
    """Print what a manifest would run on this machine."""
    planned = plan(manifest)
    if json:
        console.say_json(planned.to_dict())
        return
    _agents(planned)
    if planned.triggers:
        console.say()
        rows = [
            (trigger.name + ("" if trigger.enabled else " (disabled)"), trigger.type, trigger.agent, trigger.listens)
            for trigger in planned.triggers
        ]
        console.say_table(rows, ("TRIGGER", "TYPE", "AGENT", "LISTENS TO"))
    if planned.edges:
        console.say()
        for edge in planned.edges:
            console.say(f"{edge.source} >> {edge.target}" + (f"  when {edge.when}" if edge.when else ""))
    if planned.mcp_servers:
        console.say()
        console.say_table(list(planned.mcp_servers.items()), ("MCP SERVER", "FROM"))
    if planned.budgets:
        console.say()
        budgets = [(budget.owner, _at_most(budget), budget.mode) for budget in planned.budgets]
        console.say_table(budgets, ("BUDGET OF", "AT MOST", "MODE"))
    console.say()
    for label, values in (("ports", planned.ports), ("folders", planned.folders), ("engine", (planned.engine,))):
        if values:
            console.say(f"{label}: {', '.join(values)}")
    for warning in planned.warnings:
        console.say(console.paint(console.masked(str(warning)), "yellow"))


def _agents(planned: Plan) -> None:
    rows = [(agent.name, _kind(agent), _uses(agent), ", ".join(agent.sinks) or "-") for agent in planned.agents]
    console.say_table(rows, ("AGENT", "MODEL", "USES", "ANSWERS GO TO"))
    if asking := [agent for agent in planned.agents if agent.asks]:
        console.say()
        for agent in asking:
            console.say(console.masked(f"{agent.name} asks a person before {', '.join(agent.asks)}"))


def _at_most(budget: PlannedBudget) -> str:
    limits = budget.limits.items()
    return ", ".join(f"{value:,.12g} {key.replace('_', ' ').replace('usd', 'USD')}" for key, value in limits)


def _kind(agent: PlannedAgent) -> str:
    return agent.model or f"{agent.kind}: {', '.join(_member(agent, name) for name in agent.members)}"


def _member(agent: PlannedAgent, name: str) -> str:
    if not agent.conditions:
        return name
    condition = agent.conditions[name]
    return f"{name} if {condition}" if condition else f"else {name}"


def _uses(agent: PlannedAgent) -> str:
    servers = (f"MCP {server}" for server in agent.mcp_servers)
    return console.masked(", ".join([*agent.tools, *servers, *agent.knowledge])) or "-"
