"""A pool of LLM agents with event triggers that never loses an acknowledged event."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmling import garbage

if TYPE_CHECKING:
    from llmling.events import Event
    from llmling.manifest.root import Manifest
    from llmling.messages import Message, RunResult
    from llmling.pool import AgentPool
    from llmling.prompts.context import Context
    from llmling.prompts.parts import Constraints, Directive, Guidance
    from llmling.runtime.agent import Agent
    from llmling.runtime.team import Team
    from llmling.runtime.tracing import get_tracer, tracer
    from llmling.tools.function import tool

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "AgentPool",
    "Constraints",
    "Context",
    "Directive",
    "Event",
    "Guidance",
    "Manifest",
    "Message",
    "RunResult",
    "Team",
    "get_tracer",
    "tool",
    "tracer",
]

_HOMES = {
    "Agent": "runtime.agent",
    "AgentPool": "pool",
    "Constraints": "prompts.parts",
    "Context": "prompts.context",
    "Directive": "prompts.parts",
    "Event": "events",
    "Guidance": "prompts.parts",
    "Manifest": "manifest.root",
    "Message": "messages",
    "RunResult": "messages",
    "Team": "runtime.team",
    "get_tracer": "runtime.tracing",
    "tool": "tools.function",
    "tracer": "runtime.tracing",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use, so `import llmling` stays light.
    if name not in _HOMES:
        raise AttributeError(f"module 'llmling' has no attribute {name!r}")
    with garbage.held(imports=True):
        value = getattr(importlib.import_module(f"llmling.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
