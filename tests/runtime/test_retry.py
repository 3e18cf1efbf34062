"""Tries, waits and deadlines of one model request, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from llmling.errors import ModelError
from llmling.messages import Message
from llmling.models.scripted import ScriptedModel
from llmling.protocols import ModelRequest, ModelResponse, RetryPolicy, TextDelta
from llmling.runtime.clock import SYSTEM_CLOCK
from llmling.runtime.retry import request_with_retries, stream_with_retries
from llmling.testing import FakeClock

REQUEST = ModelRequest((Message.user("hi"),))
FAST = RetryPolicy(attempts=3, backoff_s=0.0)


def failure(status: int | None = 503, **more: Any) -> ModelError:
    return ModelError("no luck", status=status, provider="openai", **{"retryable": True, **more})


async def test_the_answer_comes_after_the_failures_and_each_try_is_one_request() -> None:
    model, heard = ScriptedModel([failure(), failure(429), "at last"]), list[tuple[int | None, float]]()
    response = await request_with_retries(
        model, REQUEST, FAST, clock=SYSTEM_CLOCK, on_retry=lambda error, wait_s: heard.append((error.status, wait_s))
    )
    assert response.message.text == "at last"
    assert len(model.requests) == 3
    assert heard == [(503, 0.0), (429, 0.0)]


async def test_the_last_failure_says_how_many_requests_were_made() -> None:
    model = ScriptedModel([failure()] * 5)
    with pytest.raises(ModelError, match=r"no luck \(after 3 tries\)") as caught:
        await request_with_retries(model, REQUEST, FAST, clock=SYSTEM_CLOCK)
    error = caught.value
    assert (error.attempts, error.status, error.provider, error.retryable) == (3, 503, "openai", True)
    assert len(model.requests) == 3


async def test_a_failure_no_try_can_mend_is_asked_once() -> None:
    model = ScriptedModel([failure(401, retryable=False), "never"])
    with pytest.raises(ModelError) as caught:
        await request_with_retries(model, REQUEST, FAST, clock=SYSTEM_CLOCK)
    assert (caught.value.attempts, len(model.requests)) == (1, 1)


async def test_other_exceptions_are_not_retried() -> None:
    with pytest.raises(KeyError):
        await request_with_retries(ScriptedModel([KeyError("bug"), "never"]), REQUEST, FAST, clock=SYSTEM_CLOCK)


async def test_waits_double_up_to_the_most_with_full_jitter() -> None:
    waits: list[list[float]] = []
    for _ in range(200):
        heard: list[float] = []
        policy, clock = RetryPolicy(attempts=5, backoff_s=1.0, max_backoff_s=3.0), FakeClock()
        asking = asyncio.create_task(
            request_with_retries(
                ScriptedModel([failure()] * 4 + ["ok"]), REQUEST, policy, clock=clock,
                on_retry=lambda _, wait_s, heard=heard: heard.append(wait_s),
            )
        )  # fmt: skip
        while not asking.done():
            await asyncio.sleep(0)
            await clock.advance(3.0)
        await asking
        waits.append(heard)
    for place, most in enumerate((1.0, 2.0, 3.0, 3.0)):
        column = [row[place] for row in waits]
        assert 0 <= min(column) < most * 0.2
        assert most * 0.8 < max(column) <= most


async def test_never_earlier_than_the_provider_asked() -> None:
    clock, model = FakeClock(), ScriptedModel([failure(429, retry_after_s=20.0), "ok"])
    asking = asyncio.create_task(request_with_retries(model, REQUEST, RetryPolicy(max_backoff_s=1.0), clock=clock))
    await clock.asleep()
    await clock.advance(19.9)
    assert not asking.done()
    await clock.advance(2.2)
    assert (await asking).message.text == "ok"


async def test_a_wait_past_the_deadline_fails_at_once_with_the_reason() -> None:
    clock, model = FakeClock(), ScriptedModel([failure(429, retry_after_s=60.0), "never"])
    with pytest.raises(ModelError, match=r"no luck; the provider asks to wait 6\d\.\d s, but only 30\.0 s") as caught:
        await request_with_retries(model, REQUEST, FAST, clock=clock, deadline=clock.monotonic() + 30)
    assert (caught.value.retry_after_s, caught.value.attempts, caught.value.retryable) == (60.0, 1, True)
    assert len(model.requests) == 1


async def test_a_try_never_gets_more_time_than_is_left() -> None:
    clock, model = FakeClock(), ScriptedModel(["ok"])
    await request_with_retries(model, REQUEST, FAST, clock=clock, deadline=clock.monotonic() + 7)
    assert model.requests[0].timeout_s == 7


async def test_one_deadline_ends_a_model_that_does_not_keep_its_time() -> None:
    async def hang(_request: ModelRequest) -> str:
        await asyncio.Event().wait()
        return "never"

    deadline = SYSTEM_CLOCK.monotonic() + 0.1
    model = ScriptedModel([failure(), hang])
    with pytest.raises(ModelError, match=r"time for all tries was over, after 2 tries; the last .*no luck") as caught:
        await request_with_retries(model, REQUEST, FAST, clock=SYSTEM_CLOCK, deadline=deadline)
    assert (caught.value.attempts, caught.value.retryable) == (2, True)


async def test_cancelling_ends_the_wait() -> None:
    clock = FakeClock()
    asking = asyncio.create_task(
        request_with_retries(ScriptedModel([failure(retry_after_s=99.0)]), REQUEST, FAST, clock=clock)
    )
    await clock.asleep()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def drain(model: Any, **more: Any) -> tuple[str, ModelResponse | None]:
    text, last = "", None
    async for part in stream_with_retries(model, REQUEST, FAST, clock=SYSTEM_CLOCK, **more):
        if isinstance(part, TextDelta):
            text += part.text
        else:
            last = part
    return text, last


async def test_a_stream_is_asked_for_again_while_nothing_was_passed_on() -> None:
    model = ScriptedModel([failure(), "one two three"])
    text, last = await drain(model)
    assert text == "one two three"
    assert last is not None
    assert last.message.text == text
    assert len(model.requests) == 2


async def test_a_stream_that_fails_after_text_is_not_asked_for_again() -> None:
    class Cut(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
            self.requests.append(request)
            yield TextDelta("half an ")
            raise failure(None)

    model = Cut([])
    parts = stream_with_retries(model, REQUEST, FAST, clock=SYSTEM_CLOCK)
    assert await anext(parts) == TextDelta("half an ")
    with pytest.raises(ModelError) as caught:
        await anext(parts)
    assert (caught.value.attempts, len(model.requests)) == (1, 1)


async def test_a_stream_that_the_deadline_cuts_counts_each_request_once() -> None:
    class Stalls(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
            self.requests.append(request)
            if len(self.requests) == 1:
                raise failure()
            yield TextDelta("half an ")
            await asyncio.Event().wait()

    model = Stalls([])
    deadline = SYSTEM_CLOCK.monotonic() + 0.2
    parts = stream_with_retries(model, REQUEST, FAST, clock=SYSTEM_CLOCK, deadline=deadline)
    assert await anext(parts) == TextDelta("half an ")
    with pytest.raises(ModelError, match=r"time for all tries was over, after 2 tries; the last .*no luck") as caught:
        await anext(parts)
    assert (caught.value.attempts, len(model.requests)) == (2, 2)
    assert caught.value.__cause__ is not caught.value


async def test_a_stream_that_never_begins_fails_with_the_count() -> None:
    with pytest.raises(ModelError) as caught:
        await drain(ScriptedModel([failure()] * 3))
    assert caught.value.attempts == 3


async def test_leaving_a_stream_closes_the_models_stream() -> None:
    closed = asyncio.Event()

    class Endless(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
            try:
                while True:
                    yield TextDelta("more ")
            finally:
                closed.set()

    parts = stream_with_retries(Endless([]), REQUEST, FAST, clock=SYSTEM_CLOCK)
    await anext(parts)
    await parts.aclose()
    assert closed.is_set()
