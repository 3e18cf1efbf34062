"""From a manifest to what bounds its model requests: budgets, limits of models and pool, and prices nobody knows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from llmling.manifest.budgets import BudgetConfig
from llmling.manifest.models import ModelConfig
from llmling.manifest.pool import NatsEngineConfig
from llmling.manifest.root import Manifest
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import AgentToolConfig
from llmling.models.prices import unpriced
from llmling.protocols import Store
from llmling.runtime.agent import Agent
from llmling.runtime.budget import Budget, unknown_price
from llmling.runtime.circuit import Circuits
from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.gate import Bounds, agent_budget, model_limits
from llmling.runtime.shares import Limits, Shares
from llmling.server.metrics import Sample

_model_config: TypeAdapter[Any] = TypeAdapter(ModelConfig)


def budgets(manifest: Manifest) -> list[Budget]:
    """Return every budget of a manifest: of the pool, its agents and its triggers."""

    def places(config: BudgetConfig, *loc: str | int) -> dict[str, str]:
        return {key: manifest.locate(*loc, key) for key in config.limits}

    found: list[Budget] = []
    if (config := manifest.budget) is not None:
        found.append(Budget("the pool", "pool", config, places(config, "budget")))
    for name, agent in manifest.agents.items():
        if (config := agent.budget) is not None:
            found.append(agent_budget(name, config, places(config, "agents", name, "budget")))
    for name, node in manifest.nodes.items():
        section = "teams" if name in manifest.teams else "agents"
        for index, trigger in enumerate(node.triggers):
            if (config := trigger.budget) is not None:
                at = places(config, section, name, "triggers", index, "budget")
                found.append(Budget(f"trigger {trigger.name!r}", f"trigger {trigger.name}", config, at))
    return found


async def bounded(
    manifest: Manifest, store: Store, agents: Mapping[str, Agent[Any]], clock: Clock = SYSTEM_CLOCK
) -> Bounds:
    """Return what bounds the model requests of a pool; `store` keeps what its budgets spend, and is not used without.

    `agents` are those that were built already, with budgets of their own.

    Raises:
        EngineError: The store cannot be used.
    """
    known, limits = budgets(manifest), manifest.limits
    models = [agents[name].parts.model_config if name in agents else model for name, model in models_of(manifest)]
    own = [agent_budget(name, config) for name, agent in agents.items() if (config := agent.config.budget)]
    bounds = Bounds(
        clock,
        pool=Limits(limits.requests_at_once, limits.requests_per_minute),
        models=model_limits(models),
        budgets=(*known, *(budget for budget in own if all(budget.key != other.key for other in known))),
        store=store,
        circuits=Circuits(clock, limits.circuit_failures, limits.circuit_s),
        shares=Shares(store, clock) if isinstance(manifest.engine, NatsEngineConfig) else None,
    )
    await bounds.open()
    return bounds


def bound_samples(bounds: Bounds | None) -> Iterator[Sample]:
    """Yield what `/metrics` shows of budgets and circuits."""
    if bounds is not None:
        yield from budget_samples(bounds)
        yield from circuit_samples(bounds)


def circuit_samples(bounds: Bounds) -> Iterator[Sample]:
    """Yield what `/metrics` shows of the models and servers that fail."""
    for circuit in bounds.circuits:
        labels = {"name": circuit.name}
        yield Sample("llmling_circuit_open", float(circuit.open), labels, "gauge", "1 while it is left alone.")
        yield Sample("llmling_circuit_opened_total", circuit.opened, labels, "counter", "How often it was left alone.")


def budget_samples(bounds: Bounds) -> Iterator[Sample]:
    """Yield what `/metrics` shows of the budgets."""
    for account in bounds.accounts.all:
        state = account.state
        labels = {"budget": state.owner, "unit": state.unit, "period": state.period, "mode": state.mode}
        yield Sample("llmling_budget_spent", state.spent, labels, "gauge", "Spent and reserved in the current period.")
        yield Sample("llmling_budget_limit", state.limit, labels, "gauge", "What may be spent in a period.")
        yield Sample(
            "llmling_budget_over_total", state.over, labels, "counter", "Requests over it, refused or let through."
        )


def unpriced_models(
    manifest: Manifest, model: str | None = None, env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield agents, and teams that ask a model, whose money is bounded while nobody knows what that model costs.

    Beside the name is what to do about it.
    """
    env = os.environ if env is None else env
    bounded = budgets(manifest)
    reached = {
        f"trigger {trigger.name}": _reached(manifest, name)
        for name, node in manifest.nodes.items()
        for trigger in node.triggers
    }
    for name, written in models_of(manifest):
        money = [
            (budget, key)
            for budget in bounded
            for key in budget.config.limits
            if key.startswith("usd")
            and (budget.key in {"pool", f"agent {name}"} or name in reached.get(budget.key, ()))
        ]
        config = written if model is None else _model_config.validate_python(model)
        for each in unpriced(config, env) if money else ():
            who = "team" if name in manifest.teams else "agent"
            yield name, f"{who} {name!r}: {unknown_price(each, *money[0])}"


def models_of(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    """Yield agents, and teams that ask a model, each with the config of its model."""
    for name, agent in manifest.agents.items():
        yield name, agent.model
    for name, team in manifest.teams.items():
        if team.model is not None:
            yield name, team.model


def _reached(manifest: Manifest, start: str) -> set[str]:
    """Return the agents and teams that may come to work on the events of one of them."""
    found: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        node = manifest.nodes.get(name)
        if node is None or name in found:
            continue
        found.add(name)
        todo.extend(edge.to for edge in node.connections)
        if isinstance(node, TeamConfig):
            todo.extend(node.names)
        else:
            todo.extend(tool.name for tool in node.tools if isinstance(tool, AgentToolConfig))
    return found
