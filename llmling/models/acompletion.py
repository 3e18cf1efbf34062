"""The way through `litellm.acompletion`: for every provider, setting and answer that is not certified for ours."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

from llmling.models import clients
from llmling.models.call import Call
from llmling.models.loading import load_acompletion
from llmling.models.wire import Answer, wire_messages, wire_schema, wire_tools
from llmling.protocols import ModelResponse, TextDelta


async def ask(call: Call) -> ModelResponse:
    """Return the answer. Cancelling it closes the HTTP request.

    Raises:
        ModelError: The provider failed; `retryable` is decided by the HTTP status.
    """
    limit = asyncio.timeout_at(call.deadline)
    try:
        async with limit:
            completion = await _send(call, stream=False)
            return call.response_of_completion(completion)
    except Exception as error:  # the border to litellm, which raises nearly everything
        raise call.failure(error, late=limit.expired()) from error


async def stream(call: Call) -> AsyncGenerator[TextDelta | ModelResponse, None]:
    """Yield pieces of text as they arrive and, last, the whole response. Leaving it closes the HTTP request.

    Raises:
        ModelError: As for `ask`; also when the stream ends before the model has finished.
    """
    answer, usage, chunks = Answer(), None, None
    try:
        chunks = await _bounded(call, _send(call, stream=True))
        while (chunk := await _bounded(call, anext(chunks, None))) is not None:
            usage = getattr(chunk, "usage", None) or usage
            for choice in chunk.choices[:1]:
                if text := answer.add(choice):
                    yield TextDelta(text)
        # litellm makes up a finish reason when none came; what it received itself is kept beside it.
        if not (_said(chunks, "received_finish_reason") or _said(chunks, "intermittent_finish_reason")):
            raise call.unfinished()
    finally:
        if chunks is not None:
            await chunks.aclose()
    yield call.response_of_litellm(answer, usage)


async def _bounded(call: Call, step: Any) -> Any:
    limit = asyncio.timeout_at(call.deadline)
    try:
        async with limit:
            return await step
    except Exception as error:  # the border to litellm
        raise call.failure(error, late=limit.expired()) from error


async def _send(call: Call, *, stream: bool) -> Any:
    litellm = await load_acompletion()
    internal: Any = sys.modules.get("litellm._internal_context")
    # An "internal" call starts none of litellm's logging tasks on our loop.
    quiet: Any = internal.is_internal_call.set(True) if internal else None
    try:
        return await litellm.acompletion(**_arguments(call, stream), shared_session=clients.session())
    finally:
        if internal:
            internal.is_internal_call.reset(quiet)


def _arguments(call: Call, stream: bool) -> dict[str, Any]:
    request, config, access = call.request, call.config, call.access
    arguments: dict[str, Any] = {
        **request.settings,
        "model": call.route.name,
        "messages": wire_messages(request.messages),
        # litellm keeps a client per timeout, so it gets a round one; ours is exact.
        "timeout": 60.0 * (request.timeout_s // 60 + 2),
        "max_retries": 0,
        "num_retries": 0,
        "stream": stream,
    }
    if request.tools:
        arguments["tools"] = wire_tools(request.tools)
    if request.output_schema is not None and call.route.sends_schema:
        arguments["response_format"] = wire_schema(request.output_schema)
    if stream:
        arguments["stream_options"] = {"include_usage": True}
    if config.api_base:
        arguments["api_base"] = config.api_base
    if config.api_key is not None and access.key:
        arguments["api_key"] = access.key
    elif not access.key and access.given_key:
        arguments["api_key"] = access.given_key
    return arguments


def _said(chunks: Any, attribute: str) -> bool:
    return getattr(chunks, attribute, "unknown to this litellm") is not None
