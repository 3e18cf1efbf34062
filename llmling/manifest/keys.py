"""What to say about a key no config has: a misspelling, or one of the predecessor."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from pydantic import BaseModel

from llmling import plugins
from llmling.manifest.agents import (
    AgentConfig,
    ConnectionConfig,
    LimitsConfig,
    NodeConfig,
)
from llmling.manifest.base import Config
from llmling.manifest.knowledge import FileKnowledgeConfig
from llmling.manifest.models import LiteLLMModelConfig, ModelSettings
from llmling.manifest.pool import PoolLimitsConfig
from llmling.manifest.problems import did_you_mean
from llmling.manifest.teams import MemberConfig, TeamConfig
from llmling.manifest.tools import FunctionToolConfig, McpServerBase
from llmling.manifest.triggers import FileTriggerConfig, ScheduleTriggerConfig, TriggerBase, WebhookTriggerConfig

_GONE = "remove it; there is no such key here"
_AUTH = "write `auth: {type: hmac, secret: ...}`"

HINTS: Mapping[type[Config] | str, Mapping[str, str]] = {
    "root": {
        "INHERIT": "write `include:`",
        "responses": "write `output:` in the agent",
        "storage": "write `engine:`",
        "jobs": "write an agent with a schedule trigger, or call `agent.run()`",
        "pool_server": "write `server:`",
        "prompts": "write `instructions:` in the agent",
        "resources": "write `knowledge:` in the agent",
        "file_agents": "write `include:`",
        "observability": _GONE,
        "conversion": _GONE,
        "ui": _GONE,
        "session_store": "write `engine:`",
    },
    AgentConfig: {
        **dict.fromkeys(("system_prompts", "system_prompt", "library_system_prompts"), "write `instructions:`"),
        **dict.fromkeys(("result_type", "output_type", "response_type", "responses"), "write `output:`"),
        **dict.fromkeys(("inherits", "INHERIT"), "write `extends:`"),
        "provider": "write it in `model:`, such as openai/gpt-4o-mini",
        "user_prompts": "write `prompt:` in a trigger",
        "toolsets": "write `tools:` or `mcp_servers:`",
        "workers": "write `tools: [{type: agent, name: ...}]`",
        "environment": "write `tools:`, `mcp_servers:` and `knowledge:`",
        "capabilities": "remove it; `tools:` and `mcp_servers:` say what an agent may do",
        "result_retries": "write `retries:`",
        "usage_limits": "write `limits:`",
        "forwards_to": "write `connections:`",
        "requires_tool_confirmation": "write `approval:`",
        "jobs": "write `triggers:`",
        "storage": "write `engine:` at the root",
        "temperature": "write `model_settings: {temperature: ...}`",
        "max_tokens": "write `model_settings: {max_tokens: ...}`",
        "timeout": "write `limits: {timeout_s: ...}`",
        "timeout_s": "write it in `limits:`",
        **dict.fromkeys(
            (
                "result_tool_name",
                "result_tool_description",
                "end_strategy",
                "avatar",
                "config_file_path",
                "debug",
                "display_name",
                "input_provider",
                "tool_mode",
                "event_handlers",
                "history_processors",
            ),
            _GONE,
        ),
    },
    NodeConfig: {"name": "remove it; the key above is the name"},
    TeamConfig: {
        "shared_prompt": "write `instructions:` in the members",
        "mcp_servers": "write it in the members",
        "type": "write `mode:`",
        **dict.fromkeys(("max_parallel", "concurrent"), "write `max_concurrency:`"),
        **dict.fromkeys(("router", "route", "selector"), "write `mode: pick`"),
        **dict.fromkeys(("items", "for_each", "foreach"), "write `over:` and `mode: map`"),
    },
    MemberConfig: {
        **dict.fromkeys(("agent", "member", "to"), "write `name:`"),
        **dict.fromkeys(("filter", "condition"), "write `when:`"),
    },
    TriggerBase: {
        "template": "write `prompt:`",
        "include_metadata": "write what the agent should read in `prompt:`",
        "include_timestamp": "write {{ event.time }} in `prompt:`",
        "knowledge": "write it in the agent",
        "condition": "write `filter:`",
    },
    FileTriggerConfig: {
        "path": "write `paths: [...]`",
        "ignore_paths": "write `ignore:` with globs",
        "recursive": "remove it; folders are watched with everything below, a glob such as docs/*.md is one level",
        "debounce": "write `settle_s:` in seconds",
    },
    WebhookTriggerConfig: {"secret": _AUTH, "token": "write `auth: {type: bearer, token: ...}`"},
    ScheduleTriggerConfig: {
        "schedule": "write `cron:`",
        "skip_missed": "write `catch_up: none`",
        **dict.fromkeys(("interval", "every", "interval_s"), "write `every_s:`"),
    },
    ConnectionConfig: {
        **dict.fromkeys(("name", "target", "agent"), "write `to:`"),
        **dict.fromkeys(("filter", "filter_condition", "condition"), "write `when:`"),
        "wait_for_completion": "write `wait:`",
        "connection_type": "remove it; every connection forwards the answer",
        "type": "remove it; write `sinks:` for files, `transform:` for a callable",
        **dict.fromkeys(("queued", "queue_strategy", "priority", "delay", "stop_condition", "exit_condition"), _GONE),
    },
    McpServerBase: {
        "environment": "write `env:`",
        "timeout": "write `call_timeout_s:` or `start_timeout_s:`",
        "enabled": "remove the server where it is not wanted",
        "name": "remove it; the key above is the name",
        "enabled_tools": "write `tools:`",
    },
    FunctionToolConfig: {
        "import_path": "write `function: module:name`",
        "requires_confirmation": "write `approval: always`",
        **dict.fromkeys(("enabled", "requires_capability", "priority", "cache_enabled", "metadata"), _GONE),
    },
    FileKnowledgeConfig: {"paths": "write one entry with `path:` for each"},
    LiteLLMModelConfig: {
        **dict.fromkeys(("identifier", "model", "model_name"), "write `name:`"),
        "base_url": "write `api_base:`",
        "temperature": "write it in the agent's `model_settings:`",
    },
    ModelSettings: {"timeout": "write `timeout_s:`", "parallel_tool_calls": "write `parallel_tools:` in the agent"},
    LimitsConfig: {
        **dict.fromkeys(
            ("max_hops", "max_messages_per_event", "drain_timeout_s", "concurrency", "requests_at_once"),
            "write it in the `limits:` at the root of the pool's manifest",
        ),
        "timeout": "write `timeout_s:`",
        "max_tokens": "write `total_tokens:`",
        "max_cost": "write `cost_usd:`",
    },
    PoolLimitsConfig: {
        **dict.fromkeys(
            ("max_iterations", "tool_calls", "total_tokens", "timeout_s", "cost_usd"),
            "write it in the `limits:` of an agent",
        )
    },
}
"""Keys of the predecessor, and keys in the wrong place, with what to write instead."""

TYPE_HINTS: Mapping[str, Mapping[str, str]] = {
    "triggers": {
        "time": "write `type: schedule`",
        "cron": "write `type: schedule`",
        "manual": "use `llmling fire` or `agent.run()`",
        "connection": "write `connections:` in the agent that sends",
        "email": "mail is not supported; let a webhook take it",
    },
    "mcp_servers": dict.fromkeys(("sse", "streamable-http", "streamable_http"), "write `type: http`"),
    "tools": {"import": "write `type: function`"},
    "knowledge": {"path": "write `type: file`", "repository": "write `type: folder`"},
}
"""Types of the predecessor."""


def advice(config: type[BaseModel] | str, key: str, fields: frozenset[str]) -> str:
    """Return what to write instead of an unknown key, or nothing."""
    for kind in _kinds(config):
        if (hint := HINTS.get(kind, {}).get(key)) is not None:
            return hint
    if not isinstance(config, str) and (kinds := _siblings(config, key)):
        return f"it is a key of {' and '.join(f'`type: {kind}`' for kind in kinds)}"
    if near := did_you_mean(key, fields):
        return near
    if config == "root" and key in AgentConfig.model_fields:
        return f"it is a key of an agent; write it below agents.<name>.{key}"
    return ""


def suggested(config: type[BaseModel], key: str) -> tuple[str, ...]:
    """Return the keys that the advice about an unknown key names."""
    hint = next((HINTS[kind][key] for kind in _kinds(config) if key in HINTS.get(kind, ())), "")
    return tuple(name for name in fields_of(config) if f"`{name}:" in hint)


def _siblings(config: type[BaseModel], key: str) -> list[str]:
    """Return the types beside this one that have the key."""
    for parts in plugins.TABLE.values():
        paths = {name: part.config for name, part in parts.items()}
        if f"{config.__module__}:{config.__name__}" in paths.values():
            return [name for name, path in paths.items() if key in fields_of(plugins.load(path))]
    return []


@functools.cache
def fields_of(config: type[BaseModel]) -> frozenset[str]:
    """Return the keys a config has."""
    return frozenset(config.model_fields)


def _kinds(config: type[BaseModel] | str) -> tuple[type[Config] | str, ...]:
    if isinstance(config, str):
        return (config,)
    return tuple(kind for kind in config.__mro__ if issubclass(kind, Config))
