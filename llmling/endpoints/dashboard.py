"""The dashboard: one page that shows the pool as it is now, the picture in it, and the numbers behind it as JSON."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Protocol, get_args

from aiohttp import web

from llmling.records import EventRecord, EventStatus, Host
from llmling.server.health import Page
from llmling.server.reply import Refused, json_reply, text_reply

MOST_EVENTS = 200
_HTML = files("llmling.endpoints").joinpath("dashboard.html").read_text("utf-8")


class Report(Protocol):
    """Agents, triggers, MCP servers and notices."""

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain data."""
        ...


class Shown(Protocol):
    """What the page asks the pool."""

    @property
    def report(self) -> Report:
        """What is running right now."""
        ...

    def ready(self) -> Sequence[str]:
        """Return why the pool is not ready; nothing when it is."""
        ...

    def hosts(self) -> Sequence[Host]:
        """Return the processes that serve the same events, where several may."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Return how many events there are by status."""
        ...


class Dashboard:
    """Answers `GET /` with the page, and `GET /status` and `GET /graph.svg` with what it shows.

    `events` gives records by `status` up to a `limit`, newest first; `picture` draws the topology, in a thread. The
    page holds no data itself and loads nothing from elsewhere; with a `server.token` it asks for it, keeps it for the
    browser tab and sends it with each request.
    """

    def __init__(
        self, title: str, pool: Shown, events: Callable[..., AsyncIterator[EventRecord]], picture: Callable[[], str]
    ) -> None:
        self._title = title
        self._pool = pool
        self._events = events
        self._picture = picture
        self._started = time.monotonic()

    @property
    def pages(self) -> tuple[Page, ...]:
        """What to serve."""
        return (
            Page("GET", "/", self._page, locked=self._locked),
            Page("GET", "/status", self._status),
            Page("GET", "/graph.svg", self._graph),
        )

    async def _page(self, request: web.BaseRequest) -> web.Response:
        return _html(200)

    async def _locked(self, request: web.BaseRequest) -> web.Response:
        return _html(401)

    async def _graph(self, request: web.BaseRequest) -> web.Response:
        return text_reply(200, await asyncio.to_thread(self._picture), content_type="image/svg+xml")

    async def _status(self, request: web.BaseRequest) -> web.Response:
        wanted = request.query.get("status")
        status: EventStatus | None = next((known for known in get_args(EventStatus) if known == wanted), None)
        if wanted and status is None:
            raise Refused(400, f"unknown status {wanted[:20]!r}; one of {', '.join(get_args(EventStatus))}")
        events = [record.to_dict() async for record in self._events(status=status, limit=MOST_EVENTS)]
        reasons = list(self._pool.ready())
        return json_reply(
            200,
            {
                "title": self._title,
                "now": time.time(),
                "uptime_s": time.monotonic() - self._started,
                "ready": not reasons,
                "reasons": reasons,
                "counts": dict(await self._pool.counts()),
                **self._pool.report.to_dict(),
                "hosts": [host.to_dict() for host in self._pool.hosts()],
                "events": events,
            },
        )


def _html(status: int) -> web.Response:
    response = text_reply(status, _HTML, content_type="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _hash(tag: str) -> str:
    match = re.search(rf"<{tag}>(.*?)</{tag}>", _HTML, re.DOTALL)
    if match is None:
        raise ValueError(f"dashboard.html has no <{tag}>")
    return f"'sha256-{base64.b64encode(hashlib.sha256(match[1].encode()).digest()).decode()}'"


# What events hold is written by strangers: only our own script and style may run, and only this server is asked.
_POLICY = (
    f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; connect-src 'self'; img-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
