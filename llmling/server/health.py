"""The pool's own pages: is it alive, is it ready, its metrics, what became of an event, and what it waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from aiohttp import web

from llmling.asks import Ask, Decision, asked
from llmling.errors import EngineError
from llmling.manifest.pool import ServerConfig
from llmling.manifest.triggers import LOOPBACK, BearerAuth
from llmling.protocols import EventRecord, Host
from llmling.server.auth import challenge, foreign_page, verify
from llmling.server.decisions import Decisions
from llmling.server.listener import Answer, Handler, Listeners, url_host
from llmling.server.metrics import CONTENT_TYPE, Sample, exposition
from llmling.server.reply import Refused, json_reply, retry_after, text_reply

FIRST_PORT = 8765
BEAT_S = 1.0
LATE_S = 5.0


class PoolState(Protocol):
    """What the pages ask the pool."""

    def ready(self) -> Sequence[str]:
        """Return why the pool is not ready; nothing when it is."""
        ...

    def hosts(self) -> Sequence[Host]:
        """Return the processes that serve the pool's events together; nothing where only this one may."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Return how many events there are by status."""
        ...

    def metrics(self) -> Iterable[Sample]:
        """Return what the pool counts.

        `llmling_runs_total{agent,status}`, `llmling_mcp_up{server}`, `llmling_queue_depth`, `llmling_cost_usd_total`.
        """
        ...

    async def inspect(self, event_id: str) -> EventRecord | None:
        """Return one event with its deliveries."""
        ...

    async def decide(self, event_id: str, decision: Decision) -> Sequence[Ask]:
        """Tell a person's decision to an event and return what it settled.

        Raises:
            LookupError: There is no such event.
            OutputError: The answer does not match the agent's `output`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A page: guarded by the token when there is one, whose refusal is `locked` instead of an error."""

    method: str
    path: str
    handler: Handler
    guarded: bool = True
    locked: Handler | None = None


class Health:
    """Serves the pages while inside; `url` is where, once entered.

    `avoid` are ports others of the pool will open, left out when the port is free to choose; `file` is the manifest,
    for commands in answers; `more` are pages of others; `monotonic` is steady seconds.
    """

    def __init__(
        self,
        state: PoolState,
        config: ServerConfig,
        listeners: Listeners,
        *,
        avoid: Collection[int] = (),
        file: str = "FILE",
        more: Sequence[Page] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._config = config
        self._listeners = listeners
        self._avoid = avoid
        self._file = file
        self._more = more
        self._monotonic = monotonic
        self._started = self._beat = monotonic()
        self._port = config.port or 0
        self._stack = AsyncExitStack()
        token = config.token.get_secret_value() if config.token else ""
        self._auth = BearerAuth(token=config.token) if config.token and token else None

    async def __aenter__(self) -> Health:
        host, owner = self._config.host, "the pool's `server:`"
        async with AsyncExitStack() as stack:
            if self._config.port is None:
                self._port = await self._listeners.bind_free(host, FIRST_PORT, owner=owner, avoid=self._avoid)
            decisions = Decisions(self._state.decide, self._state.inspect, self._file)
            pages = (
                Page("GET", "/healthz", self._healthz, guarded=False),
                Page("GET", "/readyz", self._readyz, guarded=False),
                Page("GET", "/metrics", self._metrics),
                Page("GET", "/events/*", self._event),
                Page("POST", "/events/*", decisions.answer),
                *self._more,
            )
            for page in pages:
                await stack.enter_async_context(
                    self._listeners.route(host, self._port, page.method, page.path, self._checked(page), owner=owner)
                )
            group = await stack.enter_async_context(asyncio.TaskGroup())
            heart = group.create_task(self._heart(), name="llmling heartbeat")
            stack.callback(heart.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The address of the pages, without a slash at its end."""
        return f"http://{url_host(self._config.host)}:{self._port}"

    def event_url(self, event_id: str) -> str:
        """Return the address of one event."""
        return f"{self.url}/events/{quote(event_id, safe='')}"

    async def _heart(self) -> None:
        while True:
            self._beat = self._monotonic()
            await asyncio.sleep(BEAT_S)

    def _checked(self, page: Page) -> Handler:
        async def handler(request: web.BaseRequest) -> Answer:
            self._check_host(request)
            if page.guarded and self._auth is not None:
                verified = verify(self._auth, request.headers, b"", 0)
                if not verified.ok and page.locked is not None:
                    return await page.locked(request)
                if not verified.ok:
                    raise Refused(401, verified.reason, headers=challenge(self._auth))
            elif request.method == "POST" and foreign_page(request.headers):
                raise Refused(401, "web pages of other sites may not post here; set `server.token`")
            try:
                return await page.handler(request)
            except EngineError:
                raise Refused(503, "the engine does not answer right now", headers=retry_after(1)) from None

        return handler

    def _check_host(self, request: web.BaseRequest) -> None:
        """Refuse names other than loopback on a loopback listener: a web page could point its own name here."""
        if self._config.host not in LOOPBACK:
            return
        given = request.headers.get("Host")
        if given is None and request.version < (1, 1):
            return
        try:
            host = urlsplit(f"//{given}").hostname
        except ValueError:
            host = None
        if host not in {*LOOPBACK, self._config.host}:
            raise Refused(421, f"this server answers to {self.url} only")

    async def _healthz(self, request: web.BaseRequest) -> web.Response:
        late_s = self._monotonic() - self._beat
        if late_s > LATE_S:
            raise Refused(503, f"the event loop was blocked for {late_s:.0f} s; look for a tool that blocks")
        return json_reply(200, {"status": "ok"})

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        reasons = list(self._state.ready())
        if self._listeners.draining:
            reasons.append("the pool is stopping")
        hosts = [host.to_dict() for host in self._state.hosts()]
        page = {"ready": not reasons, "reasons": reasons, **({"hosts": hosts} if hosts else {})}
        return json_reply(503 if reasons else 200, page)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        counts = await self._state.counts()
        samples = [
            Sample("llmling_uptime_seconds", self._monotonic() - self._started, help="Time since the pool started."),
            Sample("llmling_ready", float(not self._state.ready()), help="1 when the pool is ready."),
            *(
                Sample("llmling_events", count, {"status": status}, help="Recorded events by status.")
                for status, count in counts.items()
            ),
            *self._state.metrics(),
        ]
        response = text_reply(200, exposition(samples))
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    async def _event(self, request: web.BaseRequest) -> web.Response:
        event_id = request.path.removeprefix("/events/")
        record = await self._state.inspect(event_id)
        if record is None:
            raise Refused(404, "there is no such event; `llmling events list` shows those that are kept")
        return json_reply(200, event_page(record))


def event_page(record: EventRecord) -> dict[str, Any]:
    """Return what `GET /events/{id}` answers: the object of `events --json`, answer, hops, and what is asked."""
    hops = [
        {
            "agent": hop.agent,
            "status": hop.status,
            "attempts": hop.attempts,
            "content": hop.content,
            "error": hop.error,
            **({} if hop.waits_for is None else {"waits_for": hop.waits_for}),
            **({} if hop.host is None else {"host": hop.host}),
        }
        for hop in record.deliveries
    ]
    page = {**record.to_dict(), "content": record.content, "hops": hops}
    return {**page, "asks": asks} if (asks := asked(record)) else page
