"""The four providers the tests ask through litellm, at a server on the loopback."""

from __future__ import annotations

from typing import Any

import pytest

from llmling import plugins
from llmling.errors import ModelError
from llmling.manifest.models import LiteLLMModelConfig
from llmling.messages import Message
from llmling.protocols import Model, ModelRequest, ToolSpec
from llmling.runtime.services import Services

OPENAI, ANTHROPIC, OLLAMA, GEMINI = (
    "openai/gpt-4o-mini",
    "anthropic/claude-sonnet-4-5",
    "ollama/llama3.2",
    "gemini/gemini-2.5-flash",
)
ALL = pytest.mark.parametrize("name", [OPENAI, ANTHROPIC, OLLAMA, GEMINI])
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ADD = ToolSpec("add", "Adds numbers.", SCHEMA)
REQUEST = ModelRequest((Message.system("Be brief."), Message.user("hello there")))
KEY = "sk-loopback-0123456789"


def model(name: str, **more: Any) -> Model:
    return plugins.create("models", LiteLLMModelConfig(name=name, **more), Services())


async def failure(name: str, request: ModelRequest = REQUEST, *, stream: bool = False) -> ModelError:
    async def ask() -> None:
        if stream:
            [part async for part in model(name).stream(request)]
        else:
            await model(name).request(request)

    with pytest.raises(ModelError) as caught:
        await ask()
    return caught.value
