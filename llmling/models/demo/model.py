"""The demo model: offline, the same answer to the same input, and it says that nobody was asked."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llmling.manifest.models import DemoModelConfig, Price
from llmling.messages import Message, ToolCallPart, ToolCallResponsePart
from llmling.models.demo.instance import Unsatisfiable, instance
from llmling.models.demo.material import Material
from llmling.models.offline import offline_response, pieces
from llmling.models.prices import FREE
from llmling.protocols import ModelRequest, ModelResponse, TextDelta, ToolSpec
from llmling.runtime.services import Services

NOTICE = "[demo] No model was asked; this answer repeats its input:"
_STOP_WORDS = frozenset(
    {
        "the", "and", "for", "with", "from", "that", "this", "are", "was", "were", "has", "have", "had",
        "not", "you", "your", "its", "into", "out", "all", "any", "can", "will", "may", "one", "two", "use",
        "used", "using", "get", "gets", "set", "make", "makes", "give", "given", "return", "returns", "call",
        "calls", "tool", "when", "what", "which", "who", "how", "why", "than", "then", "there", "here",
        "also", "only", "more", "most", "some", "such", "each", "about", "after", "before", "over", "under",
        "between", "please", "file", "text",
    }
)  # fmt: skip


class DemoModel:
    """Answers offline: a tool call when a tool fits, a valid object for a schema, else sentences of the input."""

    def __init__(self, config: DemoModelConfig | None = None, services: Services | None = None) -> None:
        self._config = config or DemoModelConfig()

    @property
    def name(self) -> str:
        """`demo`."""
        return "demo"

    async def price(self) -> Price:
        """Return that it is free."""
        return FREE

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the answer; never fails for want of anything outside."""
        return self._answer(request)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield the answer word by word and, last, the whole response."""
        response = self._answer(request)
        for piece in pieces(response.message.text):
            yield TextDelta(piece)
        yield response

    def _answer(self, request: ModelRequest) -> ModelResponse:
        turn = _since_user(request.messages)
        material = Material(turn[0].text if turn else "")
        call = None if any(message.tool_calls for message in turn) else _call(request, material)
        if call is not None:
            message = Message("assistant", (call,))
        elif request.output_schema is not None:
            message = Message.assistant(_object(request, material))
        else:
            message = Message.assistant(_prose(turn, material))
        return offline_response(message, request, self.name)


def _since_user(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the exchange from the last message of the user on."""
    last = max((place for place, message in enumerate(messages) if message.role == "user"), default=0)
    return messages[last:]


def _prose(turn: Sequence[Message], material: Material) -> str:
    answers = [part for message in turn for part in message.parts if isinstance(part, ToolCallResponsePart)]
    lines = [
        NOTICE,
        *(f"The tool {answer.name} {_verb(answer)}: {_cut(answer.response)}" for answer in answers),
    ]
    lines += [_cut(sentence) for sentence in material.sentences[:3]] or ["(it has no words)"]
    return "\n".join(lines)


def _verb(answer: ToolCallResponsePart) -> str:
    return "failed" if answer.failed else "answered"


def _object(request: ModelRequest, material: Material) -> str:
    assert request.output_schema is not None  # noqa: S101 - told apart by the caller
    try:
        value = instance(request.output_schema, material, mark="[demo] ")
    except Unsatisfiable as error:
        return f"{NOTICE}\n{error}"
    return json.dumps(value, ensure_ascii=False)


def _call(request: ModelRequest, material: Material) -> ToolCallPart | None:
    """Return a call of the tool that has most words in common with the message, or None when none has any."""
    said = {_stem(word) for word in _split(material.text)} - _STOP_WORDS
    scored = [(_score(tool, said), tool) for tool in request.tools]
    score, tool = max(scored, key=lambda pair: pair[0], default=(0, None))
    if tool is None or score == 0:
        return None
    try:
        arguments: Any = instance(tool.parameters, material)
    except Unsatisfiable:
        return None
    return ToolCallPart(f"demo_{len(request.messages)}", tool.name, arguments)


def _score(tool: ToolSpec, said: set[str]) -> int:
    named = {_stem(word) for word in _split(re.sub(r"([a-z])([A-Z])", r"\1 \2", tool.name))} - _STOP_WORDS
    described = {_stem(word) for word in _split(tool.description)} - _STOP_WORDS
    return 3 * len(named & said) + len(described & said)


def _split(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W_]{3,}", text.lower()) if word not in _STOP_WORDS]


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _cut(text: str, limit: int = 600) -> str:
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."
