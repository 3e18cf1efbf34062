"""Listeners: one per host and port, shared by every webhook and page that names it."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

from aiohttp import web
from aiohttp.http import RawRequestMessage

from llmling.errors import StartupError
from llmling.events import new_id
from llmling.server.connection import Bounds, Connection, Server
from llmling.server.direct import Direct
from llmling.server.reply import JsonReply, Refused, retry_after

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

Answer: TypeAlias = web.StreamResponse | JsonReply
Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[Answer]]

DRAIN_RETRY_S = 10.0
CHANGE_RETRY_S = 1.0
_FREE_PORT_TRIES = 100


@dataclass(frozen=True, slots=True)
class _Route:
    handler: Handler
    owner: str
    direct: Direct | None = None


# path -> method -> route; a path that ends in `/*` serves everything below it.
Routes: TypeAlias = dict[str, dict[str, _Route]]


@dataclass(slots=True)
class _Listener:
    host: str
    port: int
    owner: str
    runner: web.ServerRunner
    routes: Routes


def url_host(host: str) -> str:
    """Return a host as it stands in a URL: IPv6 in brackets, any-address as loopback."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - the URL people can open on this machine
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


class Listeners:
    """Every listener of a pool; entering opens none, leaving closes all, after answers under way.

    While `draining` is true, routes that were removed answer 503 instead of 404, so senders try again later; so do
    they in a `change`, where another owner may take their place.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.draining = False
        self._changing = False
        self._bounds = bounds or Bounds()
        self._open: dict[tuple[str, int], _Listener] = {}
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Listeners:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.draining = True
        listeners, self._open = list(self._open.values()), {}
        async with asyncio.TaskGroup() as group:
            for listener in listeners:
                group.create_task(listener.runner.cleanup())

    @asynccontextmanager
    async def change(self) -> AsyncGenerator[None]:
        """Let routes be replaced while inside; afterwards listeners that serve nothing any more are closed."""
        self._changing = True
        try:
            yield
        finally:
            self._changing = False
            await self._sweep()

    async def _sweep(self) -> None:
        if self.draining:
            return
        for address, listener in list(self._open.items()):
            for path, methods in list(listener.routes.items()):
                for method in [method for method, route in methods.items() if route.handler is _changing]:
                    del methods[method]
                if not methods:
                    del listener.routes[path]
            if not listener.routes:
                del self._open[address]
                await listener.runner.cleanup()

    async def bind(self, host: str, port: int, *, owner: str) -> int:
        """Open a listener, unless this host and port have one, and return its port; 0 takes any free one.

        `owner` names who asks, for messages: `trigger 'x'`.

        Raises:
            StartupError: The port is in use or the address is not one of this machine.
        """
        async with self._lock:
            if (host, port) in self._open:
                return port
            try:
                return await self._listen(host, port, owner)
            except (OSError, OverflowError) as error:
                raise StartupError(self._why(error, host, port, owner), usage=True) from error

    async def bind_free(self, host: str, first: int, *, owner: str, avoid: Collection[int] = ()) -> int:
        """Open a listener of its own on the first free port from `first`, leaving out `avoid`, and return the port.

        Raises:
            StartupError: None of the next hundred ports is free, or the address is not one of this machine.
        """
        async with self._lock:
            last = min(first + _FREE_PORT_TRIES, 65536)
            for port in range(first, last):
                if port in avoid or any(taken == port for _, taken in self._open):
                    continue
                try:
                    return await self._listen(host, port, owner)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise StartupError(self._why(error, host, port, owner), usage=True) from error
        raise StartupError(
            f"no port from {first} to {last - 1} on {host} is free ({owner}); set `port:` or stop another program",
            usage=True,
        )

    @asynccontextmanager
    async def route(
        self,
        host: str,
        port: int,
        method: str,
        path: str,
        handler: Handler,
        *,
        owner: str,
        direct: Direct | None = None,
    ) -> AsyncGenerator[int]:
        """Serve `method` and `path` while inside; gives the port. A path ending in `/*` serves all below it.

        A GET route also serves HEAD. `direct` answers, instead of `handler`, what is all there and suits it.

        Raises:
            StartupError: See `bind`; or the path is served by someone else already.
        """
        port = await self.bind(host, port, owner=owner)
        listener = self._open[host, port]
        methods = listener.routes.setdefault(path, {})
        if method in methods and methods[method].handler is not _changing:
            raise StartupError(
                f"{owner} and {methods[method].owner} both serve {method} {path} on {host}:{port}; "
                "give one of them another `path:`",
                usage=True,
            )
        methods[method] = _Route(handler, owner, direct)
        try:
            yield port
        finally:
            if self.draining:
                methods[method] = _Route(_draining, owner)
            elif self._changing:
                methods[method] = _Route(_changing, owner)
            else:
                del methods[method]
                if not methods:
                    del listener.routes[path]

    async def _listen(self, host: str, port: int, owner: str) -> int:
        routes: Routes = {}
        server = Server(
            functools.partial(self._dispatch, routes),
            self._bounds,
            find=functools.partial(_direct, routes),
            begin=self._begin,
            finish=self._finish,
        )
        runner = web.ServerRunner(server, shutdown_timeout=self._bounds.close_s)
        listener = _Listener(host, port, owner, runner, routes)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        listener.port = runner.addresses[0][1]
        self._open[host, listener.port] = listener
        return listener.port

    async def _dispatch(self, routes: Routes, request: web.BaseRequest) -> Answer:
        """Answer one request; the border where a fault of a handler becomes a 500 without its text."""
        try:
            response = await _find(routes, request)(request)
        except Refused as refusal:
            response = _refused(request.method, request.path, refusal)
            if not refusal.linger:
                response.force_close()
                _connection(request).linger_briefly()
        except Exception:  # noqa: BLE001 - the border: logged with its id, answered without its text
            response = _failed(request.method, request.path)
        if self.draining:
            response.force_close()
        try:
            if isinstance(response, JsonReply):
                response.send(request.transport, request.method, request.version, keep_alive=request.keep_alive)
                if not request.protocol.writing_paused:
                    return response
            async with asyncio.timeout(self._bounds.write_timeout_s):
                await response.prepare(request)
                await response.write_eof()
                await request.writer.drain()
        except TimeoutError:
            _connection(request).abort()
        except ConnectionError as error:
            _log.debug("the peer left before the answer: %s", error)
        return response

    def _begin(self, message: RawRequestMessage, direct: Direct, body: bytes) -> asyncio.Future[Any] | JsonReply:
        return self._answered(message, direct.begin, message.headers, body)

    def _finish(self, message: RawRequestMessage, direct: Direct, done: asyncio.Future[Any]) -> JsonReply:
        return self._answered(message, direct.answer, done)

    def _answered(
        self, message: RawRequestMessage, make: Callable[P, T], *args: P.args, **kw: P.kwargs
    ) -> T | JsonReply:
        """Call the short way of a route: the same border as `_dispatch`."""
        answer: T | JsonReply
        try:
            answer = make(*args, **kw)
        except Refused as refusal:
            answer = _refused(message.method, message.path, refusal)
        except Exception:  # noqa: BLE001 - the border: logged with its id, answered without its text
            answer = _failed(message.method, message.path)
        if self.draining and isinstance(answer, JsonReply):
            answer.force_close()
        return answer

    def _why(self, error: OSError | OverflowError, host: str, port: int, owner: str) -> str:
        if isinstance(error, OverflowError):
            return f"port {port} ({owner}) is not between 1 and 65535"
        if error.errno == errno.EADDRINUSE:
            ours = [listener for listener in self._open.values() if listener.port == port]
            if ours:
                return (
                    f"port {port} is asked for as {host} ({owner}) and as {ours[0].host} ({ours[0].owner}); "
                    "write the same `host:` in both, or choose another `port:`"
                )
            return f"port {port} on {host} is in use ({owner}); choose another `port:` or stop the other program"
        if error.errno in {errno.EACCES, errno.EPERM}:
            return f"port {port} on {host} may not be opened by this user ({owner}); choose a `port:` above 1023"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            return f"host {host!r} is not an address of this machine ({owner}); write `host: 127.0.0.1` or 0.0.0.0"
        return f"cannot listen on {host}:{port} ({owner}): {error.strerror or error}"


async def _draining(request: web.BaseRequest) -> web.Response:
    raise Refused(503, "the pool is stopping; send this again later", headers=retry_after(DRAIN_RETRY_S))


async def _changing(request: web.BaseRequest) -> web.Response:
    raise Refused(503, "this trigger is being changed; send this again", headers=retry_after(CHANGE_RETRY_S))


def _refused(method: str, path: str, refusal: Refused) -> JsonReply:
    if refusal.status not in {404, 405}:
        _log.info("%s %r: %d, %s", method, path, refusal.status, refusal)
    return refusal.reply()


def _failed(method: str, path: str) -> JsonReply:
    error_id = new_id()
    _log.exception("%s %r failed (error id %s)", method, path, error_id)
    return JsonReply(500, {"error": "internal error", "id": error_id})


def _connection(request: web.BaseRequest) -> Connection:
    protocol = request.protocol
    if not isinstance(protocol, Connection):
        raise TypeError(f"request of {type(protocol).__name__}, not of a Connection")
    return protocol


def _direct(routes: Routes, message: RawRequestMessage, length: int) -> Direct | None:
    """Return the short way of a request; not where its path has to be decoded first, nor below a path."""
    methods = routes.get(message.path)
    route = None if methods is None or "%" in message.path else methods.get(message.method)
    direct = None if route is None else route.direct
    return direct if direct is not None and direct.suits(message.headers, length) else None


def _find(routes: Routes, request: web.BaseRequest) -> Handler:
    methods = routes.get(request.path)
    if methods is None:
        below = [path for path in routes if path.endswith("/*") and request.path.startswith(path[:-1])]
        if not below:
            raise Refused(404, "nothing is served at this path; check `path:` in the manifest")
        methods = routes[max(below, key=len)]
    route = methods.get(request.method) or (methods.get("GET") if request.method == "HEAD" else None)
    if route is None:
        allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
        raise Refused(405, f"use {allowed} here, not {request.method[:20]}", headers={"Allow": allowed})
    return route.handler
