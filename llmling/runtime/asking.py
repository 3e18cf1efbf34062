"""The model's side of a run: one reply after another, each recorded, hooked, limited and tried again.

A model that is a person raises `NobodyToAsk` where nobody attends; in a run that an engine keeps this becomes a
question that waits there, and its answer the reply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from llmling import written
from llmling.asks import Ask, Question, ask_key, decision_key, decision_of
from llmling.errors import Asked, LimitExceeded, ModelError, NobodyToAsk
from llmling.messages import Message, Usage
from llmling.protocols import ModelRequest, ModelResponse, Step, TextDelta, ToolSpec
from llmling.runtime.context import NO_JOURNAL, RunContext
from llmling.runtime.hooks import NO_HOOKS
from llmling.runtime.output import shape_request
from llmling.runtime.profile import Profile
from llmling.runtime.progress import Progress
from llmling.runtime.retry import NoTurn, request_with_retries, stream_with_retries
from llmling.runtime.scope import current_request

Purpose: TypeAlias = Literal["reply", "plan", "summary", "final"]
"""What a request is for: a turn with tools, a plan, a summary of what is left out, or the answer without tools."""

_ANSWERS = frozenset({"reply", "final"})


class Asking:
    """Gets the replies of one run; a reply that was recorded before a restart is not asked for again.

    Every model request of a run goes through here. Only replies and final answers are streamed, have the shape of the
    output and are recorded by the caller, once they are found good; plans and summaries are recorded at once.
    """

    def __init__(self, profile: Profile, context: RunContext, progress: Progress, *, streaming: bool) -> None:
        self._profile = profile
        self._context = context
        self._journal = context.journal
        self._recording = context.journal is not NO_JOURNAL
        self._progress = progress
        self._streaming = streaming
        self._failed = 0

    async def reply(
        self,
        iteration: int,
        purpose: Purpose,
        messages: Sequence[Message],
        tools: tuple[ToolSpec, ...] = (),
        *,
        key: str = "",
    ) -> tuple[ModelResponse, bool]:
        """Return a reply, counted, and whether it comes from the journal; `key` is `<iteration>:<purpose>` if empty.

        Raises:
            ModelError: The model gave none.
            LimitExceeded: The run's time was over, or a plan or summary has passed a limit.
            HookError: A hook failed or vetoed.
        """
        key = key or f"{iteration}:{purpose}"
        answers = purpose in _ANSWERS
        step = self._journal.recorded(key) if self._recording else None
        if step is not None:
            response = ModelResponse.from_dict(step.data)
        else:
            response = await self._hooked(iteration, purpose, messages, tools)
            if not answers and self._recording:
                await self._journal.record(self._step(key, response, {}))
        self._progress.count(response)
        if not answers:
            self._progress.check()
        return response, step is not None

    async def record(self, key: str, response: ModelResponse, **facts: Any) -> None:
        """Record an answer and facts about it, so that a run that starts again takes it from the journal."""
        self._progress.answered = not response.message.tool_calls
        if self._recording:
            await self._journal.record(self._step(key, response, facts))

    async def reject(self, key: str, response: ModelResponse) -> None:
        """Record an answer that has to be given again: a run that starts again takes the same way."""
        if self._recording:
            await self._journal.record(self._step(key, response, {"rejected": True}))

    def _step(self, key: str, response: ModelResponse, facts: Mapping[str, Any]) -> Step:
        return Step(key, "reply", written.reply(response, {**self._progress.stamp(), **facts}))

    async def _hooked(
        self, iteration: int, purpose: Purpose, messages: Sequence[Message], tools: tuple[ToolSpec, ...]
    ) -> ModelResponse:
        profile, hooks = self._profile, self._profile.hooks
        answers = purpose in _ANSWERS
        streaming = self._streaming and answers
        request = ModelRequest(
            tuple(messages),
            tools,
            profile.output.schema if profile.output and answers else None,
            profile.settings,
            profile.request_timeout_s,
            profile.retries,
            self._retried if hooks is NO_HOOKS else None,
        )
        place = str(iteration) if purpose == "reply" else f"{iteration}:{purpose}"
        decided: ModelRequest | ModelResponse = request
        if self._recording and (said := self._journal.recorded(decision_key(place))) is not None:
            decided = human_reply(decision_of(said).answer or "")
        elif hooks is not NO_HOOKS:
            decided = await hooks.before_model(request, self._progress.info)
        if isinstance(decided, ModelResponse):
            response = decided
            if streaming:
                self._progress.say("text_delta", response.message.text)
        else:
            if self._progress.told:
                self._announce(iteration, purpose)
            response = await self._ask(place, decided, streaming=streaming)
        self._context.meter.add(response.usage, response.cost_usd)
        return response if hooks is NO_HOOKS else await hooks.after_model(response, self._progress.info)

    def _announce(self, iteration: int, purpose: Purpose) -> None:
        what = f"request {iteration + 1}" if purpose == "reply" else f"request for the {purpose}"
        what = "last request, without tools," if purpose == "final" else what
        self._progress.say("model_request", f"{what} to {self._progress.model}", iteration=iteration, purpose=purpose)

    async def _ask(self, place: str, request: ModelRequest, *, streaming: bool) -> ModelResponse:
        profile = self._profile
        self._failed = 0
        if request.on_retry is None:  # hooks may have made it
            request = dataclasses.replace(request, on_retry=self._retried)
        token = current_request.set(None if self._context.kept else self._progress.info)
        try:
            tried = self._streamed(request) if streaming else self._requested(request)
            response = await tried
            self._context.meter.count(self._failed + response.usage.requests)
            return response
        except NobodyToAsk as error:
            if not self._context.kept:
                raise
            raise await self._left_to_a_person(place, request) from error
        except ModelError as error:
            self._context.meter.count(error.attempts)
            deadline = self._progress.deadline
            # A run that never got its turn did not take too long: it is tried again later.
            if isinstance(error, NoTurn) or deadline is None or profile.clock.monotonic() < deadline:
                raise
            raise LimitExceeded(
                f"run of agent {profile.agent!r} took {profile.limits.timeout_s:g} s: {error}; raise limits.timeout_s"
            ) from error
        finally:
            current_request.reset(token)

    async def _left_to_a_person(self, place: str, request: ModelRequest) -> Asked:
        question = question_of(request)
        ask = Ask(place, self._profile.agent, str(question), None, question.about, question.output_schema)
        if self._journal.recorded(ask_key(ask.key)) is None:
            await self._journal.record(ask.step(), committed=True)
        return Asked(ask.reason())

    def _requested(self, request: ModelRequest) -> Awaitable[ModelResponse]:
        profile = self._profile
        return request_with_retries(
            profile.model,
            request,
            profile.retries,
            clock=profile.clock,
            deadline=self._progress.deadline,
            on_retry=request.on_retry,
        )

    async def _streamed(self, request: ModelRequest) -> ModelResponse:
        profile = self._profile
        async for part in stream_with_retries(
            profile.model,
            request,
            profile.retries,
            clock=profile.clock,
            deadline=self._progress.deadline,
            on_retry=request.on_retry,
        ):
            if isinstance(part, TextDelta):
                self._progress.piece(part.text)
            else:
                return part
        raise ModelError(f"the stream of {self._progress.model} ended without an answer", retryable=True)

    def _retried(self, error: ModelError, wait_s: float) -> None:
        self._failed += min(1, error.attempts)
        when = f"in {wait_s:.1f} s" if wait_s else "at once"
        self._progress.say("retry", f"{error}; next try {when}", status=error.status, wait_s=wait_s)


def question_of(request: ModelRequest) -> Question:
    """Return what a person who answers a request is asked: its last message, and apart from it what models are told."""
    about = "\n\n".join(message.text for message in request.messages if message.role == "system")
    schema = request.output_schema
    if schema is not None:
        # People are shown an example of the shape.
        about = about.replace(shape_request(schema), "").strip()
    return Question(request.messages[-1].text if request.messages else "", about, schema)


def human_reply(text: str) -> ModelResponse:
    """Return what a person said as the reply of a model: no request was made, and it costs nothing."""
    return ModelResponse(Message.assistant(text), Usage(), "human", cost_usd=0.0)
