"""What is written down without making plain data of it first is the same JSON."""

import datetime as dt
import json

import pytest

from llmling import written
from llmling.events import Event
from llmling.messages import Message, TextPart, ToolCallPart, Usage
from llmling.protocols import ModelResponse

EVENTS = [
    Event("hook", "dev.llmling.bench", data='quoted "text" \\ é \ud800'),
    Event("tür", "t\n", "a/b.txt", {"list": [1, 2.5, None, True, {"x": "ü"}]}, headers={"X-Who": "Ada"}),
    Event("run", "dev.llmling.run", time=dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
]
MESSAGES = [
    Message.user('quoted "text" \\ é \ud800', name="hook"),
    Message.assistant(""),
    Message("assistant", (TextPart("I look"), ToolCallPart("1", "look", {"where": "é"}))),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event(event: Event) -> None:
    assert written.event_text(event) == written.encode(event.to_dict())


def test_an_event_that_json_cannot_hold() -> None:
    with pytest.raises(TypeError, match="set"):
        written.event_text(Event("run", "t", data={1, 2}))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message(message: Message) -> None:
    assert written.message_text(message) == written.encode(message.to_dict())


def test_what_was_used() -> None:
    usage = Usage(1200, 34, 2, 5)
    assert written.usage_text(usage) == written.encode(usage.to_dict())


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("cost_usd", [None, 0.000123])
def test_a_reply(message: Message, cost_usd: float | None) -> None:
    response = ModelResponse(message, Usage(3, 4, 1), "openai/ü", "stop", cost_usd, demo=cost_usd is None)
    facts = {"run": "01", "time": 1.5, "origins": {"look": "server"}}
    data = written.reply(response, facts)
    plain = {**response.to_dict(), **facts}
    assert data.text == written.data_text(data) == written.encode(plain)
    assert data == plain == dict(data)
    assert list(data) == list(plain)
    assert len(data) == len(plain)
    assert data["origins"] == {"look": "server"}
    assert ModelResponse.from_dict(data) == response
    assert written.data_text(plain) == data.text
    assert json.loads(repr(data).removeprefix("Written(").removesuffix(")")) == plain
