"""What models, agents, tools and connections exchange, in the words of the OpenTelemetry GenAI conventions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal, TypeAlias

from llmling.frozen import frozen

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@frozen
class TextPart:
    """Plain text."""

    content: str
    type: Literal["text"] = "text"


@frozen
class ToolCallPart:
    """The model asks for a tool.

    `arguments` is what the model sent: a mapping, or the raw text when it is not a JSON object.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] | str
    type: Literal["tool_call"] = "tool_call"

    def arguments_json(self) -> str:
        """Return the arguments as the JSON text that went over the wire."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments, ensure_ascii=False)


@frozen
class ToolCallResponsePart:
    """What the tool answered; `failed` marks an error text."""

    id: str
    name: str
    response: str
    failed: bool = False
    type: Literal["tool_call_response"] = "tool_call_response"


Part: TypeAlias = TextPart | ToolCallPart | ToolCallResponsePart


@frozen
class Message:
    """One turn: a role and its parts.

    `name` is the agent or trigger that wrote it. `Message.user("hi")` is short for one text part.

    Example:
        >>> Message.user("hi").text
        'hi'
    """

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    @classmethod
    def system(cls, text: str) -> Message:
        """Return a system message of one text part."""
        return cls("system", (TextPart(text),))

    @classmethod
    def user(cls, text: str, *, name: str | None = None) -> Message:
        """Return a user message of one text part."""
        return cls("user", (TextPart(text),), name)

    @classmethod
    def assistant(cls, text: str, *, name: str | None = None) -> Message:
        """Return an assistant message of one text part."""
        return cls("assistant", (TextPart(text),), name)

    @property
    def text(self) -> str:
        """All text parts joined; tool calls and their responses are left out."""
        parts = self.parts
        if len(parts) == 1:
            return parts[0].content if isinstance(parts[0], TextPart) else ""
        return "".join([part.content for part in parts if isinstance(part, TextPart)])

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls of this message, in the model's order."""
        if len(self.parts) == 1 and type(self.parts[0]) is TextPart:
            return ()
        return tuple([part for part in self.parts if isinstance(part, ToolCallPart)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` takes back and JSON can hold."""
        parts: list[dict[str, Any]] = []
        for part in self.parts:
            if isinstance(part, TextPart):
                parts.append({"type": "text", "content": part.content})
            elif isinstance(part, ToolCallPart):
                arguments = part.arguments if isinstance(part.arguments, str) else dict(part.arguments)
                parts.append({"type": "tool_call", "id": part.id, "name": part.name, "arguments": arguments})
            else:
                parts.append(
                    {
                        "type": "tool_call_response",
                        "id": part.id,
                        "name": part.name,
                        "response": part.response,
                        "failed": part.failed,
                    }
                )
        data: dict[str, Any] = {"role": self.role, "parts": parts}
        if self.name is not None:
            data["name"] = self.name
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Build a message from what `to_dict` gave.

        Raises:
            ValueError: A part has an unknown type.
        """
        return cls(data["role"], tuple(_part(part) for part in data["parts"]), data.get("name"))


def _part(data: Mapping[str, Any]) -> Part:
    match data["type"]:
        case "text":
            return TextPart(data["content"])
        case "tool_call":
            return ToolCallPart(data["id"], data["name"], data["arguments"])
        case "tool_call_response":
            return ToolCallResponsePart(data["id"], data["name"], data["response"], data.get("failed", False))
        case unknown:
            raise ValueError(f"unknown message part {unknown!r}")


@frozen
class Usage:
    """What a run used; adds up with `+`."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    tool_calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        if self is NOTHING:
            return other
        if other is NOTHING:
            return self
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.requests + other.requests,
            self.tool_calls + other.tool_calls,
        )

    @property
    def total_tokens(self) -> int:
        """Input plus output tokens."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, int]:
        """Return the counts as plain data."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "requests": self.requests,
            "tool_calls": self.tool_calls,
        }


NOTHING = Usage()
"""What sums begin with."""


@frozen
class RunResult:
    """The outcome of one run.

    `content` is the text, or the validated object when the agent has an `output`; `messages` is the whole
    exchange with the model, `message` its last turn. `cost_usd` is None when a price is not known.
    """

    content: Any
    message: Message
    messages: tuple[Message, ...]
    usage: Usage
    model: str
    agent: str
    run_id: str
    cost_usd: float | None = None
    latency_s: float = 0.0
    stop_reason: str = "stop"
    demo: bool = False
    spans: Sequence[Any] = field(default=())

    @property
    def response(self) -> str:
        """The answer as text, whatever `content` is."""
        return self.message.text

    @property
    def tokens_used(self) -> int:
        """Input plus output tokens of every request of the run."""
        return self.usage.total_tokens
