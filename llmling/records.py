"""What the plug points hand to each other: requests, answers, deliveries, their settlements and their records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, field
from typing import Any, Literal, Protocol, TypeAlias

from llmling.errors import ModelError
from llmling.events import Event
from llmling.frozen import frozen
from llmling.messages import Message, Usage

Approval: TypeAlias = Literal["always", "destructive", "never"]


@frozen
class ToolSpec:
    """What a model is told about a tool; `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@frozen
class RetryPolicy:
    """Tries of one model request: `attempts` includes the first; waits double from `backoff_s`, with jitter."""

    attempts: int = 3
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0


OnRetry: TypeAlias = Callable[[ModelError, float], None]
"""Hears of a failed try and of the seconds until the next one."""


@frozen
class ModelRequest:
    """One request: the exchange so far, the tools on offer and the settings.

    `settings` holds provider parameters (`temperature`, `max_tokens`, ...), `timeout_s` bounds one try.
    `retries` and `on_retry` are only for models that ask other models (fallback); the run loop retries all others.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    output_schema: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout_s: float = 60.0
    retries: RetryPolicy = RetryPolicy()
    on_retry: OnRetry | None = field(default=None, compare=False, repr=False)


@frozen
class ModelResponse:
    """One answer. `cost_usd` is None when the price is not known; `demo` marks answers no real model gave."""

    message: Message
    usage: Usage = Usage(requests=1)
    model: str = ""
    finish_reason: str = "stop"
    cost_usd: float | None = None
    demo: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` takes back and JSON can hold."""
        return {
            "message": self.message.to_dict(),
            "usage": self.usage.to_dict(),
            "model": self.model,
            "finish_reason": self.finish_reason,
            "cost_usd": self.cost_usd,
            "demo": self.demo,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelResponse:
        """Build a response from what `to_dict` gave."""
        return cls(
            Message.from_dict(data["message"]),
            Usage(**data["usage"]),
            data["model"],
            data["finish_reason"],
            data["cost_usd"],
            data["demo"],
        )


@frozen
class RunInfo:
    """The run a hook is called in."""

    agent: str
    run_id: str
    event: Event


@frozen
class TextDelta:
    """A piece of the answer's text, as it streams in."""

    text: str


EventStatus: TypeAlias = Literal["pending", "running", "waiting", "done", "dead"]
Outcome: TypeAlias = Literal["ran", "filtered", "skipped", "coalesced"]
STARTING = ("llmling", "starting")
"""Space and key in the store of the MCP servers that agents still wait for, by agent, for other processes."""
PASSED_OVER: frozenset[Outcome | None] = frozenset({"skipped", "coalesced"})
"""Outcomes of events that no agent has seen because of others."""
Overlap: TypeAlias = Literal["queue", "skip", "coalesce", "parallel"]


@frozen
class Receipt:
    """What `accept` says: the id the event has, whether it is new, and its status."""

    event_id: str
    new: bool
    status: EventStatus = "pending"
    error: str | None = None


@frozen
class Answer:
    """What leaves an agent: the text, the object behind it, and what it answers to."""

    text: str
    content: Any
    message: Message
    event: Event
    agent: str
    delivery_id: str


@frozen
class Delivery:
    """One message for one agent; `id` is the event's id and the way: `<event>/<agent>/<agent>`.

    `dead` is the reason when it must not run (hop limit): it is recorded and settled at once. Deliveries of one
    agent that share an `order_key` run one after the other, in the order in which they were accepted; one that waits
    for its next try or for a person keeps its place. `overlap` is what `accept` does when an event of the same trigger
    and key is open; `parallel` has no key. A higher `priority` is handed out first, the oldest at least once in eight.
    """

    id: str
    event_id: str
    agent: str
    message: Message
    hops: int = 0
    dead: str | None = None
    order_key: str | None = None
    overlap: Overlap = "queue"
    priority: int = 0


@frozen
class Step:
    """One recorded fact of a run.

    `reply`: of a model; `compacted`: what it was not shown; `call`: a tool is about to be called; `result`: what it
    answered; `sent`: an answer is at its sink; `choice`: whom a team has picked; `failed`: how many requests all tries
    so far have made; `asked`: what a person is asked; `decision`: what the person decided; `event`: what a run said of
    itself, kept for those who read its trace. `key` is unique in the delivery and, but for an `event`, the same on
    every attempt.
    """

    key: str
    kind: Literal["reply", "compacted", "call", "result", "sent", "choice", "failed", "asked", "decision", "event"]
    data: Mapping[str, Any]


class Recorder(Protocol):
    """The step journal of one delivery."""

    def recorded(self, key: str) -> Step | None:
        """Return the step of an earlier or this attempt, or None."""
        ...

    async def record(self, step: Step, *, committed: bool = False) -> None:
        """Record a step; with `committed` return only when it is on disk."""
        ...

    def note(self, step: Step) -> None:
        """Record a step soon, in its order; nobody waits for it."""
        ...

    async def flush(self) -> None:
        """Return when everything recorded is on disk."""
        ...


@frozen
class Work:
    """A delivery handed out to be run; `attempt` counts from 1 and was written before."""

    delivery: Delivery
    event: Event
    attempt: int
    journal: Recorder


@frozen
class Done:
    """The delivery is complete: its answer and the deliveries that follow, settled in one transaction."""

    content: str
    successors: tuple[Delivery, ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = None
    model: str = ""


@frozen
class Again:
    """The delivery failed and is tried again after `after_s`."""

    reason: str
    after_s: float
    cost_usd: float | None = None


@frozen
class Dead:
    """The delivery failed for good."""

    reason: str
    cost_usd: float | None = None


@frozen
class Waiting:
    """The delivery needs a person's decision."""

    reason: str
    cost_usd: float | None = None


Settlement: TypeAlias = Done | Again | Dead | Waiting
RunDelivery: TypeAlias = Callable[[Work], Awaitable[Settlement]]
Settled: TypeAlias = Callable[["EventRecord"], None]


def gone(agent: str) -> str:
    """Return why a delivery of an agent that nobody knows is dead."""
    return f"agent {agent!r} is not in the manifest any more; put it back and run `llmling events retry`"


@frozen
class Policy:
    """How deliveries of one agent are handed out; `attempts` bounds the tries, those cut short by a crash included."""

    concurrency: int = 4
    inbox_size: int = 1000
    overflow: Literal["block", "reject", "drop_oldest"] = "block"
    attempts: int = 5


@frozen
class Host:
    """A process that serves: where it runs, since when (Unix seconds), and for how long nothing was heard of it.

    `silent` once that is longer than a lease: then its deliveries go to others.
    """

    id: str
    name: str
    pid: int
    started: float
    state: Literal["serving", "silent"] = "serving"
    silent_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}, pid {self.pid}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data JSON can hold."""
        return asdict(self)


@frozen
class DeliveryRecord:
    """What is known of one delivery."""

    id: str
    agent: str
    status: EventStatus
    attempts: int
    hops: int
    message: Message
    content: str | None
    error: str | None
    cost_usd: float | None
    created: float
    finished: float | None
    steps: tuple[Step, ...] = ()
    waits_for: str | None = None
    host: str | None = None


@frozen
class EventRecord:
    """What is known of one event; times are Unix seconds. `agent` is the first one, `attempts` its tries.

    `waits_for` is why it does not go on right now, and `host` which process runs it where several serve, for people;
    they are found when the record is read, not kept.
    """

    id: str
    trigger: str
    agent: str
    status: EventStatus
    outcome: Outcome | None
    attempts: int
    created: float
    finished: float | None
    cost_usd: float | None
    error: str | None
    event: Event
    deliveries: tuple[DeliveryRecord, ...] = ()
    waits_for: str | None = None
    host: str | None = None

    @property
    def content(self) -> str | None:
        """The answer of the first agent, once there is one."""
        return self.deliveries[0].content if self.deliveries else None

    def to_dict(self) -> dict[str, Any]:
        """Return the object `events --json` prints; `waits_for` and `host` are in it when there is one."""
        facts = {
            "id": self.id,
            "trigger": self.trigger,
            "agent": self.agent,
            "status": self.status,
            "outcome": self.outcome,
            "attempts": self.attempts,
            "created": self.created,
            "finished": self.finished,
            "cost_usd": self.cost_usd,
            "error": self.error,
        }
        seen = {"waits_for": self.waits_for, "host": self.host}
        return {**facts, **{name: value for name, value in seen.items() if value is not None}}
