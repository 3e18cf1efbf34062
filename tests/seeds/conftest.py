"""The loopback server that every provider's address points to, for the rows of the seed pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from llm_server import LLMServer

from llmling.models.clients import close_clients

KEY = "sk-loopback-0123456789"


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LLMServer]:
    """Answer for OpenAI, Anthropic, Gemini and Ollama; no task may be left when the test is over."""
    before = asyncio.all_tasks()
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
        serving = asyncio.all_tasks()
        yield server
        await close_clients()
    left = {task for task in asyncio.all_tasks() - before - serving if "llmling" in repr(task)}
    assert left == set()
