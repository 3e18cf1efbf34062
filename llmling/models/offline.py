"""What the models that ask nobody share: answers that cost nothing, say so, and count their tokens by length."""

from __future__ import annotations

import re

from llmling.messages import Message, TextPart, ToolCallPart, Usage
from llmling.protocols import ModelRequest, ModelResponse


def offline_response(message: Message, request: ModelRequest, name: str, usage: Usage | None = None) -> ModelResponse:
    """Return a demo response at no cost; without `usage` its tokens are estimated, the same for the same exchange."""
    used = usage or Usage(sum(map(_tokens, request.messages)), _tokens(message), requests=1)
    return ModelResponse(message, used, name, "tool_calls" if message.tool_calls else "stop", cost_usd=0.0, demo=True)


def pieces(text: str) -> list[str]:
    """Return a text in pieces of one word with the space behind it; joined, they are the text."""
    return re.findall(r"^\s+|\S+\s*", text)


def _tokens(message: Message) -> int:
    characters = 0
    for part in message.parts:
        if isinstance(part, TextPart):
            characters += len(part.content)
        elif isinstance(part, ToolCallPart):
            characters += len(part.name) + len(part.arguments_json())
        else:
            characters += len(part.response)
    return max(1, (characters + 3) // 4)
