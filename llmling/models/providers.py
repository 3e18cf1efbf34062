"""From a provider's name to the name of a model, for callers that know only the provider."""

from __future__ import annotations

import difflib

from llmling.models.auto import PREFERRED
from llmling.models.keys import ALIASES, BASES, KEYS

DEFAULTS = {**dict(PREFERRED), "ollama": "ollama/llama3.2"}
"""The model that is asked when only its provider is named."""

PROVIDERS = tuple(sorted({*KEYS, *BASES, *DEFAULTS, *ALIASES, "lm_studio", "hosted_vllm"}))
"""Providers that can be named."""


def model_name(provider: str | None, model: str | None) -> str:
    """Return a model as it is written in a manifest; neither provider nor model is `auto`.

    Raises:
        ValueError: The provider is unknown, or has no default and no model was named.
    """
    if provider is None:
        if model is not None and not model.strip():
            raise ValueError("model= is empty: write it as provider/model, such as openai/gpt-4o-mini")
        return model or "auto"
    known = provider.strip().lower()
    if known not in PROVIDERS:
        close = difflib.get_close_matches(known, PROVIDERS, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown provider {provider!r}{hint}; known: {', '.join(PROVIDERS)}")
    name = ALIASES.get(known, known)
    if not model:
        if name not in DEFAULTS:
            raise ValueError(f"provider {provider!r} has no default model: name one with model=")
        return DEFAULTS[name]
    for prefix in (name, known):
        model = model.removeprefix(f"{prefix}/")
    return f"{name}/{model}"
