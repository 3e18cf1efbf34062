"""What holds for every test."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from llm_server import LLMServer
from providers import KEY

from llmling.models.clients import close_clients


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Let two workers share a core: much of a test is waiting for processes and servers that it has started."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(2 * cores, 16)


@pytest.fixture(autouse=True)
def no_log_goes_to_a_terminal_that_is_gone() -> Iterator[None]:
    """Take away what a command that a test runs in its own process has set up for standard error."""
    yield
    root, plain = logging.getLogger(), logging.StreamHandler.__name__
    for handler in list(root.handlers):
        if type(handler).__name__ == plain:
            root.removeHandler(handler)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LLMServer]:
    """Answer for OpenAI, Anthropic, Gemini and Ollama; no task of ours may be left when the test is over."""
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
