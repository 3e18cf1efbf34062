"""What people cannot do (`model: human`), and what they could never be asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmling.manifest.agents import AgentConfig
from llmling.manifest.draft import Draft
from llmling.manifest.loops import follows, reachable
from llmling.manifest.models import FallbackModelConfig, HumanModelConfig
from llmling.manifest.nodes import Loc, MappingNode, find
from llmling.manifest.pool import MemoryEngineConfig
from llmling.manifest.shape import Part
from llmling.manifest.teams import TeamConfig

_NOT_FOR_PEOPLE = {
    "tools": "calls no tools",
    "mcp_servers": "calls no tools",
    "plan": "is asked for no plan",
    "context": "is shown the last message, whatever its length",
    "memory": "calls no tools, and `facts` are kept with tools",
}


def not_for_people(config: AgentConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of an agent that mean nothing when a person answers, and why."""
    for key, why in _NOT_FOR_PEOPLE.items():
        if config.memory.facts if key == "memory" else getattr(config, key):
            yield key, f"a person (`model: human`) {why}"


def check_people(draft: Draft) -> None:
    """Refuse what an agent that is a person says in vain; what it has from `defaults:` is left out."""
    for part in draft.agents.values():
        config: AgentConfig = part.config
        if not isinstance(config.model, HumanModelConfig):
            continue
        inherited: dict[str, Any] = {}
        for key, why in not_for_people(config):
            loc = ("memory", "facts") if key == "memory" else (key,)
            if draft.defaults is not None and _entry(part, loc) is _key(draft.defaults, loc):
                inherited[key] = AgentConfig.model_fields[key].get_default(call_default_factory=True)
            else:
                draft.problem(part, loc, "LL212", why, hint=f"remove `{key}:`")
        part.config = config.model_copy(update=inherited)
    _check_answerable(draft)


def _entry(part: Part, loc: Loc) -> object:
    return find(part.node, loc).key


def _key(defaults: MappingNode, loc: Loc) -> object:
    found = find(defaults, loc)
    return defaults if found.rest else found.key


def _check_answerable(draft: Draft) -> None:
    """Warn of questions that only Python code could answer: no other process sees the events, no server takes one."""
    engine, server = draft.engine, draft.server
    in_memory = engine is not None and isinstance(engine.config, MemoryEngineConfig)
    if not in_memory or server is None or server.config is not False:
        return
    nodes = dict(draft.nodes())
    graph = {name: follows(part.config) for name, part in nodes.items()}
    triggered = [name for name, part in nodes.items() if any(trigger.enabled for trigger in part.config.triggers)]
    reached = {other for name in triggered for other in reachable(graph, name)}
    for name, part in nodes.items():
        for loc, what in _asks(part.config) if name in reached else ():
            draft.problem(
                part,
                loc,
                "LL212",
                f"{what}, and nobody can answer: `engine: {{type: memory}}` with `server: false` has no way in",
                hint="remove one of these two, unless Python code calls `AgentPool.decide`",
                severity="warning",
            )


def _asks(config: AgentConfig | TeamConfig) -> Iterator[tuple[Loc, str]]:
    models = config.model.models if isinstance(config.model, FallbackModelConfig) else [config.model]
    if any(isinstance(model, HumanModelConfig) for model in models):
        yield ("model",), "an event would wait for a person"
    for index, tool in enumerate(config.tools if isinstance(config, AgentConfig) else ()):
        if tool.approval == "always":
            yield ("tools", index, "approval"), "an event would wait for approval"
