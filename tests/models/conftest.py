"""One server for all comparisons of a module, so that litellm makes its clients once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from llm_server import LLMServer

from llmling.models.clients import close_clients


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[LLMServer]:
    """Answer on the loop of the module; for tests that name its address themselves."""
    async with LLMServer() as server:
        yield server
        await close_clients()
