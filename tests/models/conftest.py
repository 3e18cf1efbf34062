"""A server on the loopback in the place of every provider."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from llm_server import LLMServer
from providers import KEY

from llmling.models.clients import close_clients


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        for variable, value in (
            ("OPENAI_BASE_URL", server.openai_url),
            ("OPENAI_API_KEY", KEY),
            ("ANTHROPIC_BASE_URL", server.url),
            ("ANTHROPIC_API_KEY", KEY),
            ("OLLAMA_API_BASE", server.url),
            ("GEMINI_API_BASE", server.url),
            ("GEMINI_API_KEY", KEY),
        ):
            monkeypatch.setenv(variable, value)
        yield server
        await close_clients()
