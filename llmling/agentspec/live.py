"""An agent built in Python as a manifest, as far as one can say what it is made of."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from llmling.agentspec.prose import literal
from llmling.agentspec.secrets import variable_name
from llmling.agentspec.toolboxes import REGISTRY
from llmling.errors import LLMlingError
from llmling.manifest.prompts import StructuredInstructionsConfig
from llmling.manifest.root import Manifest
from llmling.manifest.tools import FunctionToolConfig
from llmling.protocols import Prompt
from llmling.runtime.agent import Agent
from llmling.runtime.instructions import PlainInstructions

_MESSAGE = "\ue000"


def manifest_of(agent: Agent[Any]) -> tuple[Manifest, str]:
    """Return a manifest with this agent in it, and its name there.

    Raises:
        LLMlingError: It is made of something no manifest can hold.
    """
    if agent.manifest is not None:
        return agent.manifest, agent.name
    config, model = agent.config, agent.parts.model_config
    if shared := [name for name in config.mcp_servers if isinstance(name, str)]:
        raise LLMlingError(f"agent {agent.name!r} uses the MCP server {shared[0]!r} of its pool: dump(pool, name=...)")
    if not isinstance(model, BaseModel):
        raise LLMlingError(f"agent {agent.name!r} was given a model as an object, which no document can hold: name it")
    changes: dict[str, Any] = {"model": model}
    bound: dict[str, Any] = {}
    if not config.tools:
        bound = {f"{REGISTRY}{variable_name(tool.spec.name).lower()}": tool for tool in agent.parts.tools()}
        changes["tools"] = [FunctionToolConfig(function=path) for path in bound]
    if config.output is None and agent.output is not None:
        changes["output"] = dict(agent.output)
    if not config.instructions and not isinstance(agent.parts.prompt, PlainInstructions):
        changes["instructions"] = _instructions(agent.parts.prompt)
    kept = {name: getattr(config, name) for name in config.model_fields_set}
    whole = type(config).model_construct(**{**kept, **changes})
    return Manifest.of({agent.name: cast("Any", whole)}, bound, agent.parts.folder), agent.name


def _instructions(prompt: Prompt) -> StructuredInstructionsConfig:
    system, user = prompt.system({}), prompt.user(_MESSAGE, {})
    directive = "{{ message }}".join(literal(text) for text in user.split(_MESSAGE))
    framed = None if user == _MESSAGE else directive
    return StructuredInstructionsConfig(guidance=literal(system) or None, directive=framed)
