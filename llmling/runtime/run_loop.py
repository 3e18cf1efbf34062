"""One run: ask the model, call the tools it wants, and so on until it answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmling.errors import LimitExceeded, ModelError, NotAsked, OutputError
from llmling.messages import Message, RunResult, TextPart
from llmling.protocols import ModelResponse, Tool, ToolSpec
from llmling.runtime.asking import Asking
from llmling.runtime.calling import Calling
from llmling.runtime.context import NO_JOURNAL, RunContext
from llmling.runtime.deadline import Limit
from llmling.runtime.gate import Pass, current_pass
from llmling.runtime.hooks import NO_HOOKS
from llmling.runtime.planning import Planning
from llmling.runtime.profile import Profile
from llmling.runtime.progress import Progress
from llmling.runtime.scope import current_event
from llmling.runtime.spans import run_completed, run_span
from llmling.runtime.stream import Listener, ended, silent
from llmling.runtime.tracing import OpenSpan
from llmling.runtime.window import Window

_LAST_TURN = (
    "You have used all your turns with tools, and no tool can be called any more. "
    "Answer now, from what you have, and say what is missing."
)


class RunLoop:
    """One run in progress; used once.

    Every model reply and tool result is recorded in the journal of `context`. A run that starts again takes them
    from there and neither pays nor acts twice; a tool call that was in flight and is not repeatable ends it with
    `DecisionNeeded`, one that needs a person's yes, or a question to a person, with `Asked`.
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
        self._profile = profile
        self._context = context
        self._progress = Progress(profile, context, listen)
        self._specs: tuple[ToolSpec, ...] = tuple([tool.spec for tool in tools])
        self._asking = Asking(profile, context, self._progress, streaming=streaming)
        self._tools = tools
        self._calling: Calling | None = None
        self._reasks_left = profile.retries.attempts - 1
        self._recording = context.journal is not NO_JOURNAL

    async def run(self, messages: Sequence[Message]) -> RunResult:
        """Answer an exchange that ends with the user's message.

        Raises:
            RunError: The run failed; `LimitExceeded` names the key to raise. Its `cost_usd` is what was spent.
        """
        progress, gate, event = self._progress, self._profile.gate, self._context.event
        window = Window(self._profile, self._context, progress, self._asking, len(messages) - 1)
        event_token = current_event.set(event)
        # Also without a gate: that of a run around this one, whose tool this agent is, must not count it.
        pass_token = current_pass.set(None if gate is None else Pass(gate, event))
        try:
            if self._profile.hooks is NO_HOOKS:
                with run_span(self._profile.agent, progress.model, progress.run_id, event) as span:
                    return await self._run(messages, window, span)
            async with self._profile.hooks.listening(progress.listen) as progress.listen:
                with run_span(self._profile.agent, progress.model, progress.run_id, event) as span:
                    return await self._run(messages, window, span)
        finally:
            current_pass.reset(pass_token)
            current_event.reset(event_token)

    async def _run(self, messages: Sequence[Message], window: Window, span: OpenSpan) -> RunResult:
        progress = self._progress
        started = time.perf_counter()
        session = self._context.session
        progress.say("run_started", f"{self._profile.agent} started", model=progress.model, session=session)
        timeout_s = self._profile.limits.timeout_s
        # A little before the run's own end, so that a model that is too slow is named instead of the run.
        progress.deadline = self._profile.clock.monotonic() + timeout_s - min(0.1, timeout_s / 20)
        try:
            try:
                with Limit(timeout_s):
                    exchange, content, response = await self._turns(list(messages), window)
            except TimeoutError:
                if (passing := current_pass.get()) is not None and passing.late is not None:
                    raise passing.late from None
                raise LimitExceeded(
                    f"run of agent {self._profile.agent!r} took longer than {timeout_s:g} s: raise limits.timeout_s"
                ) from None
        except BaseException as error:
            # Also of a cancelled run somebody may read later how it ended.
            progress.say(*ended(error), error=type(error).__name__)
            raise
        result = RunResult(
            content=content,
            message=response.message,
            messages=tuple(exchange),
            usage=progress.usage,
            model=progress.model,
            agent=self._profile.agent,
            run_id=progress.run_id,
            cost_usd=progress.cost_usd,
            latency_s=time.perf_counter() - started,
            stop_reason=response.finish_reason,
            demo=progress.demo,
            spans=run_completed(span, progress.model, response.finish_reason),
        )
        progress.completed(result)
        return result

    async def _turns(self, exchange: list[Message], window: Window) -> tuple[list[Message], Any, ModelResponse]:
        profile = self._profile
        planning = Planning(profile, self._context, self._progress, window) if profile.plan_every else None
        for iteration in range(profile.limits.max_iterations):
            if planning is not None:
                await planning.before(iteration, exchange, self._specs)
            response, replayed = await window.reply(iteration, "reply", exchange, self._specs)
            exchange.append(response.message)
            calls = response.message.tool_calls
            if not calls:
                try:
                    content = self._content(response)
                except OutputError as error:
                    self._reask(error, exchange)
                    if not replayed and self._recording:
                        await self._asking.reject(f"{iteration}:reply", response)
                    continue
            else:
                content = None
            if not replayed and self._recording:
                facts = {"origins": self._called().origins(calls)} if calls else {}
                await self._asking.record(f"{iteration}:reply", response, **facts)
            if not calls:
                # An answer that ends the run is given even when it passed a limit: it is paid for.
                return exchange, content, response
            self._progress.called(len(calls))
            exchange.append(Message("tool", tuple(await self._called().call_all(iteration, calls))))
            # Other agents may have been asked, at this run's expense.
            self._progress.check()
        return await self._last_turn(exchange, window)

    def _called(self) -> Calling:
        # Most runs call no tool.
        if self._calling is None:
            self._calling = Calling(self._profile, self._context, self._progress, self._tools)
        return self._calling

    def _reask(self, error: OutputError, exchange: list[Message]) -> None:
        if self._reasks_left <= 0:
            raise error
        self._reasks_left -= 1
        self._progress.say("retry", f"answer does not match the output schema: {error}")
        exchange.append(Message.user(f"{error}\nAnswer again, with the corrected JSON only."))

    async def _last_turn(self, exchange: list[Message], window: Window) -> tuple[list[Message], Any, ModelResponse]:
        turns = self._profile.limits.max_iterations
        try:
            response, replayed = await window.reply(turns, "final", exchange, ask=_LAST_TURN)
            content = self._last_content(response)
        except (ModelError, OutputError) as error:
            if isinstance(error, NotAsked) or (isinstance(error, ModelError) and error.retryable):
                raise
            raise LimitExceeded(
                f"agent {self._profile.agent!r} made {turns} model requests without a final answer, and one more "
                f"without tools gave none ({error}): raise limits.max_iterations"
            ) from error
        if response.message.tool_calls:
            # Calls of tools that are not on offer get no results; in a history they would be orphans.
            response = replace(response, message=replace(response.message, parts=(TextPart(response.message.text),)))
        if not replayed and self._recording:
            await self._asking.record(f"{turns}:final", response)
        exchange.append(response.message)
        return exchange, content, replace(response, finish_reason="max_iterations")

    def _last_content(self, response: ModelResponse) -> Any:
        if not response.message.text.strip():
            raise OutputError("it is empty")
        return self._content(response)

    def _content(self, response: ModelResponse) -> Any:
        text = response.message.text
        return text if self._profile.output is None else self._profile.output.parse(text)
