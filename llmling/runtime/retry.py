"""Tries of one model request: full-jitter back-off, Retry-After, and one deadline over all of them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from typing import TypeAlias, TypeVar

from llmling.errors import ModelError, NotAsked
from llmling.protocols import Model, ModelRequest, ModelResponse, OnRetry, RetryPolicy, TextDelta
from llmling.runtime.circuit import CircuitOpen
from llmling.runtime.clock import Clock
from llmling.runtime.deadline import Deadline, DeadlineOver
from llmling.runtime.gate import Entry, current_pass
from llmling.runtime.spans import chat_answered, chat_span
from llmling.runtime.tracing import OpenSpan

Streamed: TypeAlias = TextDelta | ModelResponse
T = TypeVar("T")


async def request_with_retries(
    model: Model,
    request: ModelRequest,
    policy: RetryPolicy,
    *,
    clock: Clock,
    deadline: float | None = None,
    on_retry: OnRetry | None = None,
    patient: bool = True,
) -> ModelResponse:
    """Ask until there is an answer, a failure that no later try can mend, or `policy.attempts` tries are made.

    `deadline` is a time of `clock.monotonic()` that bounds all tries and the waits between them. A wait is never
    shorter than the provider asked for. Cancelling ends the try in flight, or the wait. Without `patient` it fails at
    once where a circuit is open: there is another model to ask.

    Raises:
        ModelError: The last failure; `attempts` counts every request that was made.
    """
    tries = _Tries(model, policy, clock, deadline, on_retry, patient=patient)
    while True:
        try:
            entry = tries.entry(request)
            if entry is None:
                return await tries.request(request)
            if not entry.free:
                async with _Entered(tries, entry):
                    response = await tries.request(request)
                    await entry.answered(response)
                    return response
            try:
                response = await tries.request(request)
            except BaseException as error:
                await _left(entry, error)
                raise
            entry.up()
            return response
        except ModelError as error:
            await tries.wait_after(error)


async def stream_with_retries(
    model: Model,
    request: ModelRequest,
    policy: RetryPolicy,
    *,
    clock: Clock,
    deadline: float | None = None,
    on_retry: OnRetry | None = None,
    patient: bool = True,
) -> AsyncGenerator[Streamed, None]:
    """Stream an answer; it is asked for again only while nothing has been yielded, else as `request_with_retries`.

    Raises:
        ModelError: The last failure, or the first one after text was yielded.
    """
    tries = _Tries(model, policy, clock, deadline, on_retry, patient=patient)
    while True:
        silent = True
        try:
            entry = tries.entry(request)
            async with nullcontext() if entry is None else _Entered(tries, entry):
                limit = tries.limit()
                parts = model.stream(tries.shortened(request))
                span = tries.span(request)
                try:
                    while True:
                        try:
                            with limit:
                                part = await anext(parts, None)
                        except DeadlineOver:
                            raise tries.late() from tries.last
                        if part is None:
                            return
                        silent = False
                        if isinstance(part, ModelResponse):
                            if span is not None:
                                chat_answered(span, part)
                            if entry is not None:
                                await entry.answered(part)
                        yield part
                except ModelError as error:
                    if span is not None:
                        span.end(error)
                    raise
                finally:
                    limit.close()
                    if span is not None:
                        span.end("left before the answer was complete")
                    await _close(parts)
        except ModelError as error:
            # An error of the deadline is raised below as it is: it holds the count already.
            if not silent and not isinstance(error, _DeadlineReached):
                raise tries.final(error) from error
            failure = error
        await tries.wait_after(failure)


class _Tries:
    """Counts the tries of one request and decides what follows a failure."""

    def __init__(
        self,
        model: Model,
        policy: RetryPolicy,
        clock: Clock,
        deadline: float | None,
        on_retry: OnRetry | None,
        *,
        patient: bool,
    ) -> None:
        self._model = model
        self._patient = patient
        self._policy = policy
        # A model that asks several others has made all the tries there are; asking it again would multiply them.
        self._retries_by_itself = getattr(model, "retries_by_itself", False)
        self._most = 1 if self._retries_by_itself else policy.attempts
        self._clock = clock
        self._deadline = deadline
        self._on_retry = on_retry
        self._tries = 1
        self._requests = 0
        self.last: ModelError | None = None

    def left_s(self) -> float | None:
        """Return the seconds until the deadline, or None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock.monotonic())

    def shortened(self, request: ModelRequest) -> ModelRequest:
        """Return the request with a timeout that does not reach past the deadline."""
        left_s = self.left_s()
        if left_s is None or left_s >= request.timeout_s:
            return request
        return dataclasses.replace(request, timeout_s=left_s)

    def span(self, request: ModelRequest) -> OpenSpan | None:
        """Begin the span of the try about to be made; a model that asks others leaves that to their tries."""
        return None if self._retries_by_itself else chat_span(self._model.name, request, self._tries - 1)

    def entry(self, request: ModelRequest) -> Entry | None:
        """Return the way of the try through the gate, or None where nothing bounds it."""
        passing = current_pass.get()
        if passing is None or self._retries_by_itself or getattr(self._model, "unbounded", False):
            return None
        return passing.gate.entry(self._model, request, passing.event, patient=self._patient)

    async def opened(self, entry: Entry) -> None:
        """Return when the try may be made."""
        try:
            await self.bounded(lambda: entry.open(self.left_s()))
        except (_DeadlineReached, asyncio.CancelledError) as error:
            late = self._no_turn(entry.waits_for)
            # To give a place back may take until the run's own time limit cancels it; it says the same then.
            if (passing := current_pass.get()) is not None:
                passing.late = late
            if isinstance(error, asyncio.CancelledError):
                raise
            raise late from error
        except CircuitOpen as error:
            if self.last is None:
                raise
            # Those who read it want to know what they saw themselves.
            raise CircuitOpen(
                f"{error}; the last failure was: {self.last}",
                status=self.last.status,
                provider=self.last.provider,
                attempts=self._requests,
                retryable=True,
                retry_after_s=error.retry_after_s,
            ) from error

    def request(self, request: ModelRequest) -> Awaitable[ModelResponse]:
        """Make one try, until the deadline."""
        left_s = self.left_s()
        if left_s is None or left_s > request.timeout_s:
            # The model ends the try itself before the deadline; a run that it holds up even so ends by its own limit.
            return self._request(request)
        return self.bounded(lambda: self._request(self.shortened(request)))

    async def _request(self, request: ModelRequest) -> ModelResponse:
        span = self.span(request)
        if span is None:
            return await self._model.request(request)
        try:
            response = await self._model.request(request)
        except BaseException as error:
            span.end(error)
            raise
        chat_answered(span, response)
        return response

    def limit(self) -> Deadline:
        """Return the deadline over all pieces of a stream."""
        left_s = self.left_s()
        if left_s is not None and left_s <= 0:
            raise self._late(self._requests)
        return Deadline(left_s)

    def late(self) -> ModelError:
        """Return the error of a try that the deadline has cut off."""
        return self._late(self._requests + 1)

    async def bounded(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()` until the deadline."""
        left_s = self.left_s()
        if left_s is None:
            return await work()
        if left_s <= 0:
            raise self._late(self._requests)
        limit = asyncio.timeout(left_s)
        try:
            async with limit:
                return await work()
        except TimeoutError:
            if not limit.expired():
                raise
            raise self.late() from self.last

    async def wait_after(self, error: ModelError) -> None:
        """Return when it is time for the next try.

        Raises:
            ModelError: There is none: the failure is final, the tries are used up or the deadline comes first.
        """
        if isinstance(error, _DeadlineReached | CircuitOpen | NotAsked):
            raise error
        self._requests += error.attempts
        self.last = error
        if not error.retryable or self._tries >= self._most:
            raise self.final(error, counted=True) from error
        wait_s = self._backoff_s(error)
        left_s = self.left_s()
        if left_s is not None and wait_s >= left_s:
            asked = "the provider asks to wait" if error.retry_after_s is not None else "the next try is due in"
            reason = f"{error}; {asked} {wait_s:.1f} s, but only {left_s:.1f} s are left for all tries"
            raise _copy(error, reason, self._requests) from error
        if self._on_retry is not None:
            self._on_retry(error, wait_s)
        await self._clock.sleep(wait_s)
        self._tries += 1

    def final(self, error: ModelError, *, counted: bool = False) -> ModelError:
        """Return the error to raise: the failure with the number of requests made so far."""
        requests = self._requests if counted else self._requests + error.attempts
        message = f"{error} (after {self._tries} tries)" if self._tries > 1 else str(error)
        return _copy(error, message, requests)

    def _backoff_s(self, error: ModelError) -> float:
        ceiling = min(self._policy.max_backoff_s, self._policy.backoff_s * 2 ** min(self._tries - 1, 60))
        jitter = random.uniform(0, ceiling)
        if error.retry_after_s is None:
            return jitter
        # Never earlier than asked; a little later so that many runs do not come back in the same instant.
        return error.retry_after_s + min(jitter, 0.1 * error.retry_after_s)

    def _no_turn(self, why: str) -> ModelError:
        last = f"; the last failure was: {self.last}" if self.last else ""
        return NoTurn(
            f"{self._model.name}: no turn before the run's time was over, {why}{last}",
            status=self.last.status if self.last else None,
            provider=self.last.provider if self.last else "",
            attempts=self._requests,
            retryable=True,
            unsent=True,
        )

    def _late(self, requests: int) -> ModelError:
        last = f"; the last failure was: {self.last}" if self.last else ""
        return _DeadlineReached(
            f"{self._model.name}: no answer before the time for all tries was over, after {self._tries} "
            f"{'try' if self._tries == 1 else 'tries'}{last}",
            status=self.last.status if self.last else None,
            provider=self.last.provider if self.last else "",
            attempts=requests,
            retryable=True,
        )


class _Entered:
    """One try inside the gate, from its turn to its end."""

    __slots__ = ("_entry", "_tries")

    def __init__(self, tries: _Tries, entry: Entry) -> None:
        self._tries = tries
        self._entry = entry

    async def __aenter__(self) -> None:
        if self._entry.free:
            return
        try:
            await self._tries.opened(self._entry)
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None or not self._entry.over:
            await _left(self._entry, error)


async def _left(entry: Entry, error: BaseException | None) -> None:
    """End a try inside the gate that brought no answer."""
    try:
        # Of a try that was cut off, or not made, the status is that of the try before.
        if isinstance(error, ModelError) and not isinstance(error, _DeadlineReached | CircuitOpen):
            await entry.failed(error)
    finally:
        await entry.close()


class _DeadlineReached(ModelError):
    """The deadline over all tries was reached; never tried again here."""


class NoTurn(_DeadlineReached):
    """The deadline was reached before the limits on requests had room for this one."""


def _copy(error: ModelError, message: str, requests: int) -> ModelError:
    return ModelError(
        message,
        status=error.status,
        provider=error.provider,
        attempts=requests,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        too_long=error.too_long,
    )


async def _close(parts: AsyncIterator[Streamed]) -> None:
    if isinstance(parts, AsyncGenerator):
        await parts.aclose()
