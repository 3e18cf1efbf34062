"""An event with all its deliveries as one record, and the rules by which it changes; nothing here reads or writes.

One record, because one compare-and-set then decides together what belongs together: a delivery's result, its
successors, and what this means for the event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmling.engines import records
from llmling.errors import EngineError
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Delivery, DeliveryRecord, EventRecord, EventStatus, Outcome, Receipt, Step

Doc: TypeAlias = dict[str, Any]
"""An event: its facts and, in `deliveries`, a `Doc` for each delivery, first one first."""

OVER = ("done", "dead")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is to be said of an open event or delivery: why it waits, or which process runs it."""

    waits_for: str | None = None
    host: str | None = None


NOTHING = Seen()


def new_doc(
    event: Event, trigger: str, agent: str, *, now: float, outcome: Outcome | None, key: str | None, host: str | None
) -> Doc:
    """Return the record of an event without deliveries yet.

    `key` is where its trigger's own id is remembered, `host` the process that is told of its end. `overlap` is set
    when it looks at others of its trigger and key, and `watch` is where they are written down.

    Raises:
        TypeError: The event holds what JSON cannot.
    """
    data = event.to_dict()
    records.encode(data)
    return {
        "id": event.id, "n": None, "trigger": trigger, "agent": agent, "status": "pending", "outcome": outcome,
        "created": now, "finished": None, "cost": None, "error": None, "event": data, "key": key, "host": host,
        "told": False, "mark": "", "overlap": None, "watch": None, "deliveries": [],
    }  # fmt: skip


def add(doc: Doc, delivery: Delivery, now: float, reason: str | None) -> None:
    """Add a delivery, dead for a reason or pending, unless it is there already.

    Raises:
        TypeError: Its message holds what JSON cannot.
    """
    message = delivery.message.to_dict()
    records.encode(message)
    if find(doc, delivery.id) is None:
        entry: Doc = {
            "id": delivery.id, "agent": delivery.agent, "status": "pending" if reason is None else "dead",
            "attempts": 0, "crashes": 0, "turn": 0, "due": 0.0, "wait_s": 0.0, "hops": delivery.hops,
            "message": message, "content": None, "error": reason, "usage": None, "cost": None, "model": "",
            "created": now, "finished": None if reason is None else now, "owner": None, "handed": None, "decided": [],
            "order_key": delivery.order_key, "priority": delivery.priority, "join": 0, "place": None,
        }  # fmt: skip
        doc["deliveries"].append(entry)


def find(doc: Doc, delivery_id: str) -> Doc | None:
    """Return a delivery of an event, or None."""
    return next((entry for entry in doc["deliveries"] if entry["id"] == delivery_id), None)


def held_by(entry: Doc, host: str, attempt: int) -> bool:
    """Whether a delivery still is the one that this host began as this attempt."""
    return entry["status"] == "running" and entry["owner"] == host and entry["attempts"] == attempt


def begin(entry: Doc, host: str, handed: int | None, *, crashed: bool, again: bool) -> None:
    """Count a try; `crashed` when the one before ended with its process, `again` when it was cut and does not count.

    `handed` is how often the queue had handed it out by then.
    """
    entry["crashes"] += crashed
    entry["attempts"] += 0 if again else 1
    entry["status"], entry["owner"], entry["handed"] = "running", host, handed


def kill(entry: Doc, reason: str, now: float) -> None:
    """Settle a delivery as dead; its event is yet to be refreshed."""
    entry["status"], entry["error"], entry["finished"] = "dead", reason, now


def requeue(entry: Doc) -> None:
    """Make a delivery pending again, as new; one that has left its line comes back to it."""
    entry["join"] += int(entry["status"] in OVER)
    entry.update(status="pending", attempts=0, crashes=0, due=0.0, wait_s=0.0, error=None, finished=None)
    entry["turn"] += 1


def refresh(doc: Doc, now: float) -> None:
    """Bring an event's status, reason and cost in line with its deliveries."""
    entries: list[Doc] = doc["deliveries"]
    statuses = [entry["status"] for entry in entries]
    costs = [entry["cost"] for entry in entries if entry["cost"] is not None]
    doc["cost"] = sum(costs) if costs else None
    if all(status in OVER for status in statuses):
        finish(doc, "dead" if "dead" in statuses else "done", _first_error(entries, "dead"), now)
        return
    doc["error"], doc["finished"] = None, None
    if all(status == "pending" for status in statuses):
        doc["status"] = "pending"
    elif "running" in statuses or "pending" in statuses:
        doc["status"] = "running"
    else:
        doc["status"], doc["error"] = "waiting", _first_error(entries, "waiting")


def finish(doc: Doc, status: EventStatus, error: str | None, now: float) -> None:
    """Settle an event."""
    doc["status"], doc["finished"], doc["error"] = status, now, error
    doc["outcome"] = None if status == "dead" else doc["outcome"] or "ran"


def untouched(entry: Doc) -> bool:
    """Whether a delivery waits for its first start."""
    return entry["status"] == "pending" and not entry["attempts"] and not entry["crashes"]


def coalesce(doc: Doc, newer_id: str, now: float) -> bool:
    """Settle an event in favour of a newer one, unless its first delivery has begun; return whether it was settled."""
    if doc["finished"] is not None or not doc["deliveries"] or not untouched(doc["deliveries"][0]):
        return False
    error = f"event {newer_id} took its place (overlap: coalesce)"
    doc["deliveries"][0].update(status="done", error=error, finished=now)
    doc["outcome"] = "coalesced"
    refresh(doc, now)
    return True


def skip(doc: Doc, now: float) -> None:
    """Settle a new event because of another one."""
    doc["deliveries"] = []
    doc["outcome"] = "skipped"
    finish(doc, "done", None, now)


def died(entry: Doc) -> str:
    """Return why a delivery is dead whose process died on its last try."""
    crashes, attempts = entry["crashes"], entry["attempts"]
    reason = f"the process died {'once' if crashes == 1 else f'{crashes} times'} while running this delivery"
    return reason if crashes >= attempts else f"{reason} ({attempts} attempts in all)"


def facts(doc: Doc) -> dict[str, Any]:
    """Return by what events are listed."""
    listed = {name: doc[name] for name in ("n", "status", "trigger", "finished", "told")}
    return {**listed, "gone": "gone" in doc}


# --- what others read ------------------------------------------------------------------------------------------------


def receipt(doc: Doc, *, new: bool = False) -> Receipt:
    """Return the receipt of an event."""
    return Receipt(doc["id"], new, doc["status"], doc["error"])


def delivery_of(doc: Doc, entry: Doc) -> Delivery:
    """Return a delivery as it is handed out.

    Raises:
        EngineError: It cannot be read.
    """
    try:
        return Delivery(
            entry["id"],
            doc["id"],
            entry["agent"],
            Message.from_dict(entry["message"]),
            entry["hops"],
            order_key=entry["order_key"],
            priority=entry["priority"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"cannot be read from NATS ({type(error).__name__}: {error})") from error


def event_record(
    doc: Doc,
    steps: Mapping[str, tuple[Step, ...]] | None = None,
    seen: Seen = NOTHING,
    by_delivery: Mapping[str, Seen] | None = None,
) -> EventRecord:
    """Return an event; with the steps of its deliveries, also them, and of both what was `seen` of them just now."""
    entries: Sequence[Doc] = doc["deliveries"]
    known, looks = steps or {}, by_delivery or {}
    deliveries = tuple(
        _delivery_record(each, known.get(each["id"], ()), looks.get(each["id"], NOTHING))
        for each in (() if steps is None else entries)
    )
    return EventRecord(
        doc["id"],
        doc["trigger"],
        doc["agent"],
        doc["status"],
        doc["outcome"],
        entries[0]["attempts"] if entries else 0,
        doc["created"],
        doc["finished"],
        doc["cost"],
        doc["error"],
        Event.from_dict(doc["event"]),
        deliveries,
        seen.waits_for,
        seen.host,
    )


def _delivery_record(entry: Doc, steps: tuple[Step, ...], seen: Seen) -> DeliveryRecord:
    return DeliveryRecord(
        entry["id"],
        entry["agent"],
        entry["status"],
        entry["attempts"],
        entry["hops"],
        Message.from_dict(entry["message"]),
        entry["content"],
        entry["error"],
        entry["cost"],
        entry["created"],
        entry["finished"],
        steps,
        seen.waits_for,
        seen.host,
    )


def _first_error(entries: Sequence[Doc], status: EventStatus) -> str | None:
    return next((entry["error"] for entry in entries if entry["status"] == status), None)
