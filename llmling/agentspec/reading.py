"""The small components of a document as values of a manifest: models, tools, MCP servers, outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmling.agentspec.document import Part
from llmling.agentspec.fields import TRANSPORTS
from llmling.agentspec.given import Given, written
from llmling.agentspec.llms import OURS, base_of, model_name
from llmling.agentspec.secrets import unescaped
from llmling.agentspec.shapes import Unspeakable, properties_of, schema_of
from llmling.manifest.importing import ImportFailed, import_object
from llmling.manifest.models import LiteLLMModelConfig, ModelSettings
from llmling.manifest.tools import FunctionToolConfig
from llmling.models.keys import ALIASES
from llmling.protocols import ToolSpec
from llmling.tools.function import describe

_NOTED = tuple(key for key in LiteLLMModelConfig.model_fields if key not in {"type", "name", "api_base", "api_key"})
_SETTINGS = frozenset(ModelSettings.model_fields) - {"timeout_s", "extra"}
_PLAIN_RETRIES: Mapping[str, Any] = {
    "backoff_factor": 2, "jitter": "full_and_equal_for_throttle", "service_error_retry_on_any_5xx": True,
    "recoverable_statuses": {"409": [], "429": []},
}  # fmt: skip


def model_of(part: Part, given: Given) -> Any:
    """Return an LLM config as `model:`, a name or a mapping."""
    fields = {name: part.value(name) for name in ("provider", "api_provider")}
    provider = fields["api_provider"] or fields["provider"]
    model_id = part.text("model_id", required=True)
    extras = part.extras
    if provider == OURS:
        first: Any = given.fragment(part, extras.get("model")) or model_id
    else:
        if isinstance(provider, str) and part.type == "LlmConfig":
            fields["api_provider"] = ALIASES.get(provider, provider)
        elif part.type == "LlmConfig":
            part.problem(None, "LL603", "an LlmConfig needs an api_provider", hint="such as api_provider: openai")
        first = _litellm(part, model_name(part.type, model_id, fields), given)
    further = part.noted_list("fallback")
    return first if further is None else {"type": "fallback", "models": [first, *given.fragment(part, further)]}


def _litellm(part: Part, name: str, given: Given) -> Any:
    extras = part.extras
    model: dict[str, Any] = {"type": "litellm", "name": name}
    noted = extras.get("name")
    if isinstance(noted, str) and noted.rpartition("/")[2] == name.rpartition("/")[2]:
        model["name"] = noted
    if part.has("url"):
        url = given.field(part, "url")
        if isinstance(url, str):
            exact = extras.get("api_base")
            same = isinstance(exact, str) and base_of(part.type, exact) == base_of(part.type, url)
            model["api_base"] = written(exact) if same else url if "${" in url else base_of(part.type, url)
    elif part.type in {"OpenAiCompatibleConfig", "OllamaConfig", "VllmConfig"}:
        part.text("url", required=True)
    auth = part.part("auth", ("GeminiAIStudioAuthConfig",)) if part.type == "GeminiConfig" else None
    holder = auth or part
    if holder.has("api_key") and (key := given.secret(holder, "api_key")) is not None:
        model["api_key"] = key
    model |= given.fragment(part, {key: extras[key] for key in _NOTED if key in extras})
    return model if len(model) > 2 else model["name"]


def settings_of(part: Part) -> dict[str, Any]:
    """Return an LLM config's parameters as `model_settings:`."""
    said = part.mapping("default_generation_parameters")
    known = {name: written(value) for name, value in said.items() if name in _SETTINGS and value is not None}
    extra = {name: written(value) for name, value in said.items() if name not in _SETTINGS and value is not None}
    return {**known, **({"extra": extra} if extra else {})}


def retries_of(part: Part) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an LLM config's retry policy as `retries:`, and what of it belongs to `model_settings:`."""
    if not part.has("retry_policy"):
        return {}, {}
    policy = part.mapping("retry_policy")
    names = {"initial_retry_delay": "backoff_s", "max_retry_delay": "max_backoff_s"}
    retries = {ours: policy[theirs] for theirs, ours in names.items() if theirs in policy}
    retries["attempts"] = policy["max_attempts"] + 1 if isinstance(policy.get("max_attempts"), int) else 3
    for name, value in policy.items():
        if name in _PLAIN_RETRIES and value != _PLAIN_RETRIES[name]:
            part.problem("retry_policy", "LL603", f'llmling has no word for this "{name}" of a retry policy')
        elif name not in {*_PLAIN_RETRIES, *names, "max_attempts", "request_timeout"}:
            part.problem("retry_policy", "LL201", f'unknown key "{name}" in a retry policy')
    timeout_s = policy.get("request_timeout")
    return retries, {} if timeout_s is None else {"timeout_s": timeout_s}


def tool_of(part: Part, given: Given) -> Any:
    """Return a ServerTool as an entry of `tools:`, or None."""
    path = given.function(part)
    if path is None:
        return None
    extras = {name: value for name, value in part.extras.items() if name != "function"}
    entry: dict[str, Any] = {"type": "function", "function": path, **given.fragment(part, extras)}
    if part.value("requires_confirmation") is True:
        entry["approval"] = "always"
    found = given.bound.get(path)
    try:
        found = import_object(path, given.folder) if found is None else found
        spec: ToolSpec = describe(FunctionToolConfig(function=path), found).spec
    except ValueError as error:
        part.problem("name", "LL605", f"the function given for it is not usable: {error}")
        return None
    _same_inputs(part, spec)
    if not isinstance(getattr(found, "spec", None), ToolSpec):
        if spec.name != part.name:
            entry["name"] = part.name
        if part.has("description") and part.text("description") != spec.description:
            entry["description"] = written(part.text("description"))
    elif spec.name != part.name:
        part.problem("name", "LL605", f'the tool given for it is called "{spec.name}"')
    return path if set(entry) == {"type", "function"} else entry


def _same_inputs(part: Part, spec: ToolSpec) -> None:
    inputs = {item["title"] for item in part.properties("inputs")}
    takes = set(cast("Mapping[str, Any]", spec.parameters.get("properties") or {}))
    if part.has("inputs") and not spec.parameters.get("additionalProperties") and (odd := sorted(inputs - takes)):
        hint = f"it takes {', '.join(sorted(takes)) or 'nothing'}"
        part.problem("inputs", "LL605", f'the function given for it takes no "{odd[0]}"', hint=hint)
    missing = sorted(set(spec.parameters.get("required") or ()) - inputs)
    if part.has("inputs") and missing:
        part.problem("inputs", "LL605", f'the function given for it needs "{missing[0]}"', hint="add it to the inputs")


def server_of(transport: Part, given: Given, extras: Mapping[str, Any], tools: list[str] | None) -> dict[str, Any]:
    """Return an MCP transport as an entry of `mcp_servers:`."""
    server: dict[str, Any] = {}
    if transport.type == "StdioTransport":
        server |= {"type": "stdio", "command": given.field(transport, "command")}
        names = ("args", "env", "cwd")
    else:
        server |= {"type": "http", "url": given.field(transport, "url")}
        names = ("headers",)
    for name in names:
        if transport.has(name) and (value := given.field(transport, name)):
            server[name] = value
    secret: Any = given.secret(transport, "sensitive_headers") if transport.has("sensitive_headers") else None
    if isinstance(secret, dict):
        plain = server.get("headers") if transport.mapping("headers") else None
        server["headers"] = {**(plain or {}), **cast("dict[str, Any]", secret)}
    seconds = transport.mapping("session_parameters").get("read_timeout_seconds")
    if seconds is not None and seconds != 60:
        server["call_timeout_s"] = seconds
    if tools is not None:
        server["tools"] = tools
    return {**server, **given.fragment(transport, dict(extras))}


def filtered(box: Part) -> list[str] | None:
    """Return the names of the tools a box lets through, or None for all."""
    if not box.has("tool_filter"):
        return None
    names: list[str] = []
    for item in box.nodes("tool_filter"):
        value = box.document.plain(item)
        if isinstance(value, str):
            names.append(value)
        elif (spec := box.document.part(item, ("MCPToolSpec",))) is not None:
            names.append(spec.name)
            for name in ("requires_confirmation", "description"):
                if spec.value(name):
                    spec.problem(name, "LL603", f'the server itself says the "{name}" of its tools')
    return names


def transport_of(part: Part) -> Part | None:
    """Return the transport of an MCP tool or box."""
    if part.value("requires_confirmation") is True:
        hint = "the annotations of its tools say which of them ask; or write `approval: always` in the agent"
        part.problem("requires_confirmation", "LL603", "an MCP server as a whole waits for no confirmation", hint=hint)
    return part.part("client_transport", TRANSPORTS)


def output_of(part: Part, given: Given) -> Any:
    """Return the outputs of an agent as `output:`, or None."""
    outputs = part.properties("outputs")
    if not outputs:
        return None
    noted = part.extras.get("output")
    if noted is not None:
        try:
            shape: Any = unescaped(noted)
            schema = import_object(shape, given.folder).model_json_schema() if isinstance(shape, str) else shape
            if properties_of(schema) == outputs:
                return given.fragment(part, noted)
        except (Unspeakable, ImportFailed, AttributeError):
            # What was noted no longer fits; the outputs say what the agent answers.
            pass
    return written(schema_of(outputs))
