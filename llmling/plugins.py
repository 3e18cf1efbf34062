"""The table of plug points: `type:` of a manifest mapping to the config class and the live class it stands for.

Only strings live here, so naming a part never imports it. A package adds its own parts without a line here,
by an entry point in the group `llmling.<kind>` whose name is the `type:` and whose object is the live class;
that class names its config class in the attribute `config`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["models", "tools", "mcp_servers", "knowledge", "triggers", "sinks", "engines"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where the config class and the live class of one `type:` are, as `module:Class`."""

    config: str
    live: str


TABLE: dict[Kind, dict[str, Plugin]] = {
    "models": {
        "auto": Plugin("llmling.manifest.models:AutoModelConfig", "llmling.models.auto:auto_model"),
        "demo": Plugin("llmling.manifest.models:DemoModelConfig", "llmling.models.demo:DemoModel"),
        "script": Plugin("llmling.manifest.models:ScriptModelConfig", "llmling.models.scripted:script_model"),
        "replay": Plugin("llmling.manifest.models:ReplayModelConfig", "llmling.models.cassettes.replay:replay_model"),
        "human": Plugin("llmling.manifest.models:HumanModelConfig", "llmling.models.human:human_model"),
        "litellm": Plugin("llmling.manifest.models:LiteLLMModelConfig", "llmling.models.litellm:LiteLLMModel"),
        "fallback": Plugin("llmling.manifest.models:FallbackModelConfig", "llmling.models.fallback:FallbackModel"),
    },
    "tools": {
        "function": Plugin("llmling.manifest.tools:FunctionToolConfig", "llmling.tools.function:function_tool"),
        "agent": Plugin("llmling.manifest.tools:AgentToolConfig", "llmling.tools.agent:AgentTool"),
    },
    "mcp_servers": {
        "stdio": Plugin("llmling.manifest.tools:StdioServerConfig", "llmling.tools.mcp:McpServer"),
        "http": Plugin("llmling.manifest.tools:HttpServerConfig", "llmling.tools.mcp:McpServer"),
    },
    "knowledge": {
        "file": Plugin("llmling.manifest.knowledge:FileKnowledgeConfig", "llmling.knowledge.file:FileKnowledge"),
        "url": Plugin("llmling.manifest.knowledge:UrlKnowledgeConfig", "llmling.knowledge.url:UrlKnowledge"),
        "text": Plugin("llmling.manifest.knowledge:TextKnowledgeConfig", "llmling.knowledge.prompt:TextKnowledge"),
        "prompt": Plugin(
            "llmling.manifest.knowledge:PromptKnowledgeConfig", "llmling.knowledge.prompt:PromptKnowledge"
        ),
        "resource": Plugin(
            "llmling.manifest.knowledge:ResourceKnowledgeConfig", "llmling.knowledge.resource:ResourceKnowledge"
        ),
        "folder": Plugin("llmling.manifest.knowledge:FolderKnowledgeConfig", "llmling.knowledge.index:FolderKnowledge"),
    },
    "triggers": {
        "file": Plugin("llmling.manifest.triggers:FileTriggerConfig", "llmling.triggers.file:FileTrigger"),
        "webhook": Plugin("llmling.manifest.triggers:WebhookTriggerConfig", "llmling.triggers.webhook:WebhookTrigger"),
        "schedule": Plugin(
            "llmling.manifest.triggers:ScheduleTriggerConfig", "llmling.triggers.schedule:ScheduleTrigger"
        ),
    },
    "sinks": {
        "file": Plugin("llmling.manifest.sinks:FileSinkConfig", "llmling.sinks.file:FileSink"),
        "http": Plugin("llmling.manifest.sinks:HttpSinkConfig", "llmling.sinks.http:HttpSink"),
    },
    "engines": {
        "sqlite": Plugin("llmling.manifest.pool:SqliteEngineConfig", "llmling.engines.sqlite:SqliteEngine"),
        "memory": Plugin("llmling.manifest.pool:MemoryEngineConfig", "llmling.engines.memory:MemoryEngine"),
        "nats": Plugin("llmling.manifest.pool:NatsEngineConfig", "llmling.engines.jetstream.engine:NatsEngine"),
    },
}


@functools.cache
def _entry_points(kind: Kind) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"llmling.{kind}")}


def types(kind: Kind) -> tuple[str, ...]:
    """Return every known `type:` of a plug point, built in ones first."""
    return (*TABLE[kind], *(name for name in _entry_points(kind) if name not in TABLE[kind]))


AS_TOOL = "llmling.tools.function:as_tool"
"""Turns a callable into a tool."""
FACT_TOOLS = "llmling.tools.facts:fact_tools"
"""Gives an agent the tools by which it remembers facts."""
DESCRIBE = "llmling.tools.function:describe"
"""Turns a tool's config and its callable into a tool, or says why it cannot be described to a model."""
SCHEMA_FAULTS = "llmling.manifest.outputs:faults"
"""Tells what is wrong with a JSON Schema."""
CONFORMING = "llmling.runtime.conforming:conforming"
"""Checks values against a JSON Schema."""
MODEL_NAME = "llmling.models.providers:model_name"
"""Turns a provider and a model, either of them or none, into a model as a manifest names it."""
AGENT_TOOL_NAME = "llmling.tools.naming:agent_tool_name"
"""Tells under which name a model sees another agent."""
INSTRUCTIONS = "llmling.prompts.instructions:structured"
"""Turns structured instructions of a manifest into a prompt."""
REASONING = "llmling.prompts.library:template_named"
"""Finds a reasoning template by its name."""
LITELLM = "llmling.models.loading:begin"
"""Begins to import litellm, without waiting for it."""
POOL = "llmling.pool:AgentPool"
"""Hosts the triggers of an agent that was read from a file of its own."""


@functools.cache
def load(path: str) -> Any:
    """Return the object at `module:name`, for the few places where a lower layer must reach a higher one by name."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def config_class(kind: Kind, type_name: str) -> Any | None:
    """Return the config class of a part from another package, or None for a built in or unknown type."""
    if type_name in TABLE[kind] or type_name not in _entry_points(kind):
        return None
    return _entry_points(kind)[type_name].load().config


def create(kind: Kind, config: Any, *args: Any) -> Any:
    """Turn a config into its live part: calls the class the table names with `(config, *args)`.

    Raises:
        LookupError: No part is known for the config's `type`.
    """
    name: str = config.type
    if name in TABLE[kind]:
        return load(TABLE[kind][name].live)(config, *args)
    if name in _entry_points(kind):
        return _entry_points(kind)[name].load()(config, *args)
    raise LookupError(f"no {kind} of type {name!r}; known: {', '.join(types(kind))}")
