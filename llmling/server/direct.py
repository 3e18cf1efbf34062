"""The short way of a request that is all there: answered from where it is read, without a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage

from llmling.server.reply import JsonReply

_MOST_HEADS, _LONGEST_HEAD = 256, 4096


class Direct(Protocol):
    """Answers requests that are all there; it may raise `Refused` like a handler."""

    def suits(self, headers: Mapping[str, str], length: int) -> bool:
        """Whether a request with these headers and a body of so many bytes can be answered without its handler."""
        ...

    def begin(self, headers: Mapping[str, str], body: bytes) -> asyncio.Future[Any]:
        """Take a request; the future is done when it can be answered, and is cancelled when nobody waits any more."""
        ...

    def answer(self, done: asyncio.Future[Any]) -> JsonReply:
        """Return the answer to a request of which the future is done."""
        ...


def is_whole(data: bytes, message: object, content: StreamReader) -> bool:
    """Whether `data`, which a parser between two requests was given, is one request that it made `message` of."""
    if not isinstance(message, RawRequestMessage) or message.upgrade or message.chunked or not content.is_eof():
        return False
    # A length that is too large for the parser looks like an empty body to it, which it then goes on to wait for.
    length = content.total_bytes
    return len(data) - _end(data) == length and message.headers.get("Content-Length", "0") == str(length)


class Heads:
    """The heads of requests that went the short way: one that comes again, byte for byte, is not parsed again.

    A sender writes the same head again and again; to parse it takes longer than all else the listener does. Between
    two requests the same head says the same, its framing included. Elsewhere the same bytes may be anything.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[RawRequestMessage, int]] = {}

    def look(self, data: bytes) -> tuple[RawRequestMessage, bytes] | None:
        """Return the head and the body of a whole request, None when its head is not known or it is not exactly one."""
        end = _end(data)
        known = self._known.get(data[:end])
        if known is None or len(data) - end != known[1]:
            return None
        return known[0], data[end:]

    def learn(self, data: bytes, message: RawRequestMessage) -> None:
        """Keep the head of a whole request."""
        end = _end(data)
        if end <= _LONGEST_HEAD:
            if len(self._known) >= _MOST_HEADS:
                self._known.clear()
            self._known[data[:end]] = message, len(data) - end


def _end(data: bytes) -> int:
    return data.find(b"\r\n\r\n") + 4
