from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from llmling.errors import StartupError
from llmling.knowledge.url import UrlKnowledge
from llmling.manifest.knowledge import UrlKnowledgeConfig
from llmling.runtime.services import Services
from llmling.testing import FakeClock


@dataclass(slots=True)
class Page:
    url: str = ""
    text: str | None = "first"
    hits: int = 0
    hang: asyncio.Event | None = None


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    it = Page()

    async def show(request: web.Request) -> web.Response:
        it.hits += 1
        if it.hang is not None:
            await it.hang.wait()
        return web.Response(text=it.text) if it.text is not None else web.Response(status=500)

    app = web.Application()
    app.router.add_get("/x.md", show)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/x.md"
    yield it
    if it.hang is not None:
        it.hang.set()
    await runner.cleanup()


def source(url: str, clock: FakeClock, **keys: Any) -> UrlKnowledge:
    return UrlKnowledge(
        UrlKnowledgeConfig.model_validate({"url": url, "allow_private": True, **keys}), Services(clock=clock)
    )


async def until(it: UrlKnowledge, text: str) -> None:
    async with asyncio.timeout(30):
        while await it.text("") != text:  # noqa: ASYNC110 - the server is on the other side of a socket
            await asyncio.sleep(0.01)


async def hits(page: Page, count: int) -> None:
    async with asyncio.timeout(30):
        while page.hits < count:  # noqa: ASYNC110 - the server is on the other side of a socket
            await asyncio.sleep(0.01)


async def test_an_old_page_is_fetched_again_in_the_background(page: Page) -> None:
    clock = FakeClock()
    async with source(f"{page.url}?token=x", clock) as it:
        assert it.title == page.url
        page.text = "second"
        assert await it.text("") == "first"
        assert page.hits == 1
        await clock.advance(3600)
        assert await it.text("") == "first"
        await until(it, "second")
        assert page.hits == 2


async def test_a_page_that_fails_later_leaves_the_old_text(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    async with source(page.url, clock) as it:
        page.text = None
        await clock.advance(3600)
        with caplog.at_level(logging.WARNING):
            await it.text("")
            async with asyncio.timeout(30):
                while not caplog.records:  # noqa: ASYNC110 - the log has no event
                    await asyncio.sleep(0.01)
        assert "answered 500 Internal Server Error; the text fetched before stays in use" in caplog.text
        assert await it.text("") == "first"
        assert page.hits == 2
        page.text = "third"
        await clock.advance(60)
        await until(it, "third")


async def test_zero_is_never_again(page: Page) -> None:
    clock = FakeClock()
    async with source(page.url, clock, refresh_s=0) as it:
        await clock.advance(1_000_000)
        assert await it.text("") == "first"
    assert page.hits == 1


async def test_leaving_ends_a_fetch(page: Page) -> None:
    clock = FakeClock()
    async with asyncio.timeout(30), source(page.url, clock) as it:
        page.hang = asyncio.Event()
        await clock.advance(3600)
        await it.text("")
        await hits(page, 2)


async def test_the_first_fetch_must_succeed(page: Page) -> None:
    page.text = None
    with pytest.raises(StartupError, match="answered 500"):
        async with source(page.url, FakeClock()):
            pytest.fail("entered")


async def test_private_addresses_need_permission(page: Page) -> None:
    with pytest.raises(StartupError, match="write `allow_private: true`"):
        async with source(page.url, FakeClock(), allow_private=False):
            pytest.fail("entered")
    assert page.hits == 0
