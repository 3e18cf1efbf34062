"""Our messages as the OpenAI chat format litellm takes, and its answers back; no litellm in here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any

from llmling.messages import Message, Part, TextPart, ToolCallPart, ToolCallResponsePart, Usage
from llmling.protocols import ToolSpec

_ASCII, _PLAIN = json.JSONEncoder().encode, json.JSONEncoder(ensure_ascii=False).encode
"""`json.dumps`, without an encoder made for each call."""


def wire_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return messages in the chat format; a message with several tool answers becomes one entry for each."""
    wire: list[dict[str, Any]] = []
    for message in messages:
        if len(message.parts) == 1 and type(part := message.parts[0]) is TextPart:
            wire.append({"role": message.role, "content": part.content})
            continue
        answers = [part for part in message.parts if isinstance(part, ToolCallResponsePart)]
        wire += [{"role": "tool", "tool_call_id": part.id, "content": part.response} for part in answers]
        if answers and not message.text:
            continue
        entry: dict[str, Any] = {"role": message.role, "content": message.text}
        if calls := message.tool_calls:
            if not message.text:
                del entry["content"]
            entry["tool_calls"] = [_wire_call(call) for call in calls]
        wire.append(entry)
    return wire


def wire_json(messages: Iterable[Message]) -> str:
    """Return `wire_messages` as JSON, as `json.dumps` writes it."""
    wire: list[str] = []
    for message in messages:
        if len(message.parts) == 1 and type(part := message.parts[0]) is TextPart:
            wire.append(f'{{"role": "{message.role}", "content": {encode_basestring_ascii(part.content)}}}')
        else:
            wire += map(_ASCII, wire_messages((message,)))
    return f"[{', '.join(wire)}]"


def _wire_call(call: ToolCallPart) -> dict[str, Any]:
    # Servers and litellm parse the arguments of earlier calls: one that was never JSON must not fail the next request.
    arguments = {"malformed_arguments": call.arguments} if isinstance(call.arguments, str) else dict(call.arguments)
    function = {"name": call.name, "arguments": _PLAIN(arguments)}
    return {"id": call.id, "type": "function", "function": function}


def wire_tools(tools: Iterable[ToolSpec]) -> list[dict[str, Any]]:
    """Return tools as function definitions."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def wire_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return an output schema as `response_format`; strict only when the schema meets what strict mode asks for."""
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": dict(schema), "strict": _closed(schema)},
    }


def _closed(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(_closed(item) for item in schema)  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, Mapping):
        return True
    node: dict[str, Any] = dict(schema)  # pyright: ignore[reportUnknownArgumentType]
    if node.get("type") == "object" or "properties" in node:
        properties: dict[str, Any] = node.get("properties", {})
        if node.get("additionalProperties") is not False or set(node.get("required", ())) != set(properties):
            return False
        return all(_closed(item) for item in properties.values())
    return all(_closed(value) for key, value in node.items() if key not in {"enum", "const", "default", "examples"})


@dataclass(slots=True)
class ToolCallDraft:
    """A tool call as it streams in."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Answer:
    """An answer being read: text and tool calls, whole or from the pieces of a stream."""

    texts: list[str] = field(default_factory=list[str])
    calls: dict[int, ToolCallDraft] = field(default_factory=dict[int, ToolCallDraft])
    finish_reason: str | None = None
    usage: Any = None
    """What the provider said of its tokens, as it came; for those who read the wire themselves."""

    def add(self, choice: Any) -> str:
        """Take a choice with its `message` or `delta`; return the text it brought."""
        part = getattr(choice, "delta", None) or getattr(choice, "message", None)
        self.finish_reason = getattr(choice, "finish_reason", None) or self.finish_reason
        if part is None:
            return ""
        for position, call in enumerate(getattr(part, "tool_calls", None) or ()):
            self._add_call(position, call)
        text: str = getattr(part, "content", None) or ""
        if text:
            self.texts.append(text)
        return text

    def _add_call(self, position: int, call: Any) -> None:
        index = getattr(call, "index", None)
        key = position if index is None else index
        draft = self.calls.setdefault(key, ToolCallDraft())
        draft.id = draft.id or getattr(call, "id", None) or ""
        draft.name = draft.name or getattr(call.function, "name", None) or ""
        draft.arguments += getattr(call.function, "arguments", None) or ""

    def call(self, index: int) -> ToolCallDraft:
        """Return the tool call with that place, a new one when it is not there yet."""
        return self.calls.setdefault(index, ToolCallDraft())

    def message(self) -> Message:
        """Return what was read as a message of the assistant."""
        text = "".join(self.texts)
        if not self.calls:
            return Message("assistant", (TextPart(text),))
        parts: list[Part] = [TextPart(text)] if text else []
        for index, draft in sorted(self.calls.items()):
            parts.append(ToolCallPart(draft.id or f"call_{index}", draft.name, read_arguments(draft.arguments)))
        return Message("assistant", tuple(parts))


def read_arguments(text: str) -> Mapping[str, Any] | str:
    """Return the arguments of a tool call as a mapping, or the text as it came when it is not a JSON object."""
    if not text.strip():
        return {}
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text  # pyright: ignore[reportUnknownVariableType]


def read_usage(usage: Any) -> Usage:
    """Return the tokens of one request; litellm counts cached input in `prompt_tokens`, whoever the provider is."""
    return Usage(
        input_tokens=int(getattr(usage, "prompt_tokens", None) or 0),
        output_tokens=int(getattr(usage, "completion_tokens", None) or 0),
        requests=1,
    )
