"""One connection: aiohttp's protocol with the bounds it lacks, for slow heads and for too many peers."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web

from llmling.server.reply import Refused

_log = logging.getLogger(__name__)
_BRIEFLY_S = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener allows, in seconds and connections.

    `head_timeout_s` is for one whole request head, from its first byte (of a new connection: from the start);
    `write_timeout_s` for taking one answer; `linger_s` for what is left of a body after an early answer.
    """

    head_timeout_s: float = 10.0
    write_timeout_s: float = 30.0
    keepalive_s: float = 75.0
    linger_s: float = 5.0
    close_s: float = 2.0
    connections: int = 1000


class Connection(web.RequestHandler):
    """A peer. A head that does not arrive in time, or one peer too many, ends it."""

    __slots__ = ("_bounds", "_head_timer", "_server")

    def __init__(self, server: Server, bounds: Bounds, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=bounds.keepalive_s,
            lingering_time=bounds.linger_s,
            logger=cast("Any", _log),
            access_log=cast("Any", None),
            # A compressed body is refused by its header; decompressing it first would be the attack.
            auto_decompress=False,
        )
        self._server = server
        self._bounds = bounds
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the peer in, or send it away when the listener is full."""
        if self._server.full:
            stream = cast("asyncio.Transport", transport)
            stream.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\r\n")
            stream.close()
            self.close()
            return
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the peer."""
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; a head that has begun must end in time."""
        before = self._request_count
        super().data_received(data)
        if self._request_count > before:
            self._head_arrived()
        elif self._head_timer is None and self._waiter is not None and not self._waiter.done():
            self._await_head()

    def resume_reading(self, *args: Any, **kw: Any) -> None:
        """Read on after a pause; there was none around the usual small body, of which nothing is left to parse."""
        if self._reading_paused:
            super().resume_reading(*args, **kw)

    def linger_briefly(self) -> None:
        """Close soon after the current answer: a reset at once could overtake it on the way to the peer."""
        self._lingering_time = min(_BRIEFLY_S, self._lingering_time)

    def abort(self) -> None:
        """Drop the peer now."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; the peer's bytes are neither echoed nor logged as a fault of ours."""
        self.log_exception("request refused", status, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        response = Refused(status, "this is not a valid HTTP/1.1 request").reply()
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what went wrong with a peer: faults of handlers are caught and logged before they come here."""
        cause = kw.get("exc_info")
        reason = type(cause).__name__ if isinstance(cause, BaseException) else "no reason given"
        self.logger.debug("connection: %s (%s)", " ".join(str(arg) for arg in args), reason)

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._bounds.head_timeout_s, self._head_late)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.force_close()


class Server(web.Server):
    """Makes the connections of one listener."""

    def __init__(self, handler: Any, bounds: Bounds) -> None:
        # A peer that went away frees its handler; what must not be cut (a commit) is shielded by the handler.
        super().__init__(handler, handler_cancellation=True)
        self._bounds = bounds

    @property
    def full(self) -> bool:
        """Whether one more peer is too many."""
        return len(self._connections) >= self._bounds.connections

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a new connection."""
        return Connection(self, self._bounds, self._loop)
