"""The parts of an agent: what fails at the start is named, left out, and tried again."""

from __future__ import annotations

import pytest
from aiohttp import web
from serving import free_port

from llmling import Agent
from llmling.manifest.agents import AgentConfig
from llmling.runtime.services import Services
from llmling.testing import FakeClock, ScriptedModel


async def test_knowledge_that_was_not_there_at_the_start_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    port, clock = free_port(), FakeClock()
    page = {"type": "url", "url": f"http://127.0.0.1:{port}/page", "allow_private": True}
    config = AgentConfig.model_validate({"knowledge": [page, {"type": "text", "content": "Known anyway."}]})
    model = ScriptedModel(["one", "two", "three", "four", "five", "six"])
    agent = Agent.from_config("reader", config, Services(clock=clock), model=model)

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text="The page is here.")

    async with agent:
        assert agent.parts.state == "degraded"
        assert "knowledge[0]" in agent.parts.reasons[0]
        await agent.run("What is new?")
        for _ in range(3):
            await clock.advance(31)
            await agent.run("And now?")
        # Of a page that is gone for days, no more is kept than of one that is gone for a minute.
        assert agent.parts._lifespans is not None  # pyright: ignore[reportPrivateUsage]
        assert len(agent.parts._lifespans.timings) == 2  # pyright: ignore[reportPrivateUsage]
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            await agent.run("And now?")
            await clock.advance(31)
            await agent.run("And now?")
        finally:
            await runner.cleanup()
        assert agent.parts.state == "ready"
    systems = [request.messages[0].text for request in model.requests]
    assert all("Known anyway." in system for system in systems)
    assert ["The page is here." in system for system in systems] == [False] * 5 + [True]
    assert "the agent works without it" in caplog.text
