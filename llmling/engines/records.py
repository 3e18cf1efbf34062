"""Between rows and dataclasses: how events, deliveries and steps are written down and read back."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeAlias

from llmling.events import Event
from llmling.frozen import frozen
from llmling.messages import Message
from llmling.protocols import Delivery, DeliveryRecord, EventRecord, EventStatus, Outcome, Overlap, Receipt, Step
from llmling.written import data_text, message_text
from llmling.written import encode as encode

EventRow: TypeAlias = tuple[Any, ...]


@frozen
class NewDelivery:
    """A delivery as it is written down; made on the loop, so that what cannot be written fails its maker only."""

    id: str
    event_id: str
    agent: str
    hops: int
    message: str
    dead: str | bytes | None
    order_key: str | bytes | None = None
    overlap: Overlap = "queue"
    priority: int = 0


@frozen
class Origin:
    """An event and what its row says of where it comes from: the trigger, the agent it is for, when it was accepted."""

    event: Event
    trigger: str
    agent: str
    created: float


@frozen
class Row:
    """A pending delivery in memory: its place in the queue, its tries so far, their cost, and the crashes it was in."""

    seq: int
    delivery: Delivery
    origin: Origin
    attempts: int = 0
    crashes: int = 0
    cost_usd: float | None = None


class Change:
    """What a commit did, for those in memory: `fresh` is (id, seq) of new deliveries that may start.

    `begun` are the ids of those that have started with it, since a place was kept for them,
    `turns` are deliveries, as `row` reads them, that may start now since the one before them has settled,
    `settled` are the rows of events that became done or dead, `waiting` of those that wait for a person from now on,
    `touched` events with a delivery that settled,
    `requeued` agents with deliveries that are pending again, `stopped` deliveries that must not go on.
    """

    __slots__ = ("begun", "count", "fresh", "requeued", "settled", "stopped", "touched", "turns", "waiting")

    def __init__(self) -> None:
        self.fresh: list[tuple[str, int]] = []
        self.begun: set[str] = set()
        self.turns: list[tuple[Any, ...]] = []
        self.settled: list[EventRow] = []
        self.waiting: list[EventRow] = []
        self.touched: set[str] = set()
        self.requeued: set[str] = set()
        self.stopped: set[str] = set()
        self.count = 0


def settling(columns: EventRow) -> tuple[str, float]:
    """Return what tells this settling of an event from a later one: its id and time."""
    return columns[0], columns[7]


def stored(text: str) -> str | bytes:
    """Return text as SQLite takes it; file names and answers may hold lone surrogates, which become bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def restored(value: str | bytes) -> str:
    """Return what `stored` was given."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


def new_delivery(delivery: Delivery) -> NewDelivery:
    """Return a delivery as it is written down."""
    return NewDelivery(
        delivery.id,
        delivery.event_id,
        delivery.agent,
        delivery.hops,
        message_text(delivery.message),
        None if delivery.dead is None else stored(delivery.dead),
        None if delivery.order_key is None else stored(delivery.order_key),
        delivery.overlap,
        delivery.priority,
    )


ROW = (
    "d.seq, d.id, d.event_id, d.agent, d.hops, d.message, d.attempts, d.crashes, e.data, d.order_key, d.priority,"
    " d.cost, e.trigger, e.agent, e.created"
    " from delivery d join event e on e.id = d.event_id"
)
"""What `row` reads."""


def row(columns: tuple[Any, ...]) -> Row:
    """Read a row of `ROW`."""
    seq, delivery_id, event_id, agent, hops, message, attempts, crashes, data, order_key, priority, *rest = columns
    cost_usd, trigger, for_agent, created = rest
    delivery = Delivery(
        delivery_id,
        event_id,
        agent,
        Message.from_dict(json.loads(message)),
        hops,
        order_key=_text(order_key),
        priority=priority,
    )
    origin = Origin(Event.from_dict(json.loads(data)), trigger, for_agent, created)
    return Row(seq, delivery, origin, attempts, crashes, cost_usd)


def step(columns: tuple[Any, ...]) -> Step:
    """Read key, kind and data of a step."""
    key, kind, data = columns
    return Step(restored(key), kind, json.loads(data))


StepRow: TypeAlias = tuple[str, str | bytes, str, str]
"""A step as it is written down: the id of its delivery, key, kind and data."""


def step_row(delivery_id: str, step: Step) -> StepRow:
    """Return a step as it is written down.

    Raises:
        TypeError: It holds what JSON cannot.
    """
    return delivery_id, stored(step.key), step.kind, data_text(step.data)


def reply(row: StepRow) -> str | None:
    """Return a step as its delivery's own row holds it, None when it cannot."""
    _, key, kind, data = row
    return f'[{quoted(key)},"{kind}",{data}]' if isinstance(key, str) else None


def reply_step(text: str) -> Step:
    """Read what `reply` gave."""
    return Step(*json.loads(text))


def delivery_record(
    columns: tuple[Any, ...], steps: tuple[Step, ...] = (), waits_for: str | None = None
) -> DeliveryRecord:
    """Read a row of `delivery_record`."""
    delivery_id, agent, status, attempts, hops, message, content, error, cost, created, finished = columns[:11]
    return DeliveryRecord(
        delivery_id,
        agent,
        status,
        attempts,
        hops,
        Message.from_dict(json.loads(message)),
        _text(content),
        _text(error),
        cost,
        created,
        finished,
        steps,
        waits_for,
    )


def event_record(
    columns: EventRow,
    deliveries: tuple[DeliveryRecord, ...] = (),
    waits_for: str | None = None,
    known: Event | None = None,
) -> EventRecord:
    """Read a row of `event_record`; what is `known` of it already is not read again."""
    event_id, trigger, agent, status, outcome, attempts, created, finished, cost, error, data = columns[:11]
    event = known if known is not None and known.id == event_id else Event.from_dict(json.loads(data))
    return EventRecord(
        event_id,
        trigger,
        agent,
        status,
        outcome,
        attempts,
        created,
        finished,
        cost,
        _text(error),
        event,
        deliveries,
        waits_for,
    )


def receipt(event_id: str, status: EventStatus | None, error: str | bytes | None, *, new: bool = False) -> Receipt:
    """Return the receipt of an event; one without a status has settled and been forgotten."""
    return Receipt(event_id, new, status or "done", _text(error))


@frozen
class Arrival:
    """An event as it is accepted; `expires` is when its key may come again, None: never.

    Its delivery starts with it when it `begins`: a place is kept for it.
    """

    event: Event
    data: str
    trigger: str
    agent: str
    delivery: NewDelivery | None
    key: str | bytes | None
    expires: float | None
    outcome: Outcome | None
    dead: str | bytes | None
    now: float
    begins: bool = False


def _text(value: str | bytes | None) -> str | None:
    return None if value is None else restored(value)
