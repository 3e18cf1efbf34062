"""What is written down without making plain data first is the same text."""

import datetime as dt

import pytest

from llmling.engines import records
from llmling.events import Event
from llmling.messages import Usage

EVENTS = [
    Event("hook", "dev.llmling.bench", data='quoted "text" \\ é \ud800'),
    Event("tür", "t\n", "a/b.txt", {"list": [1, 2.5, None, True, {"x": "ü"}]}, headers={"X-Who": "Ada"}),
    Event("run", "dev.llmling.run", time=dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event(event: Event) -> None:
    assert records.event_text(event) == records.encode(event.to_dict())


def test_an_event_that_json_cannot_hold() -> None:
    with pytest.raises(TypeError, match="set"):
        records.event_text(Event("run", "t", data={1, 2}))


def test_what_was_used() -> None:
    usage = Usage(1200, 34, 2, 5)
    assert records.usage_text(usage) == records.encode(usage.to_dict())
