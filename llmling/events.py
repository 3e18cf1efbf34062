"""Events: what triggers produce, with the attributes of CloudEvents 1.0, and how one becomes a message."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import field
from typing import Any, cast

from llmling.frozen import frozen
from llmling.messages import Message
from llmling.templates import template

RUN = "dev.llmling.run"
"""The type of events that no trigger made: Python code called `run`."""
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]
_id_lock = threading.Lock()
_last_id = 0
_entropy: deque[int] = deque()
os.register_at_fork(after_in_child=_entropy.clear)


def random_bits() -> int:
    """Return 80 random bits, fit for keys.

    They are read from the system many at a time: each read lets another thread run, and the loop waits until it is
    done.
    """
    while True:
        try:
            return _entropy.popleft()
        except IndexError:
            data = os.urandom(2560)
            _entropy.extend(int.from_bytes(data[start : start + 10], "big") for start in range(0, len(data), 10))


def new_id() -> str:
    """Return a new id of 26 characters: safe in a path, unique, ascending by time within a process (a ULID)."""
    global _last_id
    fresh = (time.time_ns() // 1_000_000 << 80) | random_bits()
    with _id_lock:
        _last_id = max(fresh, _last_id + 1)
        value = _last_id
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


@frozen
class Event:
    """Something that happened: a file, a POST, a tick, a call of `run`.

    `source` is the trigger's name, `type` such as `dev.llmling.file.added`, `time` an aware datetime,
    `data` any JSON value. `headers` are those of a webhook, without credentials.
    """

    source: str
    type: str
    subject: str = ""
    data: Any = None
    id: str = field(default_factory=new_id)
    time: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` takes back and JSON can hold."""
        return {
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.isoformat(),
            "data": self.data,
            "headers": dict(self.headers),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Event:
        """Build an event from what `to_dict` gave."""
        return cls(
            source=data["source"],
            type=data["type"],
            subject=data.get("subject", ""),
            data=data.get("data"),
            id=data["id"],
            time=dt.datetime.fromisoformat(data["time"]),
            headers=data.get("headers") or {},
        )


def render(event: Event, prompt: str | None = None) -> Message:
    """Make the user message of an event, from the trigger's `prompt` template or the default of its type.

    Text of the event is only inserted as a value; it is never compiled as a template.

    Raises:
        TemplateFailed: The template asks for something the event does not have.
    """
    text = _default_prompt(event) if prompt is None else template(prompt)({"event": event})
    return Message.user(text, name=event.source)


def _default_prompt(event: Event) -> str:
    data: Any = event.data
    if event.type.startswith("dev.llmling.file."):
        text = cast("Mapping[str, Any]", data).get("text") if isinstance(data, Mapping) else None
        change = event.type.rpartition(".")[2]
        return f"File {change}: {event.subject}" + ("" if text is None else f"\n\n{text}")
    if isinstance(data, str):
        return data
    return json.dumps(data, indent=2, ensure_ascii=False)
