"""HTTP out: one client session per running loop, shared by everything of ours that sends requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

USER_AGENT = "llmling"
_CONNECTIONS = 100


@dataclass(slots=True)
class _Shared:
    session: ClientSession
    keeper: AsyncGenerator[None, None]
    users: int = 0


_shared: dict[asyncio.AbstractEventLoop, _Shared] = {}


def http_session() -> ClientSession:
    """Return the session of the running loop, without cookies and with a timeout of 60 s unless a request sets its own.

    It is closed by `close_http`, when the last `http_scope` is left, or else by the loop when it shuts down.

    Raises:
        RuntimeError: No event loop is running.
    """
    return _open().session


@asynccontextmanager
async def http_scope() -> AsyncGenerator[ClientSession, None]:
    """Hold the session of the running loop open; it is closed when the last scope on this loop is left."""
    shared = _open()
    shared.users += 1
    try:
        yield shared.session
    finally:
        shared.users -= 1
        if shared.users == 0 and not shared.session.closed:
            await shared.keeper.aclose()


async def close_http() -> None:
    """Close the session of the running loop, if there is one; requests under way fail, the next one opens another."""
    shared = _shared.get(asyncio.get_running_loop())
    if shared is not None:
        await shared.keeper.aclose()


def _open() -> _Shared:
    loop = asyncio.get_running_loop()
    shared = _shared.get(loop)
    if shared is not None and not shared.session.closed:
        return shared
    # Loops that were closed without shutting down their generators must not be kept alive from here.
    for gone in [known for known in _shared if known.is_closed()]:
        del _shared[gone]
    session = ClientSession(
        connector=TCPConnector(limit=_CONNECTIONS),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=60.0),
        headers={"User-Agent": USER_AGENT},
    )
    shared = _shared[loop] = _Shared(session, _keep(loop, session))
    _advance(shared.keeper)
    return shared


async def _keep(loop: asyncio.AbstractEventLoop, session: ClientSession) -> AsyncGenerator[None, None]:
    """Close the session at the end: a loop closes its suspended async generators when it shuts down."""
    try:
        yield
    finally:
        if (shared := _shared.get(loop)) is not None and shared.session is session:
            del _shared[loop]
        await session.close()


def _advance(generator: AsyncGenerator[None, None]) -> None:
    """Run a generator to its first `yield`; nothing before it awaits, so no loop turn is needed."""
    step = generator.__anext__()
    try:
        step.send(None)
    except StopIteration:
        return
