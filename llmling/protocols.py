"""Every plug point, on one page; `records` holds what they hand to each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

from llmling.asks import Decision
from llmling.events import Event
from llmling.records import (
    Again,
    Answer,
    Approval,
    Dead,
    Delivery,
    DeliveryRecord,
    Done,
    EventRecord,
    EventStatus,
    Host,
    ModelRequest,
    ModelResponse,
    OnRetry,
    Outcome,
    Overlap,
    Policy,
    Receipt,
    Recorder,
    RetryPolicy,
    RunDelivery,
    RunInfo,
    Settled,
    Settlement,
    Step,
    TextDelta,
    ToolSpec,
    Waiting,
    Work,
)

__all__ = [
    "Again", "Answer", "Approval", "Dead", "Decision", "Delivery", "DeliveryRecord", "Done", "Emit", "Engine",
    "EventRecord", "EventStatus", "Host", "KnowledgeSource", "Model", "ModelRequest", "ModelResponse", "OnRetry",
    "Outcome", "Overlap", "Policy", "Prompt", "Receipt", "Recorder", "RetryPolicy", "RunDelivery", "RunInfo",
    "Settled", "Settlement", "Sink", "Step", "Store", "TextDelta", "Tool", "ToolProvider", "ToolSpec", "Trigger",
    "Waiting", "Work",
]  # fmt: skip


@runtime_checkable
class Model(Protocol):
    """Answers messages. It never retries by itself, raises `ModelError`, and may be used by many runs at once."""

    @property
    def name(self) -> str:
        """Name as the user writes it, such as `openai/gpt-4o-mini`."""
        ...

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the answer. Cancelling it closes the HTTP request."""
        ...

    def stream(self, request: ModelRequest) -> AsyncIterator[TextDelta | ModelResponse]:
        """Yield pieces of text as they arrive and, last, the whole response. A cut stream is a `ModelError`."""
        ...


class Tool(Protocol):
    """Something a model may call."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""
        ...

    @property
    def repeatable(self) -> bool:
        """True when a call that was in flight at a crash may be made again: read-only or idempotent."""
        ...

    @property
    def destructive(self) -> bool:
        """True when a call may destroy something or reach outside: `approval: destructive` asks for it."""
        ...

    @property
    def approval(self) -> Approval | None:
        """When a person must say yes to a call; None: as the agent says."""
        ...

    @property
    def timeout_s(self) -> float | None:
        """Longest time for one call; None: only the run's own limit."""
        ...

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Return the text the model reads.

        Raises:
            ToolError: The tool failed and the model may read the reason. Any other exception is reported by its
                type and text.
        """
        ...


class ToolProvider(AbstractAsyncContextManager["ToolProvider"], Protocol):
    """Where tools come from; entered by the task that owns it, and left by the same task."""

    @property
    def name(self) -> str:
        """Name of the provider."""
        ...

    @property
    def state(self) -> str:
        """`starting`, `ready`, `broken` (it is being restarted) or `stopped`."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it is broken."""
        ...

    def tools(self) -> Sequence[Tool]:
        """Return the tools on offer right now; none while it is broken."""
        ...

    async def settled(self) -> None:
        """Return when the first start has succeeded or failed; later outages do not count."""
        ...


class KnowledgeSource(AbstractAsyncContextManager["KnowledgeSource"], Protocol):
    """Text an agent may rely on; entering it loads what can be loaded beforehand."""

    @property
    def title(self) -> str:
        """Short name shown to the model above the text."""
        ...

    async def text(self, query: str) -> str:
        """Return the text for one run whose user message is `query`; empty when there is nothing to say."""
        ...


class Prompt(Protocol):
    """What an agent is told around each message; `values` are the run's `event` and `agent`."""

    def system(self, values: Mapping[str, Any]) -> str:
        """Return its part of the system turn; may be empty."""
        ...

    def user(self, message: str, values: Mapping[str, Any]) -> str:
        """Return the user turn that the model reads instead of the bare message."""
        ...


class Emit(Protocol):
    """Hands an event over; what it returns, awaited, means it is committed."""

    def __call__(
        self, event: Event, *, key: str | None = None, keep_key_s: float | None = None, dead: str | None = None
    ) -> Awaitable[Receipt]:
        """Commit an event; cancelling the wait does not undo it.

        `key` is the trigger's own id of what happened: a key that is known gives the first event's receipt with
        `new` False. It is remembered for `keep_key_s` seconds, None: for ever. `dead` records the event as dead at
        once, with that reason.

        Raises:
            Full: No room or not writable right now; try again after `retry_after_s`.
        """
        ...


class Trigger(Protocol):
    """Produces events."""

    @property
    def name(self) -> str:
        """Name, unique in the pool."""
        ...

    @property
    def place(self) -> str:
        """Where it listens, for people: a URL, folders, or times."""
        ...

    async def run(self, emit: Emit, started: Callable[[], None]) -> None:
        """Work until cancelled; call `started` once armed.

        Raises:
            StartupError: It can never be armed (port in use, folder held by another pool).
        """
        ...

    def settled(self, event: Event, status: EventStatus, error: str | None) -> Coroutine[Any, Any, None] | None:
        """Hear that one of its events is done or dead, but not skipped or coalesced; may be told twice.

        An `async def`, or None where there is nothing to do.
        """
        ...


class Sink(Protocol):
    """Where answers leave the pool."""

    @property
    def name(self) -> str:
        """Short name for messages: `file out/x.md`."""
        ...

    async def send(self, answer: Answer) -> None:
        """Deliver one answer; sending the same `delivery_id` again must do no harm where the receiver allows it.

        Raises:
            SinkError: It did not arrive.
        """
        ...


@runtime_checkable
class Store(Protocol):
    """Small facts that live with the engine, in named spaces; values are JSON. Writes are durable on return.

    Spaces and keys are any text; none reaches into another. Several processes may use one store.
    """

    async def get(self, space: str, key: str) -> Any:
        """Return the value, or None."""
        ...

    async def put(self, space: str, items: Mapping[str, Any]) -> None:
        """Set many values, durable on return; who dies meanwhile may leave some of them set and others not."""
        ...

    async def add(
        self, space: str, deltas: Mapping[str, float], *, below: Mapping[str, float] | None = None
    ) -> tuple[bool, dict[str, float]]:
        """Add to numbers, 0 at first, if each in `below` is below its bound; return whether, and the numbers then."""
        ...

    async def remove(self, space: str, keys: Sequence[str]) -> None:
        """Forget values; unknown keys are no error."""
        ...

    async def swap(self, space: str, key: str, old: Any, new: Any) -> bool:
        """Set a value if it is `old`, for one of those who try at once; return whether it was. None is no value."""
        ...

    async def items(self, space: str) -> dict[str, Any]:
        """Return all values of a space."""
        ...


class Engine(Protocol):
    """Keeps events and hands their deliveries out; decides in one place what belongs together.

    `open` gives the store and the records; `start` begins to hand out, also what an earlier process left.
    """

    @property
    def store(self) -> Store:
        """The small facts that live beside the events."""
        ...

    @property
    def fault(self) -> str | None:
        """Why the store could not be written the last time, None when it could."""
        ...

    @property
    def hosts(self) -> Sequence[Host]:
        """The processes that serve these events, as far as is known; nothing where only one may."""
        ...

    @property
    def serving(self) -> bool:
        """Whether any process hands out from this store right now."""
        ...

    @property
    def shared(self) -> bool:
        """Whether several processes may hand out from this store at once."""
        ...

    async def open(self) -> None:
        """Open the store for this process.

        Raises:
            EngineError: The file is corrupt, of a newer release or not writable.
        """
        ...

    async def start(
        self,
        run_delivery: RunDelivery,
        policies: Mapping[str, Policy],
        *,
        concurrency: int = 100,
        max_messages_per_event: int = 200,
        settled: Settled | None = None,
        waiting: Settled | None = None,
    ) -> None:
        """Hand out deliveries from now on; `settled` hears, on the loop, of every event that becomes done or dead.

        `waiting` hears of every event that from now on waits for a person.

        Raises:
            EngineBusy: Another process serves this store.
        """
        ...

    async def update(
        self, policies: Mapping[str, Policy], *, concurrency: int = 100, max_messages_per_event: int = 200
    ) -> None:
        """Hand out by these rules from now on; what runs goes on, also of an agent that is not in them any more.

        Pending deliveries of such an agent are settled as dead with that reason, and so is what comes for it later.

        Raises:
            EngineError: It has not been started, or the store cannot be written; then the rules hold all the same.
        """
        ...

    def accept(
        self,
        event: Event,
        delivery: Delivery | None,
        *,
        trigger: str,
        agent: str,
        key: str | None = None,
        keep_key_s: float | None = None,
        outcome: Outcome | None = None,
        dead: str | None = None,
    ) -> Awaitable[Receipt]:
        """Commit an event and its first delivery; durable once awaited. Cancelling the wait does not undo it.

        Without a delivery the event is settled at once, with `outcome`, or dead for the reason `dead`. A known
        `key` of the same trigger gives the first event's receipt. Works also in a process that does not serve.

        Raises:
            Full: The inbox is full, or the store cannot be written.
        """
        ...

    async def known(self, trigger: str, keys: Sequence[str]) -> dict[str, Receipt]:
        """Return the receipts of those keys that are known."""
        ...

    def runs(
        self, *, status: EventStatus | None = None, trigger: str | None = None, limit: int | None = 100
    ) -> AsyncIterator[EventRecord]:
        """Yield events, newest first, without their deliveries."""
        ...

    async def inspect(self, event_id: str) -> EventRecord | None:
        """Return one event with its deliveries and their steps, first delivery first."""
        ...

    async def wait(self, event_id: str, timeout_s: float | None = None) -> EventRecord | None:
        """Return the event once it is done or dead, or None after `timeout_s`."""
        ...

    async def wait_answer(self, event_id: str, timeout_s: float | None = None) -> EventRecord | None:
        """Return the event once its first delivery is settled, whatever its successors do; None after `timeout_s`."""
        ...

    async def retry(self, event_id: str) -> int:
        """Give the dead and waiting deliveries of an event their tries back; return how many."""
        ...

    async def drop(self, event_id: str) -> int:
        """Settle the open deliveries of an event as dead, or forget an event that is settled; return how many."""
        ...

    async def decide(self, event_id: str, decision: Decision, *, seen: Collection[str] | None = None) -> int:
        """Settle what the first waiting delivery asks that such a decision answers; it goes on from its steps.

        With `seen`, the places (`asks.place`) a person was shown, nothing else is settled. Returns how many asks that
        were. Works also in a process that does not serve.
        """
        ...

    async def counts(self) -> dict[str, int]:
        """Return how many events there are by status."""
        ...

    async def stop(self, grace_s: float) -> int:
        """Hand out nothing more, give running deliveries `grace_s` seconds, cancel the rest and close.

        Returns how many were cut off; they run again at the next start, and this does not count as a try.
        """
        ...
