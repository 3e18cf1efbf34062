"""How many tokens an exchange takes, without the tokenizer of its model: by length, put right by what was counted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from llmling.messages import Message, TextPart, ToolCallPart
from llmling.protocols import ToolSpec

BYTES_PER_TOKEN = 3
"""English has more than four bytes in a token, JSON, code and Chinese about three."""
_PER_PART = 4
_LOWEST = 0.25
"""No text has more than twelve bytes in a token: a provider that counts less does not count everything."""


class Gauge:
    """Estimates the tokens of one run's requests, rather too many than too few.

    After an answer the estimate of what the provider has counted follows its count; what has come since is estimated
    as before, or higher when the provider counts more.
    """

    def __init__(self) -> None:
        self._ratio: float | None = None
        self._counted = 0
        self._raw: dict[int, float] = {}

    def observe(self, input_tokens: int, estimate: float, messages: int) -> None:
        """Take the provider's count of a request with the first `messages` of the exchange; `estimate` is by length."""
        if input_tokens > 0 and estimate > 0:
            self._ratio = max(_LOWEST, input_tokens / estimate)
            self._counted = messages

    def message(self, message: Message, index: int) -> float:
        """Return the tokens of a message that stands, whole or cut, at `index` of the exchange."""
        return raw(message) * self._factor(index)

    def whole(self, message: Message, index: int) -> float:
        """Return the tokens of the message at `index` of the exchange, which is measured once."""
        if index not in self._raw:
            self._raw[index] = raw(message)
        return self._raw[index] * self._factor(index)

    def text(self, text: str) -> float:
        """Return the tokens of a text the provider has not counted."""
        return raw_text(text) * self._unknown

    def offer(self, tools: Sequence[ToolSpec], schema: Any) -> float:
        """Return the tokens of the tools on offer and of the shape of the answer."""
        return raw_offer(tools, schema) * (self._ratio or 1.0)

    def clip(self, text: str, tokens: float) -> str:
        """Return the beginning of a text that takes at most so many tokens."""
        room = max(0, math.floor((tokens / self._unknown - _PER_PART) * BYTES_PER_TOKEN))
        data = text.encode("utf-8", "replace")
        return text if len(data) <= room else data[:room].decode("utf-8", "ignore")

    def _factor(self, index: int) -> float:
        return self._ratio if self._ratio is not None and index < self._counted else self._unknown

    @property
    def _unknown(self) -> float:
        return max(1.0, self._ratio or 1.0)


def raw(message: Message) -> float:
    """Return the tokens of a message by its length alone."""
    total = 0.0
    for part in message.parts:
        if isinstance(part, TextPart):
            total += raw_text(part.content)
        elif isinstance(part, ToolCallPart):
            total += raw_text(part.id) + raw_text(part.name) + raw_text(part.arguments_json())
        else:
            total += raw_text(part.id) + raw_text(part.response)
    return total + _PER_PART


def raw_text(text: str) -> float:
    """Return the tokens of a text by its length alone."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size / BYTES_PER_TOKEN + _PER_PART


def raw_offer(tools: Sequence[ToolSpec], schema: Any) -> float:
    """Return the tokens of tools and of a schema by their length alone."""
    texts = [f"{tool.name} {tool.description} {json.dumps(dict(tool.parameters), default=str)}" for tool in tools]
    if schema is not None:
        texts.append(json.dumps(dict(schema), default=str))
    return sum(map(raw_text, texts))
