"""Why a delivery waits for a person, and the commands that answer."""

from __future__ import annotations

from collections.abc import Sequence

from llmling.asks import Ask, ask_of, decision_key, open_asks
from llmling.errors import Asked, DecisionNeeded
from llmling.masking import environment_secrets, masked
from llmling.protocols import Recorder, Step
from llmling.runtime.limits import clipped

LONGEST_QUESTION = 500
"""Most characters of a question in a reason; `events show` has the whole."""


class AskedJournal:
    """The journal of a delivery that notes what this attempt came to ask, however deep inside."""

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

    async def record(self, step: Step, *, committed: bool = False) -> None:
        """Record a step."""
        if step.kind == "asked":
            self._steps[step.key] = step
        await self._journal.record(step, committed=committed)

    def note(self, step: Step) -> None:
        """Record a step, soon."""
        self._journal.note(step)


def waiting_reason(asks: Sequence[Ask], error: DecisionNeeded, event_id: str) -> str:
    """Return what is asked, or what has to be decided otherwise, and how to answer."""
    calls = [ask for ask in asks if ask.tool is not None]
    questions = [ask for ask in asks if ask.tool is None]
    lines = [] if isinstance(error, Asked) and asks else [str(error)]
    if calls:
        wanted = "; ".join(ask.reason() for ask in calls)
        lines.append(f"{wanted} (llmling events approve FILE {event_id}, or deny FILE {event_id} --reason TEXT)")
    for number, ask in enumerate(questions):
        how = f"llmling events answer FILE {event_id} TEXT" if number == 0 else "after the one before"
        question = clipped(masked(ask.reason(), environment_secrets()), LONGEST_QUESTION)
        lines.append(f"{question} ({how})")
    return "\n".join(lines)
