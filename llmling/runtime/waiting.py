"""Why a delivery waits for a person, and the commands that answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

from llmling.asks import Ask, ask_of, decision_key, open_asks
from llmling.errors import Asked, DecisionNeeded
from llmling.masking import masked
from llmling.protocols import Recorder, Step
from llmling.runtime.limits import clipped
from llmling.runtime.services import no_url
from llmling.shapes import wanted

LONGEST_QUESTION = 500
"""Most characters of a question in a reason; `events show` has the whole."""


class AskedJournal:
    """The journal of a delivery that notes what this attempt came to ask, however deep inside."""

    __slots__ = ("_journal", "_steps")

    def __init__(self, journal: Recorder) -> None:
        self._journal = journal
        self._steps: dict[str, Step] = {}

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What was asked and is not decided."""
        keys = [ask_of(step).key for step in self._steps.values()]
        decisions = [step for key in keys if (step := self.recorded(decision_key(key))) is not None]
        return open_asks((*self._steps.values(), *decisions))

    def recorded(self, key: str) -> Step | None:
        """Return the step of an earlier or this attempt, or None."""
        step = self._journal.recorded(key)
        if step is not None and step.kind == "asked":
            self._steps[key] = step
        return step

    def record(self, step: Step, *, committed: bool = False) -> CoroutineType[Any, Any, None]:
        """Record a step."""
        if step.kind == "asked":
            self._steps[step.key] = step
        return self._journal.record(step, committed=committed)

    def note(self, step: Step) -> None:
        """Record a step, soon."""
        self._journal.note(step)

    async def flush(self) -> None:
        """Return when everything recorded is on disk."""
        await self._journal.flush()


@dataclass(frozen=True, slots=True)
class Counter:
    """Where people answer: by commands on the manifest `file`, or, for events that only this process has, elsewhere.

    `url(event_id)` is the address of an event then, None when there is no server.
    """

    file: str = "FILE"
    alone: bool = False
    url: Callable[[str], str | None] = no_url

    def approve(self, event_id: str) -> str:
        """Return how to say yes or no."""
        if not self.alone:
            place = f"{self.file} {event_id}"
            return f"llmling events approve {place}, or deny {place} --reason TEXT"
        url = self.url(event_id)
        return f"POST {url}/approve, or {url}/deny" if url else "AgentPool.decide in Python"

    def answer(self, event_id: str) -> str:
        """Return how to answer."""
        if not self.alone:
            return f"llmling events answer {self.file} {event_id} TEXT"
        url = self.url(event_id)
        return f'POST {url}/answer {{"text": TEXT}}' if url else "AgentPool.decide in Python"


def waiting_reason(asks: Sequence[Ask], error: DecisionNeeded, event_id: str, counter: Counter) -> str:
    """Return what is asked, or what has to be decided otherwise, and how to answer."""
    calls = [ask for ask in asks if ask.tool is not None]
    questions = [ask for ask in asks if ask.tool is None]
    lines = [] if isinstance(error, Asked) and asks else [str(error)]
    if calls:
        wanted_calls = "; ".join(ask.reason() for ask in calls)
        lines.append(f"{wanted_calls} ({counter.approve(event_id)})")
    for number, ask in enumerate(questions):
        how = counter.answer(event_id) if number == 0 else "after the one before"
        question = clipped(masked(ask.reason()), LONGEST_QUESTION)
        shape = wanted(ask.output_schema)
        lines.append(f"{question} ({how}{f', {shape}' if shape else ''})")
    return "\n".join(lines)
