"""One HTTP session per running loop for all litellm models, closed with the loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import weakref
from collections.abc import AsyncGenerator
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


async def session() -> aiohttp.ClientSession:
    """Return the running loop's session.

    `close_clients` closes it; otherwise the loop does when it shuts down its asynchronous generators, which
    `asyncio.run` does last. So a model that nobody closes leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    holder = _holders.get(loop)
    if holder is None or holder.session.closed:
        _holders[loop] = holder = _Holder()
        await anext(holder.keeper)
    return holder.session


async def close_clients() -> None:
    """Close the running loop's session and every client litellm keeps for this loop; models stay usable."""
    holder = _holders.pop(asyncio.get_running_loop(), None)
    if holder is not None:
        await holder.keeper.aclose()


async def _keep(opened: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await _forget_clients()
        await opened.close()


async def _forget_clients() -> None:
    # litellm caches its clients under `...-<id of the loop>`. The id may be given again to a later loop, so they go
    # with this one. Nothing is imported: without litellm there is nothing to close.
    cache: Any = getattr(sys.modules.get("litellm"), "in_memory_llm_clients_cache", None)
    entries: dict[str, Any] = getattr(cache, "cache_dict", {})
    mark = f"-{id(asyncio.get_running_loop())}"
    for key in [key for key in entries if key.endswith(mark)]:
        client = entries.pop(key)
        closing = getattr(client, "close", None) or getattr(client, "aclose", None)
        if closing is None:
            continue
        try:
            result = closing()
            if asyncio.iscoroutine(result):
                await result
        except (OSError, RuntimeError) as error:
            logger.warning("an HTTP client did not close: %s", error)
