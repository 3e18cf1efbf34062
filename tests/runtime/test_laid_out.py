"""The JSON that an agent reads of an event is what the standard library writes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmling.events import Event, render

VALUES: list[Any] = [
    {}, [], {"a": {}, "b": []}, {"order": 4711, "text": 'Zwei "süße" Kisten\n\x00\ud800', "deep": [1, [2.5, [None]]]},
    {3: "a number", 2.5: 0, None: 1, True: [], "": {"": ""}}, [(1, 2), -0.0, 1e300, 10**30, False], 7, 1.5, None, True,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_default_prompt_is_indented_json(value: Any) -> None:
    assert render(Event("hook", "dev.llmling.test", data=value)).text == json.dumps(value, indent=2, ensure_ascii=False)
