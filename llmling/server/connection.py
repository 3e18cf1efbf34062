"""One connection: aiohttp's protocol with the bounds it lacks, for slow heads and for too many peers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage

from llmling.server.direct import Direct, Heads, is_whole
from llmling.server.reply import JsonReply, json_reply

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
    """A peer. A head that does not arrive in time, or one peer too many, ends it.

    Requests that are all there go the short way (`Direct`) where their route has one: the tasks, futures and objects of
    the usual way take longer than all that we do with a post. Once anything else has come over a connection, all that
    follows goes the usual way.
    """

    __slots__ = ("_asked", "_between", "_bounds", "_head_timer", "_server", "_under_way")

    _asked: tuple[RawRequestMessage, Direct]

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
        self._under_way: asyncio.Future[Any] | None = None
        # Whether all that has come were whole requests, each by itself: the parser surely stands between two of them.
        self._between = True

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
        """Forget the peer, and the answer it will not get."""
        self._head_arrived()
        if self._under_way is not None:
            self._under_way.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and answer at once or wake who answers; a head that has begun must end in time."""
        before, waiter = self._request_count, self._waiter
        idle = waiter is not None and not waiter.done() and self._under_way is None
        if idle and self._between and self._again(data):
            return
        self._waiter = None
        super().data_received(data)
        self._waiter = waiter
        whole = self._request_count == before + 1 and is_whole(data, *self._messages[-1])
        self._between = self._between and whole
        if self._request_count > before:
            self._head_arrived()
        elif idle and self._head_timer is None:
            self._await_head()
        if idle and self._messages:
            self._go_on(data)

    def resume_reading(self, *args: Any, **kw: Any) -> None:
        """Read on after a pause; there was none, and nothing is left to parse, where only whole requests have come."""
        if self._reading_paused or not self._between:
            super().resume_reading(*args, **kw)

    def close(self) -> None:
        """Take no more requests; an answer under way is still sent."""
        if self._under_way is None:
            super().close()
        else:
            self._close = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """End, once the answer under way is sent or `timeout` seconds are over."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way], timeout=timeout)
        if self._under_way is not None:
            self._under_way.cancel()
        await super().shutdown(timeout)

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
        response = json_reply(status, {"error": "this is not a valid HTTP/1.1 request"})
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what went wrong with a peer: faults of handlers are caught and logged before they come here."""
        cause = kw.get("exc_info")
        reason = type(cause).__name__ if isinstance(cause, BaseException) else "no reason given"
        self.logger.debug("connection: %s (%s)", " ".join(str(arg) for arg in args), reason)

    def _again(self, data: bytes) -> bool:
        """Answer a request whose head has come before, without parsing it."""
        known = self._server.heads.look(data)
        if known is None or self._messages or self._close or not self._drained:
            return False
        message, body = known
        direct = self._server.find(message, len(body))
        if direct is None:
            return False
        self._request_count += 1
        self._head_arrived()
        self._begin(message, direct, body)
        return True

    def _go_on(self, data: bytes | None = None) -> None:
        """Answer the next request the short way, or wake who answers; `data` is what it came as, if that is known."""
        waiter = self._waiter
        if waiter is not None and not waiter.done() and not (self._between and self._short(data)):
            waiter.set_result(None)

    def _short(self, data: bytes | None) -> bool:
        message, content = self._messages[0]
        if len(self._messages) > 1 or not isinstance(message, RawRequestMessage) or not self._drained:
            return False
        direct = self._server.find(message, content.total_bytes)
        if direct is None:
            return False
        self._messages.popleft()
        cast("Any", self._parser).message_consumed()
        taken = self._begin(message, direct, content.read_nowait())
        if taken and data is not None:
            self._server.heads.learn(data, message)
        return True

    @property
    def _drained(self) -> bool:
        """Whether the peer is there and has taken all answers; the usual way bounds how long it may take."""
        transport = self.transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def _begin(self, message: RawRequestMessage, direct: Direct, body: bytes) -> bool:
        """Hand a request over; return whether it was taken, and not refused at once."""
        begun = self._server.begin(message, direct, body)
        if isinstance(begun, JsonReply):
            self._send(message, begun)
            return False
        self._asked, self._under_way = (message, direct), begun
        begun.add_done_callback(self._answer)
        return True

    def _answer(self, done: asyncio.Future[Any]) -> None:
        message, direct = self._asked
        self._under_way = None
        if done.cancelled():
            # Nobody knows what came of it: the peer must not take the next answer for this one.
            self.force_close()
        else:
            self._send(message, self._server.finish(message, direct, done))

    def _send(self, message: RawRequestMessage, answer: JsonReply) -> None:
        try:
            answer.send(self.transport, message.method, message.version, keep_alive=not message.should_close)
        except ConnectionError as error:
            _log.debug("the peer left before the answer: %s", error)
            return
        if self._close or not answer.keep_alive:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._messages:
            self._go_on()

    def _process_keepalive(self) -> None:
        if self._under_way is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

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
    """Makes the connections of one listener.

    `find` returns who answers a request with a body of so many bytes the short way; `begin` and `finish` call them and
    answer for what they raise.
    """

    def __init__(
        self,
        handler: Any,
        bounds: Bounds,
        *,
        find: Callable[[RawRequestMessage, int], Direct | None],
        begin: Callable[[RawRequestMessage, Direct, bytes], asyncio.Future[Any] | JsonReply],
        finish: Callable[[RawRequestMessage, Direct, asyncio.Future[Any]], JsonReply],
    ) -> None:
        # A peer that went away frees its handler; what must not be cut (a commit) is shielded by the handler.
        super().__init__(handler, handler_cancellation=True)
        self._bounds = bounds
        self.heads = Heads()
        self.find = find
        self.begin = begin
        self.finish = finish

    @property
    def full(self) -> bool:
        """Whether one more peer is too many."""
        return len(self._connections) >= self._bounds.connections

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a new connection."""
        return Connection(self, self._bounds, self._loop)
