"""The context window of a run: each request holds as much of the exchange as fits, the exchange itself stays whole."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Literal

from llmling.errors import LimitExceeded, ModelError
from llmling.messages import Message
from llmling.protocols import ModelResponse, Step, ToolSpec
from llmling.runtime.asking import Asking, Purpose
from llmling.runtime.compaction import Compaction, Fitting, Layout, Sizes, counted
from llmling.runtime.context import NO_JOURNAL, RunContext
from llmling.runtime.gauge import Gauge, raw, raw_offer
from llmling.runtime.profile import Profile
from llmling.runtime.progress import Progress
from llmling.runtime.summaries import summary_prompt

_COMPACT_AT = 0.75
_SUMMARY_SHARE = 0.2
_LEAST_SUMMARY = 50.0
_PLAN_SHARE = 0.125
_NOTHING = Compaction()


class Window:
    """Asks the model of one run; what no longer fits, or what the provider finds too long, is left out.

    What was left out is recorded, so that a run that starts again shows the model the same. `plan` stands behind the
    question of every request. `question` is the place of the user's message in the exchange.
    """

    def __init__(
        self, profile: Profile, context: RunContext, progress: Progress, asking: Asking, question: int
    ) -> None:
        self._profile = profile
        self._config = profile.window
        self._journal = context.journal
        self._progress = progress
        self._asking = asking
        self._question = question
        self._left = _NOTHING
        self.plan = ""

    @functools.cached_property
    def _gauge(self) -> Gauge:
        # Most runs fit and never ask by how much.
        return Gauge()

    async def reply(
        self,
        iteration: int,
        purpose: Purpose,
        exchange: Sequence[Message],
        tools: tuple[ToolSpec, ...] = (),
        *,
        ask: str = "",
    ) -> tuple[ModelResponse, bool]:
        """Return the next reply to the exchange, followed by `ask`, and whether it comes from the journal.

        Raises:
            LimitExceeded: What cannot be left out is more than the window.
            ModelError: The model gave none; a request found too long was made smaller and asked again once.
        """
        request = _Request(exchange, self._question, iteration, purpose, tools, ask)
        refused = False
        if self._journal is not NO_JOURNAL:
            refused = await self._taken_up(request)
        elif self._config is not None:
            await self._fit(request)
        try:
            return await self._ask(request)
        except ModelError as error:
            if not error.too_long or refused or not await self._refused(request):
                raise
        return await self._ask(request)

    def _ask(self, request: _Request) -> Awaitable[tuple[ModelResponse, bool]]:
        if self._left is _NOTHING and not self.plan:
            messages = list(request.exchange)
        else:
            messages = request.layout.messages(self._left, self._notes(request.layout))
        if request.ask:
            messages.append(Message.user(request.ask))
        if self._config is None:
            return self._asking.reply(request.iteration, request.purpose, messages, request.tools)
        return self._measured(request, messages)

    async def _measured(self, request: _Request, messages: list[Message]) -> tuple[ModelResponse, bool]:
        response, replayed = await self._asking.reply(request.iteration, request.purpose, messages, request.tools)
        estimate = sum(map(raw, messages)) + raw_offer(request.tools, self._schema)
        self._gauge.observe(response.usage.input_tokens, estimate, len(request.exchange))
        return response, replayed

    async def _taken_up(self, request: _Request) -> bool:
        """Leave out what the journal says, or what must be; return whether the provider had found it too long."""
        fitted = self._take_up(f"{request.key}:fit")
        refused = self._take_up(f"{request.key}:too_long")
        if not (fitted or refused or self._journal.recorded(request.key)):
            await self._fit(request)
        return refused

    def _take_up(self, key: str) -> bool:
        step = self._journal.recorded(key)
        if step is not None:
            self._left = Compaction.from_dict(step.data)
        return step is not None

    # --- making it fit -----------------------------------------------------------------------------------------------

    async def _fit(self, request: _Request) -> None:
        if self._config is None:
            return
        fitting = self._fitting(request)
        bounds = Sizes.of(self._config.window_tokens, self._config.compact_at, fitting.floor)
        if fitting.size(self._left) > bounds.limit:
            await self._compact(request, fitting, bounds, "fit")
        size = fitting.size(self._left)
        if size > bounds.most:
            raise LimitExceeded(
                f"agent {self._profile.agent!r}: the message with its instructions, knowledge and tools takes about "
                f"{size:,.0f} tokens, the window has {self._config.window_tokens:,}: raise context.window_tokens"
            )

    async def _refused(self, request: _Request) -> bool:
        fitting = self._fitting(request)
        share = _COMPACT_AT if self._config is None else self._config.compact_at
        # The provider's word counts more than the estimate: the window is smaller than what was just sent.
        most = fitting.size(self._left)
        return await self._compact(request, fitting, Sizes.of(most, min(share, _COMPACT_AT), fitting.floor), "too_long")

    def _fitting(self, request: _Request) -> Fitting:
        beside = f"{self._notes_of_plan()}{request.ask}"
        offer = self._gauge.offer(request.tools, self._schema)
        return Fitting(request.layout, self._gauge, offer + self._gauge.text(beside))

    async def _compact(
        self, request: _Request, fitting: Fitting, bounds: Sizes, reason: Literal["fit", "too_long"]
    ) -> bool:
        layout, before = request.layout, self._left
        summarised = False
        if self._config is None or self._config.strategy == "shorten":
            left = fitting.fit(before, bounds, cut_first=True)
        else:
            known = self._profile.summaries.of(layout) if before == Compaction() else before
            left = known if fitting.size(known) <= bounds.limit else fitting.fit(known, bounds, cut_first=False)
            if gone := layout.gone(known, left):
                key = f"{request.key}:{reason}:summary"
                left, summarised = await self._summed_up(request, key, gone, left, (fitting, bounds))
                self._profile.summaries.keep(layout, left)
        if left == before:
            return False
        await self._journal.record(Step(f"{request.key}:{reason}", "compacted", left.to_dict()))
        self._left = left
        self._tell(request, before, fitting, "window" if reason == "fit" else reason, summarised)
        return True

    async def _summed_up(
        self, request: _Request, key: str, gone: Sequence[Message], left: Compaction, sizes: tuple[Fitting, Sizes]
    ) -> tuple[Compaction, bool]:
        fitting, bounds = sizes
        room = min(bounds.target * _SUMMARY_SHARE, (bounds.most - fitting.size(replace(left, summary=""))) / 2)
        if room < _LEAST_SUMMARY:
            return replace(left, summary=self._gauge.clip(left.summary, room)), False
        prompt = summary_prompt(gone, left.summary, room=room, most=bounds.limit, gauge=self._gauge)
        response, _ = await self._asking.reply(request.iteration, "summary", [Message.user(prompt)], key=key)
        said = response.message.text.strip() or left.summary
        return replace(left, summary=self._gauge.clip(said, room)), True

    def _tell(self, request: _Request, before: Compaction, fitting: Fitting, reason: str, summarised: bool) -> None:
        left = self._left
        cut = sum(request.layout.results(index) for index, kept in left.cut.items() if before.cut.get(index) != kept)
        turns, groups = left.turns - before.turns, left.groups - before.groups
        size_before, size_after = round(fitting.size(before)), round(fitting.size(left))
        what = [
            *([counted(cut, "tool result", "cut")] if cut else []),
            *([counted(turns, "turn", "left out")] if turns else []),
            *([counted(groups, "call group", "left out")] if groups else []),
            *(["summed up"] if left.summary else []),
        ]
        self._progress.say(
            "compacted",
            f"from about {size_before:,} to {size_after:,} tokens: {', '.join(what)}",
            reason=reason,
            before_tokens=size_before,
            after_tokens=size_after,
            cut_results=cut,
            dropped_turns=turns,
            dropped_groups=groups,
            summarised=summarised,
        )

    # --- notes -------------------------------------------------------------------------------------------------------

    def _notes(self, layout: Layout) -> str:
        return "\n\n".join(note for note in (layout.note(self._left), self._notes_of_plan()) if note)

    def _notes_of_plan(self) -> str:
        if not self.plan:
            return ""
        room = float("inf") if self._config is None else self._config.window_tokens * _PLAN_SHARE
        plan = self.plan if room == float("inf") else self._gauge.clip(self.plan, room)
        return f"[Your plan so far:\n{plan}]"

    @property
    def _schema(self) -> object:
        return self._profile.output.schema if self._profile.output else None


class _Request:
    """A request about to be made."""

    def __init__(
        self,
        exchange: Sequence[Message],
        question: int,
        iteration: int,
        purpose: Purpose,
        tools: tuple[ToolSpec, ...],
        ask: str,
    ) -> None:
        self.exchange = exchange
        self._question = question
        self.iteration = iteration
        self.purpose: Purpose = purpose
        self.tools = tools
        self.ask = ask
        self.key = f"{iteration}:{purpose}"

    @functools.cached_property
    def layout(self) -> Layout:
        """What belongs together; most requests show all of it and need not know."""
        return Layout(self.exchange, self._question)
