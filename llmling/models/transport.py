"""Requests over the running loop's one HTTP session: sent, answered or refused, and hung up on when left."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yarl
from multidict import CIMultiDict

from llmling.models import clients
from llmling.models.failure import Refused

_NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=None)
"""The deadline of the call bounds everything."""
_MOST_OF_AN_ERROR = 65_536


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and what is the same in their heads."""

    url: yarl.URL
    headers: Mapping[str, str] = field(repr=False)
    proxy: str | None = field(repr=False)
    ssl: Any
    """What checks the server's certificate, as litellm has it."""


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
    async with _sent(await clients.session(), target, body) as response:
        if response.status >= 400:
            raise await _refused(response)
        return await response.read()


async def streamed(target: Target, body: bytes) -> AsyncGenerator[bytes, None]:
    """Send a request and yield the body of the answer as it arrives.

    Raises:
        Refused: The answer has an error status.
        aiohttp.ClientError: There was none, or it broke off.
    """
    async with _sent(await clients.session(), target, body) as response:
        if response.status >= 400:
            raise await _refused(response)
        async for part in response.content.iter_any():
            yield part


def _sent(
    session: aiohttp.ClientSession, target: Target, body: bytes
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return session.post(
        target.url, data=body, headers=target.headers, proxy=target.proxy, ssl=target.ssl, timeout=_NO_LIMIT
    )


async def _refused(response: aiohttp.ClientResponse) -> Refused:
    text = (await response.content.read(_MOST_OF_AN_ERROR)).decode(errors="replace")
    return Refused(response.status, response.headers, text)


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    if not proxies or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
