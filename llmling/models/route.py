"""What is the same for every request of one model: who serves it, whose key it needs and what it costs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmling.errors import ModelError
from llmling.manifest.models import LiteLLMModelConfig, Price
from llmling.models.certified import PROVIDERS
from llmling.models.keys import BASES, KEYS, MissingKey, base_url, is_loopback, key_of, missing_key, provider_of
from llmling.models.prices import FREE, LOCAL, entry_price
from llmling.models.tariff import Tariff, tariff_of

_OPENAI_LIKE = frozenset({"openai", "custom_openai", "openai_like", "hosted_vllm", "lm_studio", "llamafile"})


@dataclass(frozen=True, slots=True)
class Route:
    """What litellm knows of one model, looked up once."""

    name: str
    """As litellm takes it, provider first."""
    provider: str
    model: str
    """As the provider takes it."""
    sends_schema: bool
    tariff: Tariff
    """What an answer costs."""
    price: Price | None
    """What the table says it costs; None when it says nothing."""
    most_output_tokens: int | None
    """The longest answer, as the table says."""


def route_of(litellm: Any, config: LiteLLMModelConfig) -> Route:
    """Return the way to a model.

    Raises:
        ModelError: Its name means nothing.
    """
    name = config.name
    if name.startswith("ollama/"):
        # litellm's `ollama/` is the completion endpoint, without tools; the chat endpoint has the same models.
        name = f"ollama_chat/{name.removeprefix('ollama/')}"
    elif "/" not in name and provider_of(config, os.environ) == "openai":
        name = f"openai/{name}"
    try:
        model, provider, _, _ = litellm.get_llm_provider(model=name, api_base=config.api_base)
    except litellm.BadRequestError:
        raise ModelError(
            f"model {config.name!r} names no provider that is known: write provider/model, such as openai/gpt-4o-mini",
            attempts=0,
        ) from None
    if provider == "ollama_chat":
        # Of a model it does not know litellm asks the server after every answer, blocking the loop.
        free = {"litellm_provider": provider, "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
        litellm.model_cost.setdefault(name, free)
        candidates = (name,)
    else:
        candidates = (config.name, f"{provider}/{model}", model)
    key = next((candidate for candidate in candidates if candidate in litellm.model_cost), None)
    # An unknown name on an OpenAI-compatible server is tried; asking litellm about Ollama would block the loop.
    sends_schema = provider == "ollama_chat" or (provider in _OPENAI_LIKE and key is None)
    if not sends_schema:
        sends_schema = bool(litellm.supports_response_schema(model=model, custom_llm_provider=provider))
    entry: dict[str, Any] = litellm.model_cost[key] if key is not None else {}
    price = FREE if key is None and provider in LOCAL else entry_price(entry)
    most = entry.get("max_output_tokens")
    tariff = tariff_of(litellm, key, config.price or (FREE if price is FREE else None))
    return Route(name, provider, model, sends_schema, tariff, price, most if isinstance(most, int) else None)


@dataclass(frozen=True, slots=True)
class Access:
    """Where a model is asked and with which key, as far as the config and the environment say so.

    `outside` when asking it would leave this machine, as far as that is known.
    """

    base: str | None
    key: str | None = field(repr=False)
    outside: bool
    missing: MissingKey | None

    @property
    def given_key(self) -> str | None:
        """The key, or one of no meaning for a server on this machine that asks for none."""
        return self.key or ("none" if self.base is not None and not self.outside else None)


def access_of(config: LiteLLMModelConfig, env: Mapping[str, str]) -> Access:
    """Return where and how a model is asked right now."""
    base = base_url(config, env)
    outside = base is None or not is_loopback(base)
    return Access(base, key_of(config, env), outside, missing_key(config, env))


def watched(config: LiteLLMModelConfig, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables of the environment that where and how a model is asked depends on."""
    provider = provider_of(config, env)
    keys = () if config.api_key is not None and config.api_key.get_secret_value() else KEYS.get(provider, ())
    bases = () if config.api_base else BASES.get(provider, ())
    # Whether a bare name is one of an OpenAI-compatible server depends on the address of such a server.
    bare = () if config.api_base or "/" in config.name else BASES["openai"]
    certified = PROVIDERS.get(provider)
    others = certified.others if certified else ()
    return tuple(dict.fromkeys((*keys, *bases, *bare, *others)))
