"""Which environment variables a model needs, known without importing litellm."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llmling.manifest.models import FallbackModelConfig, LiteLLMModelConfig

KEYS: dict[str, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "mistral": ("MISTRAL_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "xai": ("XAI_API_KEY",),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_AI_TOKEN"),
    "fireworks_ai": ("FIREWORKS_AI_API_KEY", "FIREWORKS_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "cerebras": ("CEREBRAS_API_KEY",),
    "sambanova": ("SAMBANOVA_API_KEY",),
    "nvidia_nim": ("NVIDIA_NIM_API_KEY",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "cohere_chat": ("COHERE_API_KEY", "CO_API_KEY"),
    "deepinfra": ("DEEPINFRA_API_KEY",),
    "codestral": ("CODESTRAL_API_KEY",),
    "ai21": ("AI21_API_KEY",),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
    "moonshot": ("MOONSHOT_API_KEY",),
    "dashscope": ("DASHSCOPE_API_KEY",),
    "volcengine": ("VOLCENGINE_API_KEY",),
    "nebius": ("NEBIUS_API_KEY",),
    "novita": ("NOVITA_API_KEY",),
    "hyperbolic": ("HYPERBOLIC_API_KEY",),
    "featherless_ai": ("FEATHERLESS_AI_API_KEY",),
    "baseten": ("BASETEN_API_KEY",),
    "friendliai": ("FRIENDLI_TOKEN", "FRIENDLIAI_API_KEY"),
    "vercel_ai_gateway": ("VERCEL_AI_GATEWAY_API_KEY",),
    "azure": ("AZURE_API_KEY", "AZURE_AD_TOKEN"),
    "zai": ("ZAI_API_KEY",),
}
"""Provider prefix -> variables; any one of them will do. A provider that is not here is never reported."""

BASES: dict[str, tuple[str, ...]] = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "anthropic": ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
    "ollama": ("OLLAMA_API_BASE",),
    "ollama_chat": ("OLLAMA_API_BASE",),
}
"""Provider prefix -> variables that move its address; the first that is set counts, as in litellm."""

ALIASES: dict[str, str] = {
    "google": "gemini",
    "together": "together_ai",
    "fireworks": "fireworks_ai",
    "cohere": "cohere_chat",
    "lmstudio": "lm_studio",
    "vllm": "hosted_vllm",
    "grok": "xai",
}
"""Names people say, with the ones models are written with."""

_UNPREFIXED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(ft:)?(gpt-|chatgpt-|o\d(-|$)|codex-|davinci|babbage)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "gemini"),
    (re.compile(r"(mistral|ministral|pixtral|magistral|open-mi[sx]tral)-"), "mistral"),
    (re.compile(r"deepseek-"), "deepseek"),
    (re.compile(r"grok-"), "xai"),
    (re.compile(r"command-"), "cohere_chat"),
    (re.compile(r"kimi-"), "moonshot"),
)


@dataclass(frozen=True, slots=True)
class MissingKey:
    """A model that cannot be asked: `variables` are those any one of which would do."""

    model: str
    provider: str
    variables: tuple[str, ...]

    def __str__(self) -> str:
        first, *others = self.variables
        also = f" (or {', '.join(others)})" if others else ""
        return (
            f"model {self.model!r} needs a key of {self.provider}: set {first}{also} in the environment, "
            f"or `api_key:` in the manifest; `model: demo` answers without one"
        )


def provider_of(config: LiteLLMModelConfig, env: Mapping[str, str]) -> str:
    """Return the provider a model's name stands for, or `""` when only litellm can tell.

    A bare name nobody knows is one of an OpenAI-compatible server, once an address for such a server is given.
    """
    prefix, slash, _ = config.name.partition("/")
    if slash:
        return prefix
    known = next((provider for pattern, provider in _UNPREFIXED if pattern.match(config.name)), "")
    if known or not (config.api_base or any(env.get(variable) for variable in BASES["openai"])):
        return known
    return "openai"


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def base_url(config: LiteLLMModelConfig, env: Mapping[str, str]) -> str | None:
    """Return the address the user chose for a model, by `api_base` or the environment; None: the provider's own."""
    if config.api_base:
        return config.api_base
    variables = BASES.get(provider_of(config, env), ())
    return next((env[variable] for variable in variables if env.get(variable)), None)


def key_of(config: LiteLLMModelConfig, env: Mapping[str, str]) -> str | None:
    """Return the key a model is asked with, or None."""
    if config.api_key is not None and (key := config.api_key.get_secret_value()):
        return key
    return next((env[name] for name in KEYS.get(provider_of(config, env), ()) if env.get(name)), None)


def needs_litellm(config: Any) -> bool:
    """Whether a model is asked through litellm for certain; `auto` may find that there is none."""
    if isinstance(config, FallbackModelConfig):
        return any(map(needs_litellm, config.models))
    return isinstance(config, LiteLLMModelConfig)


def missing_keys(config: Any, env: Mapping[str, str]) -> tuple[MissingKey, ...]:
    """Return every key a model and, for a fallback chain, the models in it lack."""
    if isinstance(config, FallbackModelConfig):
        return tuple(missing for model in config.models for missing in missing_keys(model, env))
    if not isinstance(config, LiteLLMModelConfig) or key_of(config, env):
        return ()
    provider = provider_of(config, env)
    base = base_url(config, env)
    if provider not in KEYS or (base is not None and is_loopback(base)):
        return ()
    return (MissingKey(config.name, provider, KEYS[provider]),)


def missing_key(config: Any, env: Mapping[str, str]) -> MissingKey | None:
    """Return what stops a model from answering at all, or None; a fallback chain needs one usable model."""
    if isinstance(config, FallbackModelConfig):
        missing = [missing_key(model, env) for model in config.models]
        return missing[0] if all(missing) else None
    return next(iter(missing_keys(config, env)), None)
