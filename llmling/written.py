"""The JSON of what is written down most, made without plain data of it first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from llmling.encoding import encoder
from llmling.events import Event
from llmling.messages import Message, TextPart, Usage
from llmling.records import ModelResponse

_encode = encoder(ascii_only=True, item=",", key=":")
_USAGE = '{"input_tokens":%d,"output_tokens":%d,"requests":%d,"tool_calls":%d}'


class Written(Mapping[str, Any]):
    """Plain data that is there as its JSON; it is read when somebody looks inside, which hardly anybody does."""

    __slots__ = ("_data", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._data: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        data = self._data
        if data is None:
            self._data = data = json.loads(self.text)
        return data

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text})"


def encode(value: Any) -> str:
    """Return compact JSON of ASCII characters only, so that any text can be written.

    Raises:
        TypeError: The value is not plain data.
    """
    return _encode(value)


def data_text(data: Mapping[str, Any]) -> str:
    """Return a mapping of plain data as it is written down."""
    return data.text if isinstance(data, Written) else _encode(dict(data))


def event_text(event: Event) -> str:
    """Return an event as it is written down: the JSON of its `to_dict`.

    Raises:
        TypeError: It holds what JSON cannot.
    """
    data, headers = event.data, event.headers
    return (
        f'{{"id":{quoted(event.id)},"source":{quoted(event.source)},"type":{quoted(event.type)},'
        f'"subject":{quoted(event.subject)},"time":"{event.time.isoformat()}",'
        f'"data":{quoted(data) if type(data) is str else _encode(data)},'
        f'"headers":{_encode(dict(headers)) if headers else "{}"}}}'
    )


def usage_text(usage: Usage) -> str:
    """Return what was used as it is written down."""
    return _USAGE % (usage.input_tokens, usage.output_tokens, usage.requests, usage.tool_calls)


def message_text(message: Message) -> str:
    """Return a message as it is written down; nearly every one is one text."""
    if len(message.parts) != 1 or type(part := message.parts[0]) is not TextPart:
        return _encode(message.to_dict())
    name = "" if message.name is None else f',"name":{quoted(message.name)}'
    return f'{{"role":"{message.role}","parts":[{{"type":"text","content":{quoted(part.content)}}}]{name}}}'


def reply(response: ModelResponse, facts: Mapping[str, Any]) -> Written:
    """Return an answer of a model with facts about it: what its `to_dict` and they hold."""
    return Written(
        f'{{"message":{message_text(response.message)},"usage":{usage_text(response.usage)},'
        f'"model":{quoted(response.model)},"finish_reason":{quoted(response.finish_reason)},'
        f'"cost_usd":{"null" if response.cost_usd is None else _encode(response.cost_usd)},'
        f'"demo":{"true" if response.demo else "false"},{_encode(facts).removeprefix("{")}'
    )
