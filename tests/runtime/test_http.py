from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from aiohttp import ClientError, ClientSession, web

from llmling.runtime.http import close_http, http_scope, http_session


async def _serve(*, gate: asyncio.Barrier | None = None) -> tuple[web.AppRunner, str]:
    async def hello(request: web.Request) -> web.Response:
        if gate is not None:
            await gate.wait()
            await gate.wait()
        return web.Response(text=request.headers.get("Cookie", "no cookie"), headers={"Set-Cookie": "a=b"})

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def _get(url: str) -> str:
    async with http_session().get(url) as response:
        return await response.text()


def test_a_loop_closes_its_session_when_it_ends() -> None:
    sessions: list[ClientSession] = []

    async def work() -> str:
        runner, url = await _serve()
        try:
            answers = await asyncio.gather(_get(url), _get(url))
            sessions.append(http_session())
            assert http_session() is sessions[-1]
            return answers[0]
        finally:
            await runner.cleanup()

    # A leak would be a ResourceWarning, and thus an error, when the sessions are collected.
    assert [asyncio.run(work()), asyncio.run(work())] == ["no cookie", "no cookie"]
    assert sessions[0] is not sessions[1]
    assert all(session.closed for session in sessions)
    sessions.clear()
    gc.collect()


def test_a_closed_loop_is_not_kept_alive() -> None:
    loop = asyncio.new_event_loop()

    async def work() -> None:
        await http_session().close()

    loop.run_until_complete(work())
    loop.close()
    gone = weakref.ref(loop)
    del loop
    asyncio.run(work())
    gc.collect()
    assert gone() is None


async def test_sends_no_cookies_back() -> None:
    runner, url = await _serve()
    assert [await _get(url), await _get(url)] == ["no cookie", "no cookie"]
    await runner.cleanup()


async def test_close_ends_it_now_and_the_next_use_opens_another() -> None:
    await close_http()
    first = http_session()
    await close_http()
    assert first.closed
    assert not http_session().closed


async def test_the_last_scope_closes_it() -> None:
    async with http_scope() as outer:
        async with http_scope() as inner:
            assert inner is outer
        assert not outer.closed
    assert outer.closed


async def test_a_scope_bears_a_close_in_between() -> None:
    async with http_scope() as session:
        await close_http()
        assert session.closed
        fresh = http_session()
    assert not fresh.closed


async def test_a_request_under_way_fails_when_it_is_closed() -> None:
    gate = asyncio.Barrier(2)
    runner, url = await _serve(gate=gate)
    request = asyncio.create_task(_get(url))
    await asyncio.wait_for(gate.wait(), 30)
    await close_http()
    with pytest.raises(ClientError):
        await asyncio.wait_for(request, 30)
    await asyncio.wait_for(gate.wait(), 30)
    await runner.cleanup()


def test_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        http_session()
