"""Names of models that mean nothing are told by `validate`, before the first event fails on them."""

from __future__ import annotations

import pytest

from llmling import Manifest
from llmling.planning import plan


def warnings(name: str) -> list[tuple[str, str]]:
    manifest = Manifest.model_validate({"agents": {"a": {"model": name}}})
    return [(warning.code, warning.message) for warning in plan(manifest, {"OPENAI_API_KEY": "k"}).warnings]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("humna", "did you mean 'human'?"),
        ("gibberish", "write provider/model, such as openai/gpt-4o-mini"),
        ("openia/gpt-4o", "did you mean 'openai/gpt-4o'?"),
        ("google/gemini-2.5-flash", "did you mean 'gemini/gemini-2.5-flash'?"),
        ("qwxyz/model", "write one that litellm knows, such as openai/gpt-4o-mini"),
    ],
)
def test_a_name_without_a_known_provider_is_a_warning(name: str, hint: str) -> None:
    ((code, message),) = warnings(name)
    assert code == "LL504"
    assert f"model {name!r}" in message
    assert message.endswith(hint)


@pytest.mark.parametrize(
    "name",
    [
        "openai/anything",
        "gpt-4o",
        "ollama/llama3.2",
        "lm_studio/x",
        "hosted_vllm/x",
        "bedrock/x",
        "azure_ai/x",
        "auto",
        "demo",
    ],
)
def test_a_name_litellm_can_place_is_none(name: str) -> None:
    assert warnings(name) == []
