"""Requests over the running loop's one HTTP session: sent, answered or refused, and hung up on when left."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yarl
from multidict import CIMultiDict

from llmling.models import clients
from llmling.models.exchange import NO_LIMIT, Line, Reply, known
from llmling.models.failure import Refused

_MOST_OF_AN_ERROR = 65_536


class Target:
    """Where requests go and what is the same in their heads."""

    __slots__ = ("_known", "headers", "proxy", "ssl", "url")

    def __init__(self, url: yarl.URL, headers: Mapping[str, str], proxy: str | None, ssl: Any) -> None:
        """`ssl` is what checks the server's certificate, as litellm has it."""
        self.url = url
        self.headers = headers
        self.proxy = proxy
        self.ssl = ssl
        self._known: tuple[aiohttp.ClientSession | None, Line | None] = (None, None)

    def line(self, session: aiohttp.ClientSession) -> Line | None:
        """Return the short way over the connections of a session, or None: the session itself must be asked."""
        asked, line = self._known
        if asked is not session:
            line = None if self.proxy or not known() else Line(self.url, self.headers, self.ssl)
            self._known = session, line
        return line


def target_of(url: str, headers: Mapping[str, str], ssl: Any) -> Target:
    """Return a target; a proxy is taken from the environment, as `HTTPS_PROXY` and `NO_PROXY` say."""
    own = CIMultiDict({"User-Agent": "llmling", **headers})
    own.setdefault("Content-Type", "application/json")
    return Target(yarl.URL(url, encoded=True), own, _proxy(url), True if ssl is None else ssl)


async def answered(target: Target, body: bytes) -> bytes:
    """Send a request and return the body of the answer.

    Raises:
        Refused: The answer has an error status.
        aiohttp.ClientError: There was none, or it broke off.
    """
    reply = await _sent(target, body)
    try:
        said = await reply.content.read() if reply.status < 400 else await _refused(reply)
    finally:
        # The connection is only kept when all of the answer was read.
        reply.release()
    if isinstance(said, Refused):
        raise said
    return said


async def streamed(target: Target, body: bytes) -> AsyncGenerator[bytes, None]:
    """Send a request and yield the body of the answer as it arrives.

    Raises:
        Refused: The answer has an error status.
        aiohttp.ClientError: There was none, or it broke off.
    """
    reply = await _sent(target, body)
    try:
        if reply.status >= 400:
            raise await _refused(reply)
        while part := await reply.content.readany():
            yield part
    finally:
        reply.release()


def _sent(target: Target, body: bytes) -> Awaitable[Reply]:
    session = clients.session()
    line = target.line(session)
    if line is not None:
        return line.post(session, body)
    return session.post(
        target.url, data=body, headers=target.headers, proxy=target.proxy, ssl=target.ssl, timeout=NO_LIMIT
    )


async def _refused(reply: Reply) -> Refused:
    text = (await reply.content.read(_MOST_OF_AN_ERROR)).decode(errors="replace")
    return Refused(reply.status, reply.headers, text)


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    if not proxies or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
