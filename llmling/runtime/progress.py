"""A run as far as it has come: what it used, how long it may still take, and who hears of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmling.events import new_id
from llmling.messages import RunResult, Usage
from llmling.protocols import ModelResponse, RunInfo
from llmling.runtime.context import RunContext
from llmling.runtime.limits import check_limits
from llmling.runtime.profile import Profile
from llmling.runtime.stream import Listener, RunEvent, RunEventType, completed, silent


class Progress:
    """Adds up one run and tells its listener; the parts of the run share it."""

    def __init__(self, profile: Profile, context: RunContext, listen: Listener = silent) -> None:
        self.run_id = new_id()
        self.info = RunInfo(profile.agent, self.run_id, context.event)
        self.listen = listen
        self.usage = Usage()
        self.cost_usd: float | None = None
        self.model = profile.model.name
        self.demo = False
        self.deadline: float | None = None
        self._profile = profile
        self._spent = context.spent
        self._calls = 0

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
        usage = replace(self.usage, tool_calls=self._calls)
        check_limits(self._profile.agent, self._profile.limits, usage, self.cost_usd)

    def say(self, type_: RunEventType, message: str, **data: Any) -> None:
        """Tell the listener, when there is one."""
        if self.listen is not silent:
            self.listen(RunEvent(type_, self.run_id, self._profile.agent, message, data))

    def completed(self, result: RunResult) -> None:
        """Tell the listener how the run ended."""
        if self.listen is not silent:
            self.listen(completed(self.run_id, self._profile.agent, result))
