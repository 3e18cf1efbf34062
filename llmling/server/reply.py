"""What a listener answers: JSON, or a refusal that says what to do next."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from aiohttp import web

from llmling.encoding import encoder
from llmling.errors import LLMlingError

# No answer is for a cache or for guessing at its type, and none tells which software gave it.
_COMMON = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "llmling"}
_encode = encoder(ascii_only=False)


class JsonReply:
    """JSON that leaves in one piece with its head: a tenth of what a `web.Response` costs, which may be changed.

    It has what aiohttp asks of an answer and no more.
    """

    __slots__ = ("_headers", "_whole", "keep_alive", "status")

    def __init__(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """`headers` are our own: they are not looked through for line ends."""
        self.status = status
        self.keep_alive: bool | None = None
        self._whole = _encode(value).encode("utf-8", "replace")
        self._headers = tuple(headers.items()) if headers else ()

    def force_close(self) -> None:
        """Let this be the last answer of its connection."""
        self.keep_alive = False

    def send(
        self, transport: asyncio.Transport | None, method: str, version: tuple[int, int], *, keep_alive: bool
    ) -> None:
        """Answer a request of that version of HTTP; whoever sends waits for a slow peer by himself.

        `keep_alive` is whether the peer wants to go on; it has no say after `force_close`.

        Raises:
            ConnectionError: The peer has left.
        """
        if transport is None or transport.is_closing():
            raise ConnectionError("the peer has left")
        if self.keep_alive is None:
            self.keep_alive = keep_alive
        head = _head(self.status, int(version >= (1, 1)), self.keep_alive, int(time.time()), self._headers)
        body = b"" if method == "HEAD" else self._whole
        transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(self._whole), body))

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing: it was sent as a whole."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: it was sent as a whole."""


@lru_cache(64)
def _head(status: int, minor: int, keep_alive: bool, second: int, more: tuple[tuple[str, str], ...]) -> bytes:
    headers = {"Content-Type": "application/json", **_COMMON, "Date": formatdate(second, usegmt=True), **dict(more)}
    if keep_alive != (minor > 0):
        headers["Connection"] = "keep-alive" if keep_alive else "close"
    lines = [f"HTTP/1.{minor} {status} {HTTPStatus(status).phrase}", *(f"{n}: {v}" for n, v in headers.items()), ""]
    return "\r\n".join(lines).encode()


def text_reply(status: int, text: str, *, content_type: str = "text/plain") -> web.Response:
    """Return an answer of plain text in UTF-8."""
    return web.Response(status=status, text=text, content_type=content_type, charset="utf-8", headers=_COMMON)


def json_reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer that holds `value` as JSON."""
    body = _encode(value).encode("utf-8", "replace")
    return web.Response(
        status=status, body=body, content_type="application/json", headers={**_COMMON, **(headers or {})}
    )


class Refused(LLMlingError):
    """Raised by a handler to answer with an error status; `message` is read by whoever sent the request.

    `linger` false closes the connection soon, whatever is left of the request.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, linger: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.linger = linger

    def reply(self) -> JsonReply:
        """Return the answer: the status and `{"error": message}`."""
        return JsonReply(self.status, {"error": self.message}, self.headers)


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that asks for a pause, in whole seconds, at least one."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
