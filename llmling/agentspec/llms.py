"""LLM configs of Agent Spec and models of a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from llmling.agentspec.component import Component
from llmling.agentspec.secrets import Fragments
from llmling.manifest.agents import AgentConfig
from llmling.manifest.models import FallbackModelConfig, LiteLLMModelConfig, ModelSettings
from llmling.manifest.nodes import Loc
from llmling.models.keys import provider_of

OURS = "llmling"
"""Provider of models that only llmling has, such as `auto` and `demo`."""
OLLAMA = "http://127.0.0.1:11434"
VLLM = "http://127.0.0.1:8000/v1"
_HERE = ("type", "name", "api_base", "api_key")
_PARAMETERS = ("max_tokens", "temperature", "top_p", "seed", "stop")


def llm_component(config: AgentConfig, fragments: Fragments, loc: Loc) -> Component:
    """Return the LLM config of an agent, with its settings; a chain of fallbacks stands for its first model."""
    model, place = config.model, (*loc, "model")
    further: list[Any] = []
    while isinstance(model, FallbackModelConfig):
        further = [fragments.of(item, (*place, "models", index)) for index, item in enumerate(model.models)][
            1:
        ] + further
        model, place = model.models[0], (*place, "models", 0)
    part = (
        _litellm(model, fragments, place) if isinstance(model, LiteLLMModelConfig) else _ours(model, fragments, place)
    )
    if further:
        part.extras["fallback"] = further
    part.fields["default_generation_parameters"] = _parameters(config.model_settings)
    return part


def _parameters(settings: ModelSettings) -> dict[str, Any] | None:
    said = {name: value for name in _PARAMETERS if (value := getattr(settings, name)) is not None}
    return {**said, **settings.extra} or None


def _ours(model: Any, fragments: Fragments, loc: Loc) -> Component:
    name = f"demo:{model.path}" if model.type == "script" else str(model.type)
    part = Component("LlmConfig", name, {"model_id": name, "provider": OURS, "api_provider": OURS}, since="26.1.2")
    if len(rest := fragments.of(model, loc)) > 1 and model.type != "script":
        part.extras["model"] = rest
    return part


def _litellm(model: LiteLLMModelConfig, fragments: Fragments, loc: Loc) -> Component:
    prefix, slash, rest = model.name.partition("/")
    provider, name = (prefix, rest) if slash else (provider_of(model, {}), model.name)
    base = None if model.api_base is None else fragments.hidden((*loc, "api_base")) or model.api_base
    part = Component("LlmConfig", model.name, {"model_id": name})
    match provider:
        case "openai" if base is None:
            part.type = "OpenAiConfig"
        case "openai":
            part.type, part.fields["url"] = "OpenAiCompatibleConfig", base
        case "hosted_vllm":
            part.type, part.fields["url"] = "VllmConfig", base or VLLM
        case "ollama" | "ollama_chat":
            part.type, part.fields["url"] = "OllamaConfig", base or OLLAMA
        case "gemini" if base is None:
            part.type, part.since = "GeminiConfig", "26.1.2"
        case _:
            part.since = "26.1.2"
            part.fields |= {"provider": provider or None, "api_provider": provider or None, "url": base}
    holder = part
    if part.type == "GeminiConfig":
        part.fields["auth"] = holder = Component("GeminiAIStudioAuthConfig", "Google AI Studio", since="26.1.2")
    if model.api_key is not None:
        key = fragments.secret(model.api_key.get_secret_value(), (*loc, "api_key"), provider or "MODEL", "API_KEY")
        holder.hide("api_key", key)
        part.since = max(part.since, "25.4.2")
    if base is not None and base != model.api_base:
        part.hide("url", base)
    if base is not None and base_of(part.type, base) != base:
        part.extras["api_base"] = base
    if model.name != model_name(part.type, name, part.fields):
        part.extras["name"] = model.name
    part.extras |= fragments.of(model, loc, leave=_HERE)
    return part


def model_name(kind: str, model_id: str, fields: Mapping[str, Any]) -> str:
    """Return a model as a manifest writes it, from the fields of an LLM config."""
    match kind:
        case "OpenAiConfig" | "OpenAiCompatibleConfig":
            return f"openai/{model_id}"
        case "VllmConfig":
            return f"hosted_vllm/{model_id}"
        case "OllamaConfig":
            return f"ollama/{model_id}"
        case "GeminiConfig":
            return f"gemini/{model_id}"
        case _:
            provider = fields.get("api_provider") or fields.get("provider")
            return f"{provider}/{model_id}" if provider else model_id


def base_of(kind: str, url: str) -> str:
    """Return the address a model is asked at; Agent Spec leaves out what every runtime adds."""
    whole = url.strip() if "://" in url else f"http://{url.strip()}"
    if kind == "OllamaConfig":
        return whole.rstrip("/").removesuffix("/v1")
    bare = kind in {"OpenAiCompatibleConfig", "VllmConfig"} and urlsplit(whole).path in {"", "/"}
    return f"{whole.rstrip('/')}/v1" if bare else whole
