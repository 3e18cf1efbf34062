"""The model's side of a run: one reply after another, each recorded, hooked, limited and tried again."""

from __future__ import annotations

from collections.abc import Sequence

from llmling.errors import LimitExceeded, ModelError
from llmling.messages import Message
from llmling.protocols import ModelRequest, ModelResponse, Step, TextDelta, ToolSpec
from llmling.runtime.context import RunContext
from llmling.runtime.profile import Profile
from llmling.runtime.progress import Progress
from llmling.runtime.retry import request_with_retries, stream_with_retries


class Asking:
    """Gets the replies of one run; a reply that was recorded before a restart is not asked for again."""

    def __init__(self, profile: Profile, context: RunContext, progress: Progress, *, streaming: bool) -> None:
        self._profile = profile
        self._context = context
        self._progress = progress
        self._streaming = streaming

    async def reply(
        self, iteration: int, exchange: Sequence[Message], tools: tuple[ToolSpec, ...]
    ) -> tuple[ModelResponse, bool]:
        """Return the next reply, and whether it comes from the journal.

        Raises:
            ModelError: The model gave none.
            LimitExceeded: The run's time was over.
            HookError: A hook failed or vetoed.
        """
        step = self._context.journal.recorded(f"{iteration}:reply")
        if step is not None:
            return ModelResponse.from_dict(step.data), True
        profile = self._profile
        request = ModelRequest(
            tuple(exchange),
            tools,
            profile.output.schema if profile.output else None,
            profile.settings,
            profile.request_timeout_s,
            profile.retries,
        )
        decided = await profile.hooks.before_model(request, self._progress.info)
        if isinstance(decided, ModelResponse):
            response = decided
            if self._streaming:
                self._progress.say("text_delta", response.message.text)
        else:
            response = await self._ask(iteration, decided)
        self._context.meter.add(response.usage, response.cost_usd)
        return await profile.hooks.after_model(response, self._progress.info), False

    async def record(self, iteration: int, response: ModelResponse) -> None:
        """Record a reply, so that a run that starts again takes it from the journal."""
        await self._context.journal.record(Step(f"{iteration}:reply", "reply", response.to_dict()))

    async def _ask(self, iteration: int, request: ModelRequest) -> ModelResponse:
        profile = self._profile
        if profile.rate is not None:
            await profile.rate.wait()
        model = self._progress.model
        self._progress.say("model_request", f"request {iteration + 1} to {model}", iteration=iteration)
        try:
            if self._streaming:
                return await self._streamed(request)
            return await request_with_retries(
                profile.model,
                request,
                profile.retries,
                clock=profile.clock,
                deadline=self._progress.deadline,
                on_retry=self._retried,
            )
        except ModelError as error:
            deadline = self._progress.deadline
            if deadline is None or profile.clock.monotonic() < deadline:
                raise
            raise LimitExceeded(
                f"run of agent {profile.agent!r} took {profile.limits.timeout_s:g} s: {error}; raise limits.timeout_s"
            ) from error

    async def _streamed(self, request: ModelRequest) -> ModelResponse:
        profile = self._profile
        async for part in stream_with_retries(
            profile.model,
            request,
            profile.retries,
            clock=profile.clock,
            deadline=self._progress.deadline,
            on_retry=self._retried,
        ):
            if isinstance(part, TextDelta):
                self._progress.say("text_delta", part.text)
            else:
                return part
        raise ModelError(f"the stream of {self._progress.model} ended without an answer", retryable=True)

    def _retried(self, error: ModelError, wait_s: float) -> None:
        self._progress.say("retry", f"{error}; next try in {wait_s:.1f} s", status=error.status, wait_s=wait_s)
