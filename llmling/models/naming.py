"""Names of models that mean nothing to anybody, by litellm's own list of providers, without importing it."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmling.manifest.models import FallbackModelConfig, LiteLLMModelConfig
from llmling.manifest.problems import nearest
from llmling.models.keys import ALIASES, KEYS, provider_of
from llmling.models.prices import is_listed

_MEMBER = re.compile(r'^    [A-Z0-9_]+ = "([^"]+)"', re.MULTILINE)
_WORDS = ("auto", "demo", "human")
"""What else stands in `model:` without a provider in front."""


def unknown_models(config: Any, env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return, for each model of a config whose name means nothing to anybody, what to write instead."""
    if isinstance(config, FallbackModelConfig):
        return tuple(text for model in config.models for text in unknown_models(model, env))
    if not isinstance(config, LiteLLMModelConfig) or config.api_base:
        return ()
    name, env = config.name, os.environ if env is None else env
    provider = provider_of(config, env)
    if provider in KEYS or is_listed(name):
        return ()
    if not provider:
        near = nearest(name, _WORDS)
        hint = f"did you mean {near!r}?" if near else "write provider/model, such as openai/gpt-4o-mini"
        return (f"model {name!r} names no provider; {hint}",)
    if not (known := providers()) or provider in known:
        return ()
    near = ALIASES.get(provider) or nearest(provider, known)
    meant = f"did you mean {near + name[len(provider) :]!r}?"
    hint = meant if near else "write one that litellm knows, such as openai/gpt-4o-mini"
    return (f"model {name!r}: there is no provider {provider!r}; {hint}",)


@functools.cache
def providers() -> frozenset[str]:
    """Return the prefixes litellm takes; nothing when its list cannot be read."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return frozenset()
    try:
        text = (Path(spec.origin).parent / "types" / "utils.py").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    _, found, members = text.partition("\nclass LlmProviders(")
    return frozenset(_MEMBER.findall(members.partition("\n\n\n")[0])) if found else frozenset()
