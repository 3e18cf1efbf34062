"""Resources of MCP servers, read for every run."""

from __future__ import annotations

import logging
from typing import Self

from llmling.errors import LLMlingError, StartupError
from llmling.manifest.knowledge import ResourceKnowledgeConfig
from llmling.runtime.services import Services

logger = logging.getLogger(__name__)


class ResourceKnowledge:
    """A resource of an MCP server.

    It is read only when a run asks: a server may still be starting, or be gone for a while, and its agents run on.
    """

    def __init__(self, config: ResourceKnowledgeConfig, services: Services) -> None:
        self._config = config
        self._services = services

    @property
    def title(self) -> str:
        """Short name shown to the model above the text."""
        return self._config.uri

    async def __aenter__(self) -> Self:
        known = self._services.providers
        if self._config.server not in known:
            raise StartupError(
                f"resource {self._config.uri!r}: MCP server {self._config.server!r} is not in the pool; "
                f"known: {', '.join(known) or 'none'}",
                usage=True,
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def text(self, query: str) -> str:
        """Return the resource as it is now, or a line that tells the model why it is missing."""
        try:
            return await self._services.read_resource(self._config.server, self._config.uri)
        except LLMlingError as error:
            logger.warning("resource %r of MCP server %r: %s", self._config.uri, self._config.server, error)
            return f"(resource {self._config.uri} is not available right now: {error})"
