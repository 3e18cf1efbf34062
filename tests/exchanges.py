"""One request asked both ways, our own and litellm's, and what the two have to have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
from llm_server import LLMServer, Reply, Request
from providers import KEY, REQUEST
from pydantic import SecretStr

from llmling.errors import ModelError
from llmling.manifest.models import LiteLLMModelConfig
from llmling.models import acompletion
from llmling.models.call import Call
from llmling.models.litellm import LiteLLMModel
from llmling.models.loading import load
from llmling.models.route import access_of, route_of
from llmling.protocols import ModelRequest, ModelResponse, TextDelta

HEADERS = (
    "authorization", "x-api-key", "api-key", "x-goog-api-key", "anthropic-version", "anthropic-beta", "http-referer",
    "x-title", "openai-organization", "openai-project",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is asked, and what the server answers."""

    reply: Reply
    request: ModelRequest = REQUEST
    fails: bool = False


@dataclass(frozen=True)
class Exchange:
    """One request as the server saw it, and what came of it."""

    sent: Request
    said: ModelResponse | ModelError
    pieces: str = ""


def config_of(server: LLMServer, name: str) -> LiteLLMModelConfig:
    rooted = name.startswith(("anthropic", "ollama", "gemini", "azure", "bedrock"))
    return LiteLLMModelConfig(name=name, api_base=server.url if rooted else server.openai_url, api_key=SecretStr(KEY))


async def exchange(server: LLMServer, config: LiteLLMModelConfig, case: Case, *, ours: bool, stream: bool) -> Exchange:
    server.requests.clear()
    server.replies.append(case.reply)
    route = route_of(await load(), config)
    call = Call(config, route, access_of(config, os.environ), case.request)
    model = LiteLLMModel(config)
    pieces = ""
    try:
        if stream:
            *texts, said = [part async for part in (model.stream(case.request) if ours else acompletion.stream(call))]
            pieces = "|".join(text.text for text in texts if isinstance(text, TextDelta))
            assert isinstance(said, ModelResponse)
        else:
            said = await (model.request(case.request) if ours else acompletion.ask(call))
    except ModelError as error:
        said = error
    server.replies.clear()
    assert len(server.requests) == 1, said
    return Exchange(server.requests[0], said, pieces)


def is_ours(exchange: Exchange) -> bool:
    return exchange.sent.headers.get("User-Agent") == "llmling"


def sent(exchange: Exchange) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in exchange.sent.headers.items()}
    body = {name: value for name, value in exchange.sent.body.items() if (name, value) != ("stream", False)}
    return {"path": exchange.sent.path, "body": body, **{name: headers.get(name) for name in HEADERS}}


def said(exchange: Exchange, *, in_its_words: bool) -> Any:
    """What came of it, but for ids that are made up here, and for a client's words of what it has met."""
    answer = exchange.said
    if isinstance(answer, ModelError):
        facts = (answer.status, answer.provider, answer.retryable, answer.retry_after_s, answer.attempts)
        return (*facts, answer.too_long, answer.unsent, str(answer) if in_its_words else "")
    data = answer.to_dict()
    for part in data["message"]["parts"]:
        if part["type"] == "tool_call" and len(part["id"]) > 20:
            part["id"] = "made up"
    cost = data.pop("cost_usd")
    return data, exchange.pieces, cost if cost is None else pytest.approx(cost, rel=1e-9)
