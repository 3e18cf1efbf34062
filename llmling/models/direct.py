"""Our own way to a model: litellm's knowledge of the provider, our wire, and answers read where they arrive."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp

from llmling.encoding import decoded
from llmling.models import transport
from llmling.models.call import Call
from llmling.models.dialects.base import Splitter, StreamFailed, Unusual
from llmling.models.failure import Refused
from llmling.models.plan import Plan
from llmling.models.wire import Answer, wire_messages
from llmling.protocols import ModelResponse, TextDelta
from llmling.runtime.deadline import Deadline, DeadlineOver, Limit

_MOST_REPEATED = 100
"""Pieces that are the same, one after the other, after which a model is taken to be stuck; as litellm has it."""
_DRAIN_S = 0.1
"""How long a connection may take to be free again after the server has said that it is done."""


class Elsewhere(Exception):
    """The request was refused in a way that litellm has an answer to: it has to be asked litellm's way."""


async def ask(call: Call, plan: Plan, body: bytes) -> ModelResponse:
    """Return the answer. Cancelling it closes the HTTP request.

    Raises:
        ModelError: The provider failed; `retryable` is decided by the HTTP status.
        Elsewhere: It has to be asked litellm's way.
    """
    limit = Limit(call.request.timeout_s)
    try:
        with limit:
            said = await transport.answered(plan.target_of(body), body)
        return _read(call, plan, said)
    except Exception as error:  # the border to the provider, and to litellm where it reads the answer
        if isinstance(error, Refused) and error.answered_by_litellm:
            raise Elsewhere from error
        raise call.failure(error, late=limit.expired()) from error


def _read(call: Call, plan: Plan, body: bytes) -> ModelResponse:
    try:
        data = decoded(body)
    except ValueError:
        raise ValueError(f"it is no JSON: {body[:200].decode(errors='replace')!r}") from None
    if not isinstance(data, dict) or not data:
        raise ValueError(f"it is no answer: {body[:200].decode(errors='replace')!r}")
    answer = Answer()
    try:
        plan.dialect.whole(data, answer)  # whatever is in it when this is raised is forgotten
    except Unusual:
        return call.response_of_completion(plan.read_by_litellm(body, wire_messages(call.request.messages)))
    return call.response(answer, plan.dialect.tokens(answer.usage) if answer.usage else None)


async def stream(call: Call, plan: Plan, body: bytes) -> AsyncGenerator[TextDelta | ModelResponse, None]:
    """Yield pieces of text as they arrive and, last, the whole response. Leaving it closes the HTTP request.

    Raises:
        ModelError: As for `ask`; also when the stream ends before the model has finished.
    """
    reader = _Reader(call, plan)
    parts = transport.streamed(plan.target_of(body), body)
    limit = Deadline(call.request.timeout_s)
    try:
        while not reader.splitter.ended and (part := await _next(call, parts, limit)) is not None:
            for text in reader.texts(part):
                yield TextDelta(text)
        for text in reader.texts(None):
            yield TextDelta(text)
        if reader.answer.finish_reason is None:
            raise call.unfinished()
        await _drain(parts)
    finally:
        limit.close()
        await parts.aclose()
    if not reader.counted:
        await _count(call, reader)
    yield reader.response()


async def _count(call: Call, reader: _Reader) -> None:
    """Count what the provider did not, as litellm does it, but away from the loop and without the network."""
    litellm: Any = sys.modules["litellm"]
    messages, said = wire_messages(call.request.messages), "".join(reader.answer.texts)

    def count() -> tuple[int, int]:
        return litellm.token_counter(messages=messages), litellm.token_counter(text=said)

    limit = asyncio.timeout_at(call.deadline)
    try:
        async with limit:
            read, written = await asyncio.to_thread(count)
    except Exception as error:  # the border to litellm
        raise call.failure(error, late=limit.expired()) from error
    reader.take(litellm.Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written))


async def _next(call: Call, parts: AsyncGenerator[bytes, None], limit: Deadline) -> bytes | None:
    try:
        with limit:
            return await anext(parts, None)
    except Exception as error:  # the border to the provider
        if isinstance(error, Refused) and error.answered_by_litellm:
            raise Elsewhere from error
        raise call.failure(error, late=isinstance(error, DeadlineOver)) from error


async def _drain(parts: AsyncGenerator[bytes, None]) -> None:
    """Read to the end, so that the connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in parts:
                pass
    except (TimeoutError, aiohttp.ClientError):
        pass  # it is closed instead


class _Reader:
    """A streamed answer being read; pieces that are unusual are read by litellm."""

    def __init__(self, call: Call, plan: Plan) -> None:
        self.answer = Answer()
        self.splitter: Splitter = plan.splitter()
        self._call = call
        self._plan = plan
        self._litellm: Callable[[Any], Any] | None = None
        self._usage: Any = None
        self._last = ""
        self._repeated = 0

    def texts(self, part: bytes | None) -> list[str]:
        """Return the pieces of text a part of the body brings; None: the body has ended.

        Raises:
            ModelError: It cannot be read, or says that the provider has failed.
        """
        try:
            values = self.splitter.close() if part is None else self.splitter.feed(part)
            return [self._checked(text) for value in values if (text := self._text(value))]
        except Exception as error:  # the border to the provider, and to litellm where it reads the answer
            raise self._call.broken(error) from error

    def _text(self, value: Any) -> str:
        dialect, read = self._plan.dialect, self._litellm
        if read is None or not dialect.stays:
            try:
                return dialect.piece(value, self.answer)
            except Unusual:
                pass
        if read is None:
            read = self._litellm = self._plan.iterator(self.answer)
        chunk = read(value)
        self._usage = getattr(chunk, "usage", None) or self._usage
        answer = self.answer
        said = "".join([answer.add(choice) for choice in chunk.choices[:1]])
        if answer.finish_reason == "stop" and answer.calls:
            answer.finish_reason = "tool_calls"  # as litellm has it for all streams
        return said

    def _checked(self, text: str) -> str:
        if text != self._last:
            self._last, self._repeated = text, 0
        self._repeated += 1
        if self._repeated >= _MOST_REPEATED and len(text) > 2:
            raise StreamFailed(f"the model repeats the same piece: {text!r}", None)
        return text

    @property
    def counted(self) -> bool:
        """Whether the provider has said how many tokens there were."""
        return bool(self._usage or self.answer.usage)

    def take(self, usage: Any) -> None:
        """Take a usage as litellm has it."""
        self._usage = usage

    def response(self) -> ModelResponse:
        """Return the whole."""
        if self._usage is not None:
            return self._call.response_of_litellm(self.answer, self._usage)
        usage = self.answer.usage
        return self._call.response(self.answer, self._plan.dialect.tokens(usage) if usage else None)
