"""An event with all its deliveries as one record, and the rules by which it changes; nothing here reads or writes.

One record, because one compare-and-set then decides together what belongs together: a delivery's result, its
successors, and what this means for the event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llmling.engines import records
from llmling.errors import EngineError
from llmling.events import Event
from llmling.messages import Message
from llmling.protocols import Delivery, DeliveryRecord, EventRecord, EventStatus, Outcome, Receipt, Step

Doc: TypeAlias = dict[str, Any]
"""An event: its facts and, in `deliveries`, a `Doc` for each delivery, first one first."""

OVER = ("done", "dead")


def new_doc(
    event: Event, trigger: str, agent: str, *, now: float, outcome: Outcome | None, key: str | None, host: str | None
) -> Doc:
    """Return the record of an event without deliveries yet.

    `key` is where its trigger's own id is remembered, `host` the process that is told of its end.

    Raises:
        TypeError: The event holds what JSON cannot.
    """
    data = event.to_dict()
    records.encode(data)
    return {
        "id": event.id, "n": None, "trigger": trigger, "agent": agent, "status": "pending", "outcome": outcome,
        "created": now, "finished": None, "cost": None, "error": None, "event": data, "key": key, "host": host,
        "told": False, "mark": "", "deliveries": [],
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
    """Make a delivery pending again, as new."""
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
        return Delivery(entry["id"], doc["id"], entry["agent"], Message.from_dict(entry["message"]), entry["hops"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"cannot be read from NATS ({type(error).__name__}: {error})") from error


def event_record(doc: Doc, steps: Mapping[str, tuple[Step, ...]] | None = None) -> EventRecord:
    """Return an event; with the steps of its deliveries, also them."""
    entries: Sequence[Doc] = doc["deliveries"]
    known = steps or {}
    deliveries = () if steps is None else tuple(_delivery_record(each, known.get(each["id"], ())) for each in entries)
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
    )


def _delivery_record(entry: Doc, steps: tuple[Step, ...]) -> DeliveryRecord:
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
    )


def _first_error(entries: Sequence[Doc], status: EventStatus) -> str | None:
    return next((entry["error"] for entry in entries if entry["status"] == status), None)
