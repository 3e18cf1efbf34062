"""One HTTP session per running loop for all litellm models, closed with the loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp

logger = logging.getLogger("llmling.models")

_holders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Holder] = weakref.WeakKeyDictionary()


class _Holder:
    """The session of one loop, and the generator whose end closes it."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=120, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self.keeper = _keep(self.session)


def session() -> aiohttp.ClientSession:
    """Return the running loop's session.

    `close_clients` closes it; otherwise the loop does when it shuts down its asynchronous generators, which
    `asyncio.run` does last. So a model that nobody closes leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    holder = _holders.get(loop)
    if holder is None or holder.session.closed:
        _holders[loop] = holder = _Holder()
        _begin(holder.keeper)
    return holder.session


async def close_clients() -> None:
    """Close the running loop's session and every client litellm keeps for this loop; models stay usable."""
    holder = _holders.pop(asyncio.get_running_loop(), None)
    if holder is not None:
        await holder.keeper.aclose()


def _begin(keeper: AsyncGenerator[None, None]) -> None:
    """Run a generator to its first `yield`; nothing before it awaits, so no turn of the loop is needed."""
    try:
        anext(keeper).__await__().send(None)
    except StopIteration:
        return


async def _keep(opened: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await _forget_clients()
        await opened.close()


class LoopClient:
    """Stands where litellm keeps one client per process, and is the running loop's own one.

    litellm streams Anthropic's answers through that client on whichever loop is running, so two threads would share
    a connection and the first loop to end would cut the other's answer.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        # litellm's own cache holds the client, under the id of the loop.
        return getattr(self._make(), name)


async def _forget_clients() -> None:
    # litellm caches its clients under `...-<id of the loop>`, or without it when it made them in a thread. The id may
    # be given again to a later loop, so they go with this one. Nothing is imported: without litellm there are none.
    litellm = sys.modules.get("litellm")
    names: dict[str, Any] = vars(litellm) if litellm else {}
    cached: dict[str, Any] = getattr(names.get("in_memory_llm_clients_cache"), "cache_dict", {})
    loop = asyncio.get_running_loop()
    for key, client in list(cached.items()):
        if key.endswith(f"-{id(loop)}") or _loop_of(client) is loop:
            cached.pop(key, None)
            await _close(client)


async def _close(client: Any) -> None:
    closing = getattr(client, "close", None) or getattr(client, "aclose", None)
    try:
        result = closing() if closing else None
        if asyncio.iscoroutine(result):
            await result
    except (OSError, RuntimeError) as error:
        logger.warning("an HTTP client did not close: %s", error)


def _loop_of(client: Any) -> Any:
    """Return the loop of the session below litellm's handler, httpx's client and its transport; None without one."""
    inner = getattr(client, "client", None) or getattr(client, "_client", None)
    transport = getattr(inner, "_transport", None)
    return getattr(getattr(transport, "client", None), "_loop", None)
