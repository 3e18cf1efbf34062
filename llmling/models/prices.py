"""What models cost, as far as that is known before they are asked; read from litellm's table without importing it."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmling.manifest.models import FallbackModelConfig, LiteLLMModelConfig, Price
from llmling.models.keys import provider_of

FREE = Price(input_per_mtok=0.0, output_per_mtok=0.0)
LOCAL = frozenset({"ollama", "ollama_chat", "lm_studio", "hosted_vllm", "llamafile"})
"""Providers that are programs of the user's own; without `price:` they cost nothing."""


def entry_price(entry: Mapping[str, Any]) -> Price | None:
    """Return what an entry of the table says about tokens, with the dearest tier of long exchanges."""
    read, written = (_dearest(entry, f"{kind}_cost_per_token") for kind in ("input", "output"))
    if read is None or written is None:
        return None
    return Price(input_per_mtok=read * 1e6, output_per_mtok=written * 1e6)


def unpriced(config: Any, env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the names of those models in a config whose price nobody knows; `auto` may choose what it likes."""
    if isinstance(config, FallbackModelConfig):
        return tuple(name for model in config.models for name in unpriced(model, env))
    if not isinstance(config, LiteLLMModelConfig) or config.price is not None:
        return ()
    provider = provider_of(config, os.environ if env is None else env)
    bare = config.name.partition("/")[2] if "/" in config.name else config.name
    names = (config.name, f"{provider}/{bare}", bare)
    known = provider in LOCAL or any(name in _table() and entry_price(_table()[name]) for name in names)
    return () if known else (config.name,)


def is_listed(name: str) -> bool:
    """Whether the table has an entry of exactly this name."""
    return name in _table()


@functools.cache
def _table() -> Mapping[str, Any]:
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).with_name("model_prices_and_context_window_backup.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _dearest(entry: Mapping[str, Any], key: str) -> float | None:
    if not isinstance(entry.get(key), int | float):
        return None
    tiers = [value for name, value in entry.items() if name == key or name.startswith(f"{key}_above_")]
    return float(max(value for value in tiers if isinstance(value, int | float)))
