"""Which requests go our own way, and what that way leans on."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from llm_server import LLMServer, Reply
from providers import ADD, OPENAI, REQUEST, failure, model

from llmling.models.certified import LITELLM, PROVIDERS, SETTINGS, provider_of
from llmling.models.dialects.anthropic import ANTHROPIC
from llmling.models.dialects.openai import OPENAI as OPENAI_DIALECT
from llmling.models.keys import KEYS
from llmling.models.loading import load
from llmling.models.sse import Events, Lines
from llmling.models.tariff import tariff_of
from llmling.protocols import ModelRequest

CERTIFIED = {
    "anthropic", "azure", "bedrock", "cerebras", "custom_openai", "dashscope", "deepinfra", "deepseek",
    "featherless_ai", "gemini", "github", "groq", "hosted_vllm", "hyperbolic", "llamafile", "lm_studio", "mistral",
    "moonshot", "nebius", "novita", "nvidia_nim", "ollama_chat", "openai", "openrouter", "sambanova", "together_ai",
    "vercel_ai_gateway", "volcengine", "zai",
}  # fmt: skip
FALLING_BACK = {
    "ai21", "baseten", "codestral", "cohere", "cohere_chat", "fireworks_ai", "friendliai", "perplexity", "replicate",
    "xai",
}  # fmt: skip
"""Of those whose key is known here, those without a wire of our own."""
READ_AS_OPENAI = {"OpenAIGPTConfig", "OpenAILikeChatConfig", "GroqChatConfig", "MistralConfig", "OpenrouterConfig"}
"""Of litellm's classes that read answers, those that change nothing of what is read here."""


def ours(server: LLMServer) -> list[bool]:
    return [request.headers["User-Agent"] == "llmling" for request in server.requests]


def test_which_providers_are_certified() -> None:
    assert set(PROVIDERS) == CERTIFIED
    assert KEYS.keys() - CERTIFIED == FALLING_BACK
    for theirs in (*FALLING_BACK, "azure_ai", "vertex_ai", "sagemaker"):
        assert provider_of("1.110.2", theirs, {}) is None


def test_the_installed_litellm_is_one_that_was_certified() -> None:
    assert LITELLM.match(importlib.metadata.version("litellm"))


def test_another_litellm_or_setting_is_not_certified() -> None:
    assert provider_of("1.110.2", "openai", dict.fromkeys(SETTINGS, 1)) is PROVIDERS["openai"]
    assert provider_of("1.111.0", "openai", {}) is None
    assert provider_of("1.110.2", "openai", {"n": 2}) is None


async def test_litellm_reads_their_answers_as_openai_s() -> None:
    litellm = await load()
    manager: Any = importlib.import_module("litellm.utils").ProviderConfigManager
    for name, provider in PROVIDERS.items():
        if provider.dialect is OPENAI_DIALECT and name != "azure":  # litellm reads Azure's with OpenAI's own client
            config = manager.get_provider_chat_config(model="m", provider=litellm.LlmProviders(name))
            assert config.transform_response.__func__.__qualname__.partition(".")[0] in READ_AS_OPENAI, name


@pytest.mark.parametrize(
    ("settings", "own"),
    [({"temperature": 0.1, "stop": ["END"]}, True), ({"n": 1}, False), ({"extra_headers": {"X-A": "b"}}, False)],
)
async def test_a_setting_nobody_has_certified_goes_litellm_s_way(
    server: LLMServer, settings: Mapping[str, Any], own: bool
) -> None:
    assert (await model(OPENAI).request(ModelRequest(REQUEST.messages, settings=settings))).message.text
    assert ours(server) == [own]


async def test_a_model_of_another_interface_goes_litellm_s_way(server: LLMServer) -> None:
    await failure("openai/responses/gpt-4o-mini")
    assert server.paths == ["POST /v1/responses"]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>hm</think>yes"},
        {"content": "yes", "tool_calls": None, "reasoning_content": "hm"},
        {"content": None, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}, "type": "function"}]},
    ],
)
async def test_an_unusual_answer_is_read_by_litellm(server: LLMServer, message: Mapping[str, Any]) -> None:
    server.replies.append(Reply(raw=_body({"message": {"role": "assistant", **message}, "finish_reason": "eos"})))
    response = await model(OPENAI).request(ModelRequest(REQUEST.messages, tools=(ADD,)))
    assert response.message.text in {"yes", ""}
    assert all(call.id for call in response.message.tool_calls)
    assert response.finish_reason in {"stop", "tool_calls"}
    assert ours(server) == [True]


async def test_an_error_inside_an_answer_is_no_answer(server: LLMServer) -> None:
    server.replies.append(Reply(raw='{"error": {"message": "no credit", "code": 402}}'))
    error = await failure(OPENAI)
    assert "no credit" in str(error)
    assert (error.status, error.retryable) == (402, False)


async def test_a_model_that_repeats_itself_is_stopped(server: LLMServer) -> None:
    server.replies.append(Reply(" ".join(["again"] * 150)))
    error = await failure(OPENAI, stream=True)
    assert "repeats" in str(error)
    assert error.retryable


async def test_a_key_that_changes_is_used_at_once(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model(OPENAI)
    for key in ("sk-first-0123", "sk-second-0123"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        await asked.request(REQUEST)
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer sk-first-0123", "Bearer sk-second-0123"]


async def test_each_offer_is_sent_as_it_is(server: LLMServer) -> None:
    asked = model(OPENAI)
    for number in range(20):
        settings: dict[str, Any] = {"seed": number % 10}
        tools = (ADD,) if number % 3 else ()
        await asked.request(ModelRequest(REQUEST.messages, tools=tools, settings=settings))
        body = server.requests[-1].body
        assert (body["seed"], "tools" in body) == (number % 10, bool(tools))
    assert ours(server) == [True] * 20


async def test_a_proxy_of_the_environment_is_asked(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.invalid/v1")
    assert (await model(OPENAI).request(REQUEST)).message.text == "echo: hello there"
    assert server.requests[0].headers["Host"] == "models.invalid"


async def test_prices_are_litellm_s() -> None:
    litellm = await load()
    entries = [
        (key, entry)
        for key, entry in litellm.model_cost.items()
        if entry.get("mode") == "chat"
        and entry.get("litellm_provider") in PROVIDERS
        and entry.get("input_cost_per_token")
    ]
    assert len(entries) > 100
    reckoned = 0
    for key, entry in entries[::7]:
        tariff = tariff_of(litellm, key, None)
        reckoned += tariff.rates is not None
        for read, cached, written in ((1_000, 300, 50), (150_000, 0, 4_000), (900_000, 700_000, 10)):
            said = {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
                "prompt_tokens_details": {"cached_tokens": cached},
            }
            provider = entry["litellm_provider"]
            theirs = litellm.cost_per_token(model=key, custom_llm_provider=provider, usage_object=litellm.Usage(**said))
            cost = tariff.of_tokens(OPENAI_DIALECT.tokens(said))
            assert cost is not None
            assert math.isclose(cost, sum(theirs), rel_tol=1e-9, abs_tol=1e-15), key
    assert reckoned > len(entries[::7]) // 2


def test_a_usage_with_more_in_it_is_not_reckoned_here() -> None:
    usage: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert OPENAI_DIALECT.tokens(usage).plain
    assert OPENAI_DIALECT.tokens(
        {**usage, "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0}}
    ).plain
    assert not OPENAI_DIALECT.tokens({**usage, "prompt_tokens_details": {"audio_tokens": 2}}).plain
    assert not OPENAI_DIALECT.tokens({**usage, "num_searches": 2}).plain
    assert not ANTHROPIC.tokens({"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 5}).plain


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_events_are_read_however_they_are_cut(size: int, end: bytes) -> None:
    lines = [
        b": comment", b"event: x", b'data: {"a": 1}', b"", b'data:{"b": "gr\xc3\xb6\xc3\x9fer"}', b"",
        b'data: {"c":', b"data: 3}", b"", b"data: [DONE]", b"",
    ]  # fmt: skip
    body = end.join(lines) + end
    events = Events()
    found = [value for at in range(0, len(body), size) for value in events.feed(body[at : at + size])]
    assert [*found, *events.close()] == [{"a": 1}, {"b": "größer"}, {"c": 3}]
    assert events.ended


def test_values_are_read_line_by_line() -> None:
    lines = Lines()
    assert list(lines.feed(b'{"a": 1}\n\n{"b"')) == [{"a": 1}]
    assert list(lines.feed(b": 2}")) == []
    assert list(lines.close()) == [{"b": 2}]


def test_two_values_in_one_event_are_told() -> None:
    reading = Events()
    assert list(reading.feed(b'data: {"a": 1} {"b": 2}\n')) == []
    with pytest.raises(ValueError, match="no JSON"):
        list(reading.feed(b"\n"))


@pytest.mark.parametrize("splitter", [Events, Lines])
def test_half_a_value_at_the_end_is_told(splitter: type[Events] | type[Lines]) -> None:
    reading = splitter()
    assert list(reading.feed(b'data: {"a": ' if splitter is Events else b'{"a": ')) == []
    with pytest.raises(ValueError, match="no JSON"):
        list(reading.close())


def _body(choice: Mapping[str, Any]) -> str:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    frame = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**frame, "choices": [choice], "usage": usage})
