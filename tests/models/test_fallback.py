"""The next model is asked when one has failed for good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from llm_server import LLMServer, Reply

from llmling import plugins
from llmling.errors import ModelError
from llmling.manifest.models import DemoModelConfig, FallbackModelConfig, LiteLLMModelConfig
from llmling.messages import Message
from llmling.protocols import Model, ModelRequest, ModelResponse, RetryPolicy, TextDelta
from llmling.runtime.clock import SYSTEM_CLOCK
from llmling.runtime.retry import request_with_retries, stream_with_retries
from llmling.runtime.services import Services

REQUEST = ModelRequest((Message.user("hi there"),), retries=RetryPolicy(attempts=2, backoff_s=0))


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        yield server


def chain(server: LLMServer, *names: str, **more: Any) -> Model:
    models: list[Any] = [LiteLLMModelConfig(name=f"openai/{name}", api_base=server.openai_url) for name in names]
    return plugins.create("models", FallbackModelConfig(models=models + more.get("also", [])), Services())


async def test_the_first_model_is_tried_as_often_as_asked_then_the_next(server: LLMServer) -> None:
    server.replies += [Reply(status=500), Reply(status=503), Reply("from b")]
    response = await chain(server, "a", "b").request(REQUEST)
    assert (response.message.text, response.model) == ("from b", "openai/b")
    assert [request.body["model"] for request in server.requests] == ["a", "a", "b"]


async def test_a_failure_no_try_can_mend_goes_straight_to_the_next(server: LLMServer) -> None:
    server.replies += [Reply(status=404), Reply("from b")]
    assert (await chain(server, "a", "b").request(REQUEST)).message.text == "from b"
    assert [request.body["model"] for request in server.requests] == ["a", "b"]


async def test_all_failed_lists_every_reason_and_counts_every_request(server: LLMServer) -> None:
    server.replies += [Reply("bad key", status=401), Reply("down", status=503), Reply("down", status=503)]
    with pytest.raises(ModelError, match=r"every model failed: openai/a: .*bad key; openai/b: .*down") as caught:
        await chain(server, "a", "b").request(REQUEST)
    assert (caught.value.attempts, caught.value.retryable, caught.value.status) == (3, True, 503)


async def test_all_refused_is_final(server: LLMServer) -> None:
    server.replies += [Reply(status=401), Reply(status=400)]
    with pytest.raises(ModelError) as caught:
        await chain(server, "a", "b").request(REQUEST)
    assert not caught.value.retryable


async def test_the_run_loop_s_tries_do_not_multiply_those_of_the_chain(server: LLMServer) -> None:
    server.answer = lambda request: Reply(status=503)
    with pytest.raises(ModelError) as caught:
        await request_with_retries(chain(server, "a", "b"), REQUEST, REQUEST.retries, clock=SYSTEM_CLOCK)
    assert (caught.value.attempts, len(server.requests)) == (4, 4)


async def test_a_missing_key_goes_to_the_next(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    models: list[Any] = [LiteLLMModelConfig(name="anthropic/claude-sonnet-4-5"), DemoModelConfig()]
    model: Model = plugins.create("models", FallbackModelConfig(models=models), Services())
    assert model.name == "anthropic/claude-sonnet-4-5 | demo"
    assert (await model.request(REQUEST)).demo


async def test_a_stream_falls_back_before_its_first_piece(server: LLMServer) -> None:
    server.replies += [Reply(status=404), Reply("one two")]
    parts = [part async for part in chain(server, "a", "b").stream(REQUEST)]
    assert parts[:-1] == [TextDelta("one"), TextDelta(" two")]
    assert isinstance(parts[-1], ModelResponse)
    assert parts[-1].model == "openai/b"


async def test_a_stream_that_has_begun_does_not_fall_back(server: LLMServer) -> None:
    server.replies += [Reply("one two three four", cut=True), Reply("never")]
    parts = stream_with_retries(chain(server, "a", "b"), REQUEST, REQUEST.retries, clock=SYSTEM_CLOCK)
    assert await anext(parts) == TextDelta("one")
    with pytest.raises(ModelError) as caught:
        [part async for part in parts]
    assert caught.value.retryable
    assert len(server.requests) == 1


async def test_all_streams_failed(server: LLMServer) -> None:
    server.answer = lambda request: Reply(status=401)
    with pytest.raises(ModelError, match="every model failed"):
        [part async for part in chain(server, "a", "b").stream(REQUEST)]
