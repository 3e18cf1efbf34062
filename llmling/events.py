"""Events: what triggers produce, with the attributes of CloudEvents 1.0, and how one becomes a message."""

from __future__ import annotations

import datetime as dt
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import field
from json.encoder import encode_basestring
from typing import Any, cast

from llmling.encoding import encoder
from llmling.frozen import frozen
from llmling.messages import Message
from llmling.templates import template

RUN = "dev.llmling.run"
"""The type of events that no trigger made: Python code called `run`."""
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]
_DIGITS = bytes(ord(_CROCKFORD[byte & 31]) for byte in range(256))


class _Random:
    """Random texts of one length, fit for keys: read from the system many at a time.

    Each read lets another thread run, and the loop waits until it is done.
    """

    __slots__ = ("_length", "_make", "_texts")

    def __init__(self, length: int, make: Callable[[int], str]) -> None:
        """`make` returns that many random characters."""
        self._length = length
        self._make = make
        self._texts: deque[str] = deque()
        os.register_at_fork(after_in_child=self._texts.clear)

    def text(self) -> str:
        while True:
            try:
                return self._texts.popleft()
            except IndexError:
                length, text = self._length, self._make(256 * self._length)
                self._texts.extend([text[start : start + length] for start in range(0, len(text), length)])


_tail = _Random(14, lambda count: os.urandom(count).translate(_DIGITS).decode())
_hex = _Random(16, lambda count: os.urandom(count // 2).hex())


def random_hex() -> str:
    """Return 64 random bits, fit for keys, as 16 digits."""
    return _hex.text()


_id_lock = threading.Lock()
_last_ms = _count = 0


def new_id() -> str:
    """Return a new id of 26 characters: safe in a path, unique, ascending by time within a process (a ULID).

    Behind the time stand the number of the id in its millisecond and 70 random bits.
    """
    global _last_ms, _count
    now_ms = time.time_ns() // 1_000_000
    with _id_lock:
        if now_ms > _last_ms:
            _last_ms, _count = now_ms, 0
        else:
            # Also when the clock was put back.
            _count += 1
            _last_ms, _count = _last_ms + (_count >> 10), _count & 1023
        return f"{_second(_last_ms >> 10)}{_PAIRS[_last_ms & 1023]}{_PAIRS[_count]}{_tail.text()}"


@functools.lru_cache(maxsize=2)
def _second(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in (30, 20, 10, 0)])


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
    return laid_out(data)


_flat = encoder(ascii_only=False)


def laid_out(value: Any, margin: str = "\n") -> str:
    """Return JSON with an indent of two; the standard library takes five times as long for it."""
    if type(value) is str:
        return encode_basestring(value)
    inner = margin + "  "
    if value and isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        lines = [f"{_name(key)}: {laid_out(each, inner)}" for key, each in pairs]
        return f"{{{inner}{f',{inner}'.join(lines)}{margin}}}"
    if value and isinstance(value, list | tuple):
        lines = [laid_out(each, inner) for each in cast("list[Any]", value)]
        return f"[{inner}{f',{inner}'.join(lines)}{margin}]"
    return repr(value) if type(value) is int else _flat(cast("object", value))


def _name(key: Any) -> str:
    # JSON knows names only: a number becomes one, as the standard library writes it.
    return (
        encode_basestring(key) if isinstance(key, str) else _flat({key: None}).removeprefix("{").removesuffix(": null}")
    )
