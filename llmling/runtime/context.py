"""What surrounds one run: its event, its journal, what it has spent, and how deep it is nested."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from llmling.events import Event
from llmling.frozen import frozen
from llmling.messages import NOTHING, Message, Usage
from llmling.protocols import Recorder, Step
from llmling.runtime.stream import Listener, silent


class NoJournal:
    """The journal of runs that no engine keeps: it remembers nothing."""

    def recorded(self, key: str) -> Step | None:
        """Return None: nothing was recorded."""
        return None

    async def record(self, step: Step, *, committed: bool = False) -> None:
        """Forget the step."""

    def note(self, step: Step) -> None:
        """Forget the step."""

    async def flush(self) -> None:
        """Return: there is nothing to write."""


class ScopedJournal:
    """A part of a journal for a run inside a run: every key gets a prefix."""

    __slots__ = ("_prefix", "journal")

    def __init__(self, journal: Recorder, prefix: str) -> None:
        self.journal = journal
        self._prefix = prefix

    def recorded(self, key: str) -> Step | None:
        """Return the step recorded under the prefixed key."""
        return self.journal.recorded(self._prefix + key)

    async def record(self, step: Step, *, committed: bool = False) -> None:
        """Record the step under the prefixed key."""
        await self.journal.record(Step(self._prefix + step.key, step.kind, step.data), committed=committed)

    def note(self, step: Step) -> None:
        """Record the step under the prefixed key, soon."""
        self.journal.note(Step(self._prefix + step.key, step.kind, step.data))

    async def flush(self) -> None:
        """Return when everything recorded is on disk."""
        await self.journal.flush()


NO_JOURNAL = NoJournal()


def session_id(given: Any) -> str:
    """Return the id of a session as it was given.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty.
    """
    if not isinstance(given, str):
        raise TypeError(f"session should be a text, not {type(given).__name__}")
    if not given.strip():
        raise ValueError("the id of a session is empty: pass what tells its conversation from others")
    return given


@dataclass(slots=True)
class Meter:
    """What was spent, here and, through `outer`, around here.

    `asked` counts the requests to providers, failed ones too.
    """

    usage: Usage = NOTHING
    cost_usd: float | None = None
    asked: int = 0
    outer: Meter | None = None

    def add(self, usage: Usage, cost_usd: float | None) -> None:
        """Count one request, here and for every run around this one."""
        self.usage += usage
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
        if self.outer is not None:
            self.outer.add(usage, cost_usd)

    def count(self, requests: int) -> None:
        """Count requests to a provider, answered or not, here and for every run around this one."""
        self.asked += requests
        if self.outer is not None:
            self.outer.count(requests)


@dataclass(slots=True)
class Tally:
    """How many messages teams made of lists, over all runs of one delivery."""

    count: int = 0


@frozen
class RunContext:
    """The surroundings of one run.

    `meter` counts the requests that were really made, `spent` also those that were taken from the journal: what the
    answer has cost, however often the process died on the way. `agents` are the agents around this run, outermost
    first; it bounds agents that use each other as tools, as `mapped` bounds lists of lists. `listen` hears the
    events, pieces of text only when `streaming`. `session` is the id of the conversation it goes on with, None
    leaves it to the agent's `session:`. `key` names the run, the same on every attempt; empty: it has only one.
    """

    event: Event
    journal: Recorder = NO_JOURNAL
    meter: Meter = field(default_factory=Meter)
    history: tuple[Message, ...] = ()
    agents: tuple[str, ...] = ()
    spent: Meter = field(default_factory=Meter)
    mapped: Tally = field(default_factory=Tally)
    listen: Listener = silent
    streaming: bool = False
    session: str | None = None
    key: str = ""

    @property
    def kept(self) -> bool:
        """Whether an engine keeps this run, so that it can wait for a person."""
        journal = self.journal
        while isinstance(journal, ScopedJournal):
            journal = journal.journal
        return not isinstance(journal, NoJournal)

    def within(self, agent: str, prefix: str) -> RunContext:
        """Return the surroundings of a run that a tool of this one starts: a history and a stream of its own."""
        journal, meter = ScopedJournal(self.journal, prefix), Meter(outer=self.meter)
        key = self._key(prefix)
        return RunContext(self.event, journal, meter, agents=(*self.agents, agent), mapped=self.mapped, key=key)

    def part(self, prefix: str) -> RunContext:
        """Return the surroundings of a run that is a part of this one: same history, same stream."""
        spent = Meter(outer=self.spent)
        return replace(self, journal=ScopedJournal(self.journal, prefix), spent=spent, key=self._key(prefix))

    def _key(self, prefix: str) -> str:
        return self.key and f"{self.key}/{prefix}"


current_run: ContextVar[RunContext | None] = ContextVar("llmling_run", default=None)
"""The run whose tool is being called; tools that are agents run inside it."""
