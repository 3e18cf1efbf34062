from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from llmling.errors import OutputError, StartupError
from llmling.runtime.output import dump, output_type

ITEM = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "price": {"type": "number"}},
    "required": ["title"],
    "additionalProperties": False,
}
ORDER = {"type": "object", "properties": {"items": {"type": "array", "items": ITEM}}, "required": ["items"]}
GOOD = {"items": [{"title": "Tüte", "price": 1.5}]}


class Line(BaseModel):
    title: str
    due: dt.date
    labels: set[str] = set()
    count: int = Field(default=1, alias="howMany")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        f"  {json.dumps(GOOD, indent=2)}\n",
        f"```json\n{json.dumps(GOOD)}\n```",
        f"```\n{json.dumps(GOOD)}\n```",
        f"Here it is:\n\n```json\r\n{json.dumps(GOOD)}\n```\nAnything else?",
        f"Sure! {json.dumps(GOOD)} is the order.",
        f"[see note] {{curly}} words, then {json.dumps(GOOD)}",
        f'First {{"items": "none"}}, corrected: {json.dumps(GOOD)}',
    ],
)
def test_finds_the_json_that_fits(text: str) -> None:
    assert output_type(ORDER).parse(text) == GOOD


def test_says_where_and_why_an_answer_does_not_fit() -> None:
    with pytest.raises(OutputError) as caught:
        output_type(ORDER).parse('{"items": [{"title": "a"}, {"title": "b", "price": "free", "x": 1}]}')
    assert str(caught.value).splitlines() == [
        "The answer does not match the schema:",
        "- items[1]: Additional properties are not allowed ('x' was unexpected)",
        "- items[1].price: 'free' is not of type 'number'",
    ]
    assert not caught.value.retryable


def test_explains_the_closest_branch_of_any_of() -> None:
    schema = {"anyOf": [ITEM, {"type": "object", "properties": {"code": {"type": "integer"}}, "required": ["code"]}]}
    with pytest.raises(OutputError, match=re.escape("code: 'x' is not of type 'integer'")):
        output_type(schema).parse('{"code": "x", "title": "t"}')
    with pytest.raises(OutputError, match="5 is not of type 'string' or answer: 5 is not of type 'null'"):
        output_type({"anyOf": [{"type": "string"}, {"type": "null"}]}).parse("5")


def test_names_what_came_instead_of_json() -> None:
    with pytest.raises(OutputError, match="contains no JSON; it starts with 'I am sorry"):
        output_type(ORDER).parse("I am sorry, I cannot do that. " * 20)


def test_lists_at_most_eight_problems() -> None:
    with pytest.raises(OutputError, match="- and 12 more"):
        output_type({"type": "array", "items": {"type": "string"}}).parse(json.dumps(list(range(20))))


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[" * 100_000, "{" * 100_000, '{"a":' * 50_000, "9" * 5000, ""])
def test_hostile_answers_are_refused_without_a_crash(text: str) -> None:
    with pytest.raises(OutputError):
        output_type({"type": "object"}).parse(text)


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(OutputError):
        assert isinstance(output_type(ORDER).parse(text), dict)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_json_value_survives_dump_and_parse(value: Any) -> None:
    shape = output_type({"title": "anything"})
    assert shape.parse(shape.dump(value)) == value


def test_a_string_needs_no_quotes() -> None:
    shape = output_type({"type": "string", "enum": ["yes", "no"]})
    assert [shape.parse(text) for text in (" yes\n", '"no"')] == ["yes", "no"]
    with pytest.raises(OutputError, match="'maybe' is not one of"):
        shape.parse("maybe")


def test_formats_are_checked() -> None:
    with pytest.raises(OutputError, match="'tomorrow' is not a 'date'"):
        output_type({"type": "object", "properties": {"due": {"format": "date"}}}).parse('{"due": "tomorrow"}')


def test_a_pydantic_model_gives_an_instance() -> None:
    shape = output_type(Line)
    line = shape.parse('{"title": "ä", "due": "2026-11-21", "labels": ["x"], "howMany": 3}')
    assert line == Line(title="ä", due=dt.date(2026, 11, 21), labels={"x"}, howMany=3)
    assert shape.schema["required"] == ["title", "due"]
    assert json.loads(shape.dump(line)) == {"title": "ä", "due": "2026-11-21", "labels": ["x"], "howMany": 3}
    assert '"title": "ä"' in dump([line])


def test_a_pydantic_mismatch_names_the_field() -> None:
    with pytest.raises(OutputError) as caught:
        output_type(Line).parse('{"due": "soon"}')
    assert "- title: Field required" in str(caught.value)
    assert "- due: Input should be a valid date" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"type": "objekt"}, "output is not a valid JSON Schema: type: 'objekt' is not valid"),
        ({"properties": {"a": {"minimum": "1"}}}, "properties.a.minimum: '1' is not of type 'number'"),
        ({"$ref": "http://127.0.0.1:1/schema.json"}, "refers to 'http://127.0.0.1:1/schema.json', which is not in it"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, "refers to '#/$defs/missing'"),
        (dict, "output: dict is neither a JSON Schema nor a pydantic model"),
    ],
)
def test_a_bad_shape_is_refused_at_the_start(shape: Any, message: str) -> None:
    with pytest.raises(StartupError, match=re.escape(message)) as caught:
        output_type(shape)
    assert caught.value.usage


def test_local_references_are_followed() -> None:
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    assert output_type(tree).parse("[[], [[]]]") == [[], [[]]]
    with pytest.raises(OutputError, match=re.escape("[1][0]: 5 is not of type 'array'")):
        output_type(tree).parse("[[], [5]]")
    with pytest.raises(OutputError):
        output_type(tree).parse("[" * 900 + "]" * 900 + "x")
