"""One run: ask the model, call the tools it wants, and so on until it answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmling.errors import DecisionNeeded, LimitExceeded, ModelError, OutputError, RunError, ToolError
from llmling.events import new_id
from llmling.manifest.agents import LimitsConfig
from llmling.messages import Message, RunResult, ToolCallPart, ToolCallResponsePart, Usage
from llmling.protocols import Model, ModelRequest, ModelResponse, RetryPolicy, RunInfo, Step, TextDelta, Tool, ToolSpec
from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.context import RunContext, current_run
from llmling.runtime.hooks import NO_HOOKS, Hooks
from llmling.runtime.limits import RateLimit, check_limits, shortened
from llmling.runtime.output import OutputType
from llmling.runtime.retry import request_with_retries, stream_with_retries
from llmling.runtime.spans import run_completed, run_span, tool_span
from llmling.runtime.stream import Listener, RunEvent, RunEventType, silent
from llmling.runtime.tracing import OpenSpan

logger = logging.getLogger("llmling.run")


@dataclass(frozen=True, slots=True)
class Profile:
    """What stays the same from run to run of one agent."""

    agent: str
    model: Model
    limits: LimitsConfig = LimitsConfig()
    retries: RetryPolicy = RetryPolicy()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request_timeout_s: float = 60.0
    output: OutputType | None = None
    parallel_tools: bool = True
    rate: RateLimit | None = None
    hooks: Hooks = NO_HOOKS
    clock: Clock = SYSTEM_CLOCK


class RunLoop:
    """One run in progress; used once.

    Every model reply and tool result is recorded in the journal of `context`. A run that starts again takes them
    from there and neither pays nor acts twice; a tool call that was in flight and is not repeatable ends it with
    `DecisionNeeded`.
    """

    def __init__(
        self,
        profile: Profile,
        tools: Sequence[Tool],
        context: RunContext,
        *,
        listen: Listener = silent,
        streaming: bool = False,
    ) -> None:
        self.run_id = new_id()
        self._profile = profile
        self._tools = {tool.spec.name: tool for tool in tools}
        self._specs: tuple[ToolSpec, ...] = tuple(tool.spec for tool in tools)
        self._context = context
        self._info = RunInfo(profile.agent, self.run_id, context.event)
        self._listen = listen
        self._streaming = streaming
        self._usage = Usage()
        self._cost_usd: float | None = None
        self._model = profile.model.name
        self._demo = False
        self._deadline: float | None = None
        self._reasks_left = profile.retries.attempts - 1

    async def run(self, messages: Sequence[Message]) -> RunResult:
        """Answer an exchange that ends with the user's message.

        Raises:
            RunError: The run failed; `LimitExceeded` names the key to raise. Its `cost_usd` is what was spent.
        """
        async with self._profile.hooks.listening(self._listen) as self._listen:
            with run_span(self._profile.agent, self._model, self.run_id, self._context.event) as span:
                return await self._run(messages, span)

    async def _run(self, messages: Sequence[Message], span: OpenSpan) -> RunResult:
        started = time.perf_counter()
        self._say("run_started", f"{self._profile.agent} started", model=self._model)
        timeout_s = self._profile.limits.timeout_s
        # A little before the run's own end, so that a model that is too slow is named instead of the run.
        self._deadline = self._profile.clock.monotonic() + timeout_s - min(0.1, timeout_s / 20)
        try:
            try:
                async with asyncio.timeout(timeout_s):
                    exchange, content, response = await self._turns(list(messages))
            except TimeoutError:
                raise LimitExceeded(
                    f"run of agent {self._profile.agent!r} took longer than {timeout_s:g} s: raise limits.timeout_s"
                ) from None
        except RunError as error:
            self._say("run_failed", str(error), error=type(error).__name__)
            raise
        result = RunResult(
            content=content,
            message=response.message,
            messages=tuple(exchange),
            usage=self._usage,
            model=self._model,
            agent=self._profile.agent,
            run_id=self.run_id,
            cost_usd=self._cost_usd,
            latency_s=time.perf_counter() - started,
            stop_reason=response.finish_reason,
            demo=self._demo,
            spans=run_completed(span, self._model, response.finish_reason),
        )
        self._say("run_completed", response.message.text, result=result, cost_usd=self._cost_usd)
        return result

    async def _turns(self, exchange: list[Message]) -> tuple[list[Message], Any, ModelResponse]:
        limits = self._profile.limits
        for iteration in range(limits.max_iterations):
            response, replayed = await self._reply(iteration, exchange)
            self._count(response)
            exchange.append(response.message)
            calls = response.message.tool_calls
            if not calls:
                try:
                    content = self._content(response)
                except OutputError as error:
                    if self._reasks_left <= 0:
                        raise
                    self._reasks_left -= 1
                    self._say("retry", f"answer does not match the output schema: {error}")
                    exchange.append(Message.user(f"{error}\nAnswer again, with the corrected JSON only."))
                    continue
                if not replayed:
                    await self._record(f"{iteration}:reply", "reply", response.to_dict())
                return exchange, content, response
            if not replayed:
                await self._record(f"{iteration}:reply", "reply", response.to_dict())
            self._usage += Usage(tool_calls=len(calls))
            check_limits(self._profile.agent, limits, self._usage, self._cost_usd)
            exchange.append(Message("tool", tuple(await self._call_all(iteration, calls))))
        raise LimitExceeded(
            f"agent {self._profile.agent!r} made {limits.max_iterations} model requests without a final answer: "
            "raise limits.max_iterations"
        )

    def _content(self, response: ModelResponse) -> Any:
        text = response.message.text
        return text if self._profile.output is None else self._profile.output.parse(text)

    # --- the model -------------------------------------------------------------------------------------------------

    async def _reply(self, iteration: int, exchange: list[Message]) -> tuple[ModelResponse, bool]:
        step = self._context.journal.recorded(f"{iteration}:reply")
        if step is not None:
            return ModelResponse.from_dict(step.data), True
        profile = self._profile
        request = ModelRequest(
            tuple(exchange),
            self._specs,
            profile.output.schema if profile.output else None,
            profile.settings,
            profile.request_timeout_s,
            profile.retries,
        )
        decided = await profile.hooks.before_model(request, self._info)
        if isinstance(decided, ModelResponse):
            response = decided
            if self._streaming:
                self._say("text_delta", response.message.text)
        else:
            response = await self._ask(iteration, decided)
        self._context.meter.add(response.usage, response.cost_usd)
        return await profile.hooks.after_model(response, self._info), False

    async def _ask(self, iteration: int, request: ModelRequest) -> ModelResponse:
        profile = self._profile
        if profile.rate is not None:
            await profile.rate.wait()
        self._say("model_request", f"request {iteration + 1} to {self._model}", iteration=iteration)
        try:
            if self._streaming:
                return await self._streamed(request)
            return await request_with_retries(
                profile.model,
                request,
                profile.retries,
                clock=profile.clock,
                deadline=self._deadline,
                on_retry=self._retried,
            )
        except ModelError as error:
            if self._deadline is None or profile.clock.monotonic() < self._deadline:
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
            deadline=self._deadline,
            on_retry=self._retried,
        ):
            if isinstance(part, TextDelta):
                self._say("text_delta", part.text)
            else:
                return part
        raise ModelError(f"the stream of {self._model} ended without an answer", retryable=True)

    def _retried(self, error: ModelError, wait_s: float) -> None:
        self._say("retry", f"{error}; next try in {wait_s:.1f} s", status=error.status, wait_s=wait_s)

    def _count(self, response: ModelResponse) -> None:
        self._usage += response.usage
        if response.cost_usd is not None:
            self._cost_usd = (self._cost_usd or 0.0) + response.cost_usd
        self._model = response.model or self._model
        self._demo = self._demo or response.demo
        # An answer that ends the run is given even when it passed a limit: it is paid for.
        if response.message.tool_calls:
            check_limits(self._profile.agent, self._profile.limits, self._usage, self._cost_usd)

    # --- tools -----------------------------------------------------------------------------------------------------

    async def _call_all(self, iteration: int, calls: Sequence[ToolCallPart]) -> list[ToolCallResponsePart]:
        keys = [f"{iteration}.{index}" for index in range(len(calls))]
        if not self._profile.parallel_tools or len(calls) == 1:
            return [await self._call(key, part) for key, part in zip(keys, calls, strict=True)]
        tasks: list[asyncio.Task[ToolCallResponsePart]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks.extend(group.create_task(self._call(key, part)) for key, part in zip(keys, calls, strict=True))
        except* RunError as errors:
            # Nothing but the end of the run is raised by a call, and one end is enough.
            raise _first(errors) from None
        return [task.result() for task in tasks]

    async def _call(self, key: str, call: ToolCallPart) -> ToolCallResponsePart:
        step = self._context.journal.recorded(f"{key}:result")
        if step is not None:
            return ToolCallResponsePart(call.id, call.name, step.data["response"], step.data["failed"])
        with tool_span(self._profile.agent, call.name, call.id, known=call.name in self._tools) as span:
            part = await self._answer(key, call)
            if part.failed:
                span.end(part.response)
        return part

    async def _answer(self, key: str, call: ToolCallPart) -> ToolCallResponsePart:
        tool = self._tools.get(call.name)
        self._say("tool_called", f"{call.name}({call.arguments_json()})", tool=call.name, call_id=call.id)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            part = ToolCallResponsePart(
                call.id, call.name, f"unknown tool {call.name!r}; known tools: {known}", failed=True
            )
        elif isinstance(call.arguments, str):
            part = ToolCallResponsePart(call.id, call.name, _malformed(call.arguments), failed=True)
        else:
            part = await self._guarded(key, call, tool)
        part = replace(part, response=shortened(part.response))
        await self._record(f"{key}:result", "result", {"response": part.response, "failed": part.failed})
        self._say("tool_failed" if part.failed else "tool_result", part.response, tool=call.name, call_id=call.id)
        return part

    async def _guarded(self, key: str, call: ToolCallPart, tool: Tool) -> ToolCallResponsePart:
        self._check_repeatable(key, call, tool)
        hooks = self._profile.hooks
        decided = await hooks.before_tool(call, self._info)
        if isinstance(decided, ToolCallResponsePart):
            return decided
        await self._mark(key, decided, tool)
        return await hooks.after_tool(await self._invoke(key, decided, tool), self._info)

    def _check_repeatable(self, key: str, call: ToolCallPart, tool: Tool) -> None:
        if not tool.repeatable and self._context.journal.recorded(f"{key}:call") is not None:
            raise DecisionNeeded(
                f"tool {call.name!r} was being called when the process ended, and it is not marked `idempotent: true`: "
                f"look whether it took effect, then `llmling events retry` calls it again and `drop` gives up. "
                f"Arguments: {call.arguments_json()[:500]}"
            )

    async def _mark(self, key: str, call: ToolCallPart, tool: Tool) -> None:
        if not tool.repeatable:
            step = Step(f"{key}:call", "call", {"tool": call.name, "arguments": call.arguments_json()})
            await self._context.journal.record(step, committed=True)

    async def _invoke(self, key: str, call: ToolCallPart, tool: Tool) -> ToolCallResponsePart:
        arguments: Mapping[str, Any] = {} if isinstance(call.arguments, str) else call.arguments
        token = current_run.set(self._context.within(self._profile.agent, f"{key}/"))
        try:
            return ToolCallResponsePart(call.id, call.name, _text(await tool.call(arguments)))
        except ToolError as error:
            return ToolCallResponsePart(call.id, call.name, str(error), failed=True)
        except DecisionNeeded:
            raise
        except Exception as error:  # the border to what users wrote: the model sees every failure
            logger.warning("tool %r of agent %r failed", call.name, self._profile.agent, exc_info=True)
            return ToolCallResponsePart(call.id, call.name, f"{type(error).__name__}: {error}", failed=True)
        finally:
            current_run.reset(token)

    # --- telling ---------------------------------------------------------------------------------------------------

    async def _record(self, key: str, kind: Any, data: Mapping[str, Any]) -> None:
        await self._context.journal.record(Step(key, kind, data))

    def _say(self, type_: RunEventType, message: str, *, result: RunResult | None = None, **data: Any) -> None:
        if self._listen is not silent:
            self._listen(RunEvent(type_, self.run_id, self._profile.agent, message, data, result))


def _text(response: Any) -> str:
    if not isinstance(response, str):
        raise TypeError(f"`call` of a tool should return text, not {type(response).__name__}")
    return response


def _malformed(arguments: str) -> str:
    try:
        json.loads(arguments)
    except ValueError as error:
        return f"the arguments are not valid JSON ({error}): send one JSON object"
    return "the arguments are not a JSON object: send one JSON object"


def _first(group: BaseExceptionGroup[RunError]) -> RunError:
    error = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
