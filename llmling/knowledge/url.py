"""Pages from the web, kept and fetched again when they are old."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

from llmling.errors import StartupError
from llmling.manifest.knowledge import UrlKnowledgeConfig
from llmling.runtime.fetch import FetchError, fetch, shown
from llmling.runtime.services import Services

logger = logging.getLogger(__name__)

_RETRY_S = 60.0


class UrlKnowledge:
    """The text of a page, fetched when it is entered.

    The first run after `refresh_s` starts a fetch in the background and goes on with the text at hand; when that
    fails, the old text stays and the next try follows after at most a minute. Leaving it ends a fetch.
    """

    def __init__(self, config: UrlKnowledgeConfig, services: Services) -> None:
        self._config = config
        self._clock = services.clock
        self._text: str | None = None
        self._due_s = 0.0
        self._tasks: asyncio.TaskGroup | None = None
        self._refresh: asyncio.Task[None] | None = None

    @property
    def title(self) -> str:
        """Short name shown to the model above the text."""
        return shown(self._config.url)

    async def __aenter__(self) -> Self:
        try:
            await self._fetch()
        except FetchError as error:
            raise StartupError(str(error)) from None
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks, self._tasks = self._tasks, None
        if self._refresh is not None:
            self._refresh.cancel()
        if tasks is not None:
            await tasks.__aexit__(None, None, None)

    async def text(self, query: str) -> str:
        """Return the page as last fetched, whatever the query."""
        if self._text is None or self._tasks is None:
            raise StartupError(f"{self.title} was not fetched: enter it with `async with` first")
        idle = self._refresh is None or self._refresh.done()
        if idle and self._config.refresh_s > 0 and self._clock.monotonic() >= self._due_s:
            self._refresh = self._tasks.create_task(self._try_again())
        return self._text

    async def _fetch(self) -> None:
        self._text = await fetch(
            self._config.url, max_bytes=self._config.max_bytes, allow_private=self._config.allow_private
        )
        self._due_s = self._clock.monotonic() + self._config.refresh_s

    async def _try_again(self) -> None:
        try:
            await self._fetch()
        except FetchError as error:
            logger.warning("%s; the text fetched before stays in use", error)
            self._due_s = self._clock.monotonic() + min(_RETRY_S, self._config.refresh_s)
