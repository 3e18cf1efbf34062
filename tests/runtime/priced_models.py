"""Models whose answers cost something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from llm_server import LLMServer

from llmling import Agent
from llmling.messages import Message, Usage
from llmling.protocols import ModelRequest, ModelResponse


def costing(usd: float, *, gate: asyncio.Event | None = None, tokens: int = 10) -> Callable[[ModelRequest], Any]:
    """Return an answer at a price; with a gate it comes when that opens."""

    async def answer(request: ModelRequest) -> ModelResponse:
        if gate is not None:
            await gate.wait()
        return ModelResponse(Message.assistant("ok"), Usage(tokens, 0, 1), "m", cost_usd=usd)

    return answer


def priced(server: LLMServer, **more: Any) -> dict[str, Any]:
    return {"type": "litellm", "name": "openai/mine", "api_base": server.openai_url, "api_key": "k", **more}


async def outcomes(agent: Agent[Any], count: int) -> list[str]:
    found = await agent.run_many(["hello"] * count, return_exceptions=True)
    return [type(each).__name__ for each in found]
