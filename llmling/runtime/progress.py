"""A run as far as it has come: what it used, how long it may still take, and who hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmling.events import new_id
from llmling.messages import NOTHING, RunResult, Usage
from llmling.protocols import ModelResponse, RunInfo, Step
from llmling.runtime.context import NO_JOURNAL, RunContext
from llmling.runtime.limits import check_limits
from llmling.runtime.profile import Profile
from llmling.runtime.stream import Listener, RunEvent, RunEventType, completed, silent

# What replies and results say already when they are read as a trace.
_IN_STEPS: frozenset[RunEventType] = frozenset(
    {"model_request", "text_delta", "tool_called", "tool_result", "tool_failed"}
)


class Progress:
    """Adds up one run, tells its listener and notes it in its journal; the parts of the run share it."""

    def __init__(self, profile: Profile, context: RunContext, listen: Listener = silent) -> None:
        self.run_id = new_id()
        self.info = RunInfo(profile.agent, self.run_id, context.event)
        self.listen = listen
        self.usage = NOTHING
        self.cost_usd: float | None = None
        self.model = profile.model.name
        self.demo = False
        self.deadline: float | None = None
        self._profile = profile
        self._spent = context.spent
        self._calls = 0
        # A run notes only what its steps do not tell: most runs of an event are told by their replies alone.
        self.answered = False
        self._context = context
        self._begun: Mapping[str, Any] | None = None
        self._noted = 0

    def count(self, response: ModelResponse) -> None:
        """Add one model reply, also one that was made before a restart."""
        self.add(response.usage, response.cost_usd)
        self.model = response.model or self.model
        self.demo = self.demo or response.demo

    def called(self, count: int) -> None:
        """Add the tool calls of one reply.

        Raises:
            LimitExceeded: A limit is passed.
        """
        self._calls += count
        self.add(Usage(tool_calls=count), None)
        self.check()

    def add(self, usage: Usage, cost_usd: float | None) -> None:
        """Add what was used, by the run itself or by an agent that one of its tools asked."""
        self.usage += usage
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
        self._spent.add(usage, cost_usd)

    def check(self) -> None:
        """Compare what was used with the limits; tool calls of agents that were asked have limits of their own.

        Raises:
            LimitExceeded: A limit is passed; the message names the key to raise.
        """
        used = self.usage
        usage = Usage(used.input_tokens, used.output_tokens, used.requests, self._calls)
        check_limits(self._profile.agent, self._profile.limits, usage, self.cost_usd)

    @property
    def told(self) -> bool:
        """Whether somebody listens."""
        return self.listen is not silent

    def say(self, type_: RunEventType, message: str, **data: Any) -> None:
        """Tell the listener, when there is one, and the journal what its steps do not tell."""
        noted = self._context.journal is not NO_JOURNAL and type_ not in _IN_STEPS
        if not noted and self.listen is silent:
            return
        agent, clock = self._profile.agent, self._profile.clock
        if noted:
            # As `RunEvent.as_data` has it, without an event that nobody hears of.
            said = {
                "type": type_,
                "agent": agent,
                "message": message,
                "data": data,
                "run": self.run_id,
                "time": clock.unix(),
            }
            self._note(said, begins=type_ == "run_started")
        if self.listen is not silent:
            self.listen(RunEvent(type_, self.run_id, agent, message, data, time=clock.now()))

    def piece(self, text: str) -> None:
        """Tell the listener a piece of the answer, as `say` would: there are thousands."""
        if self.listen is not silent:
            profile = self._profile
            self.listen(RunEvent("text_delta", self.run_id, profile.agent, text, {}, None, profile.clock.now()))

    def completed(self, result: RunResult) -> None:
        """Tell listener and journal how the run ended."""
        noted = self._context.journal is not NO_JOURNAL and not self.answered
        if not noted and self.listen is silent:
            return
        event = replace(completed(self.run_id, self._profile.agent, result), time=self._profile.clock.now())
        if noted:
            # The answer itself is the last reply.
            self._note({**event.as_data(), "message": ""})
        self.listen(event)

    def stamp(self) -> dict[str, Any]:
        """Return which run records a step, and when; the first step of a run also carries how it began."""
        stamp: dict[str, Any] = {"run": self.run_id, "time": self._profile.clock.unix()}
        if self._begun is not None:
            stamp["began"] = self._begun
            self._begun = None
        return stamp

    def _note(self, event: Mapping[str, Any], *, begins: bool = False) -> None:
        if begins:
            # Goes with the first step of the run.
            self._begun = event
            return
        for said in (self._begun, event):
            if said is not None:
                self._context.journal.note(Step(f"{self.run_id}:{self._noted}", "event", said))
                self._noted += 1
        self._begun = None
