"""Keys are known by name alone, before anything is asked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import SecretStr

from llmling.manifest.models import (
    AutoModelConfig,
    DemoModelConfig,
    FallbackModelConfig,
    LiteLLMModelConfig,
    ScriptModelConfig,
)
from llmling.models.keys import KEYS, is_loopback, missing_key, missing_keys


def litellm(name: str, **more: Any) -> LiteLLMModelConfig:
    return LiteLLMModelConfig(name=name, **more)


def test_at_least_25_providers_are_known() -> None:
    assert len(KEYS) >= 25


@pytest.mark.parametrize("provider", KEYS)
def test_a_missing_key_is_named_and_any_of_its_variables_mends_it(provider: str) -> None:
    config = litellm(f"{provider}/some-model")
    missing = missing_key(config, {})
    assert missing is not None
    assert missing.provider == provider
    for variable in KEYS[provider]:
        assert variable in str(missing)
        assert missing_key(config, {variable: "k"}) is None


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-4o-mini", "openai"),
        ("o3-mini", "openai"),
        ("o1", "openai"),
        ("ft:gpt-4o:me", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-flash", "gemini"),
        ("mistral-small-latest", "mistral"),
        ("deepseek-chat", "deepseek"),
        ("grok-3", "xai"),
        ("command-r", "cohere_chat"),
    ],
)
def test_names_without_a_provider_are_known_by_their_family(name: str, provider: str) -> None:
    missing = missing_key(litellm(name), {})
    assert missing is not None
    assert missing.provider == provider


@pytest.mark.parametrize(
    "config",
    [
        litellm("ollama/llama3"),
        litellm("ollama_chat/llama3"),
        litellm("lm_studio/x"),
        litellm("hosted_vllm/x"),
        litellm("bedrock/anthropic.claude"),
        litellm("nobody-knows"),
        litellm("openai/x", api_key=SecretStr("k")),
        litellm("openai/x", api_base="http://localhost:9/v1"),
        litellm("openai/x", api_base="http://[::1]:9/v1"),
        litellm("nobody-knows", api_base="http://127.0.0.1:9/v1"),
        DemoModelConfig(),
        AutoModelConfig(),
        ScriptModelConfig(path="s.yml"),
    ],
)
def test_what_needs_no_key_misses_none(config: Any) -> None:
    assert missing_key(config, {}) is None


def test_a_local_server_in_the_environment_needs_no_key_but_a_far_one_does() -> None:
    config = litellm("openai/x")
    assert missing_key(config, {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}) is None
    assert missing_key(config, {"OPENAI_BASE_URL": "https://llm.example.org/v1"}) is not None
    assert missing_key(litellm("anthropic/x"), {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}) is None


def test_an_empty_key_is_a_missing_one() -> None:
    assert missing_key(litellm("openai/x", api_key=SecretStr("")), {"OPENAI_API_KEY": ""}) is not None


def test_a_chain_needs_one_usable_model_and_reports_each_missing_one() -> None:
    chain = FallbackModelConfig(models=[litellm("openai/x"), litellm("anthropic/y")])
    assert [missing.provider for missing in missing_keys(chain, {})] == ["openai", "anthropic"]
    assert missing_key(chain, {}) is not None
    env = {"ANTHROPIC_API_KEY": "k"}
    assert missing_key(chain, env) is None
    assert [missing.provider for missing in missing_keys(chain, env)] == ["openai"]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://localhost/v1", True),
        ("http://127.0.0.1.example.org", False),
        ("http://10.0.0.1", False),
        ("http://[bad", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_host(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


def test_it_loads_without_litellm_and_aiohttp() -> None:
    heavy = ("litellm", "aiohttp")
    code = f"import sys, llmling.models.keys; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
