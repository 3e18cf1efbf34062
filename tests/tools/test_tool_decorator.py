"""`@tool` on whatever can be called."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmling import Agent, Message, tool
from llmling.messages import ToolCallPart, ToolCallResponsePart
from llmling.testing import ScriptedModel
from llmling.tools.function import as_tool


class Shelf:
    def __init__(self, place: str) -> None:
        self.place = place

    def find(self, title: str) -> str:
        """Find a book."""
        return f"{title} on {self.place}"

    async def lend(self, title: str) -> str:
        return f"lent {title} from {self.place}"

    @tool(name="count_books")
    @staticmethod
    def count() -> int:
        return 3

    @tool(name="name_of_class")
    @classmethod
    def called(cls) -> str:
        return cls.__name__

    @tool(name="label")
    def says(self) -> str:
        return self.place


async def test_a_method_of_an_object_can_be_marked_and_only_that_one_is() -> None:
    left, right = Shelf("left"), Shelf("right")
    find = tool(name="find_left", idempotent=True)(left.find)
    assert find("Emma") == "Emma on left"
    made = as_tool(find)
    assert (made.spec.name, made.spec.description, made.repeatable) == ("find_left", "Find a book.", True)
    assert list(made.spec.parameters["properties"]) == ["title"]
    assert await made.call({"title": "Emma"}) == "Emma on left"
    other = as_tool(right.find)
    assert (other.spec.name, other.repeatable) == ("find", False)
    assert await as_tool(tool(name="lend_left")(left.lend)).call({"title": "Emma"}) == "lent Emma from left"


async def test_methods_of_objects_work_in_an_agent() -> None:
    named = [tool(name=f"find_{shelf.place}")(shelf.find) for shelf in (Shelf("left"), Shelf("right"))]
    call = Message("assistant", (ToolCallPart("1", "find_right", {"title": "Emma"}),))
    model = ScriptedModel([call, "done"])
    await Agent("a", model=model, tools=named).run("go")
    (answer,) = model.requests[1].messages[-1].parts
    assert isinstance(answer, ToolCallResponsePart)
    assert answer.response == "Emma on right"


async def test_methods_of_classes_keep_their_options() -> None:
    shelf = Shelf("left")
    expected: list[tuple[Any, str, str]] = [
        (shelf.says, "label", "left"),
        (Shelf.count, "count_books", "3"),
        (shelf.called, "name_of_class", "Shelf"),
    ]
    for function, name, answer in expected:
        made = as_tool(function)
        assert made.spec.name == name
        assert await made.call({}) == answer
    assert Shelf.count() == 3


async def test_a_function_written_in_c() -> None:
    assert await as_tool(tool(name="root")(math.sqrt)).call({"x": 9}) == "3.0"


def test_what_cannot_be_called_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"takes a function, not 'x'; its options have names: @tool\(name=...\)"):
        tool("x")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["", "two words", "x" * 65])
def test_a_name_that_no_model_accepts_is_refused(name: str) -> None:
    def find() -> None: ...

    with pytest.raises(ValueError, match="is no name for a tool"):
        as_tool(tool(name=name)(find))
