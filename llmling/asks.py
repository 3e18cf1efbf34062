"""What a waiting run asks a person, and what a person says to it: the two ends of one pair of steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias, TypedDict

from llmling.masking import known_secrets, masked
from llmling.messages import ToolCallPart
from llmling.records import EventRecord, RunInfo, Step

Approve: TypeAlias = Callable[[ToolCallPart, RunInfo], "bool | str | Awaitable[bool | str]"]
"""Asks whoever attends a run for leave to make a call: True, False, or the reason of a no."""


class Question(str):
    """The text a person is asked, with what the agent was told besides and the JSON Schema the answer has to match."""

    __slots__ = ("about", "output_schema")

    about: str
    output_schema: Mapping[str, Any] | None

    def __new__(cls, text: str, about: str = "", output_schema: Mapping[str, Any] | None = None) -> Self:
        """Build one; alone the text is a question without surroundings."""
        self = super().__new__(cls, text)
        self.about, self.output_schema = about, output_schema
        return self


AskPerson: TypeAlias = Callable[[Question, RunInfo], "str | Awaitable[str]"]
"""Asks whoever attends a run a question and returns the answer."""


class Attending(TypedDict, total=False):
    """Whoever attends runs that no engine keeps; both may be async."""

    approve: Approve
    """Is asked for tool calls that need approval."""
    ask: AskPerson
    """Answers for `model: human`."""


def check_attending(given: Mapping[str, Any]) -> None:
    """Check that whoever attends can be called.

    Raises:
        TypeError: Something else was given.
    """
    for name, example in (("approve", "approve(call, run)"), ("ask", "ask(question, run)")):
        value = given.get(name)
        if value is not None and not callable(value):
            raise TypeError(f"{name} should be a callable such as {example}, not {type(value).__name__}")


_ASKED, _DECISION = ":asked", ":decision"
_SETTLED = (_DECISION, ":result", ":reply")


@dataclass(frozen=True, slots=True)
class Ask:
    """Leave to call a tool or, without a `tool`, a question of the agent `agent`.

    `text` is the call with its arguments, secrets masked and cut for people to read, or the whole question; `about`
    is what the agent was told besides. `output_schema` is the JSON Schema the answer has to match. `key` is the place
    in the run.
    """

    key: str
    agent: str
    text: str
    tool: str | None = None
    about: str = ""
    output_schema: Mapping[str, Any] | None = None

    def step(self) -> Step:
        """Return the step that records it."""
        data = {
            "agent": self.agent,
            "text": self.text,
            "tool": self.tool,
            "about": self.about,
            "output_schema": self.output_schema,
        }
        return Step(ask_key(self.key), "asked", data)

    def reason(self) -> str:
        """Return it in one sentence."""
        if self.tool is not None:
            return f"{self.text} needs approval, agent {self.agent!r}"
        return f"question to {self.agent!r}: {self.text}"


@dataclass(frozen=True, slots=True)
class Decision:
    """A yes or no to tool calls, or the `answer` to a question; `reason` is what the model reads after a no."""

    approved: bool = True
    reason: str = ""
    answer: str | None = None

    def settles(self, asks: Sequence[Ask]) -> tuple[Ask, ...]:
        """Return which of the open asks of one delivery it settles: every call, or the first question."""
        if self.answer is None:
            return tuple(ask for ask in asks if ask.tool is not None)
        return tuple(ask for ask in asks if ask.tool is None)[:1]

    def step(self, key: str) -> Step:
        """Return the step that records it as said to the ask `key`."""
        return Step(decision_key(key), "decision", asdict(self))


def place(delivery_id: str, ask: Ask) -> str:
    """Return what tells this ask from every other one of its event."""
    return f"{delivery_id} {ask.key}"


def ask_key(key: str) -> str:
    """Return the key of the step that records an ask."""
    return key + _ASKED


def decision_key(key: str) -> str:
    """Return the key of the step that records what was said to an ask."""
    return key + _DECISION


def decision_of(step: Step) -> Decision:
    """Read the decision in a step."""
    return Decision(**step.data)


def ask_of(step: Step) -> Ask:
    """Read the ask in a step."""
    return Ask(step.key.removesuffix(_ASKED), **step.data)


def open_asks(steps: Iterable[Step]) -> tuple[Ask, ...]:
    """Return what the steps of a delivery ask and nobody has settled, in an order that is always the same."""
    found = {step.key: step for step in steps}
    asks = [ask_of(step) for step in found.values() if step.kind == "asked"]
    return tuple(
        sorted(
            (ask for ask in asks if not any(ask.key + end in found for end in _SETTLED)),
            key=lambda ask: ask.key,
        )
    )


def asked(record: EventRecord) -> list[dict[str, Any]]:
    """Return what the waiting deliveries of an event ask, for people and programs; secrets are masked."""
    secrets = known_secrets()
    return [
        {
            "agent": ask.agent,
            "tool": ask.tool,
            "text": masked(ask.text, secrets),
            "about": masked(ask.about, secrets),
            "output_schema": ask.output_schema,
        }
        for delivery in record.deliveries
        if delivery.status == "waiting"
        for ask in open_asks(delivery.steps)
    ]


def why_not(record: EventRecord, decision: Decision, file: str = "FILE") -> str:
    """Return why an event asks nothing that this decision answers, and what to do next; `file` is its manifest."""
    place = f"{file} {record.id}"
    what = "approval" if decision.answer is None else "answer"
    match record.status:
        case "dead":
            return f"{record.id} is dead: {record.error}; `llmling events retry {place}` runs it again"
        case "done":
            state = "done" if record.outcome in {None, "ran"} else record.outcome
            return f"{record.id} is {state} and asks nothing more; `llmling events show {place}` shows its end"
        case "waiting" if asked(record):
            approve = f"`llmling events approve {place}` or `llmling events deny {place}`"
            other = f"`llmling events answer {place} TEXT`" if decision.answer is None else approve
            return f"{record.id} waits for no {what}; use {other}"
        case "waiting":
            return f"{record.id} waits for no {what}: {record.error}; use `llmling events retry {place}` or `drop`"
        case status:
            return f"{record.id} is {status} and asks nothing right now; `llmling events show {place}` shows its state"
