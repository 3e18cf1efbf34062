from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime as dt
import enum
import functools
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from llmling.errors import ToolError
from llmling.manifest.tools import FunctionToolConfig
from llmling.runtime.services import Services
from llmling.tools.function import FunctionTool, as_tool, function_tool, to_text, tool

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = 1


@dataclasses.dataclass
class Point:
    x: int
    y: int


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    schema = dict(FunctionTool(function).spec.parameters)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


async def test_schema_and_descriptions_come_from_the_function() -> None:
    def send(to: Address, text: str, *, urgent: bool = False, tags: list[str] = []) -> str:  # noqa: B006
        """Send a letter.

        More about it that the model need not read.

        Args:
            to: Where it goes,
                with street and number.
            text (str): What it says.

        Returns:
            Something.
        """
        return f"{to.street} {to.number}: {text} {urgent} {tags}"

    letter = FunctionTool(send)
    assert (letter.spec.name, letter.spec.description) == ("send", "Send a letter.")
    assert parameters(send) == {
        "type": "object",
        "additionalProperties": False,
        "$defs": {
            "Address": {
                "type": "object",
                "properties": {"street": {"type": "string"}, "number": {"type": "integer", "default": 1}},
                "required": ["street"],
            }
        },
        "properties": {
            "to": {"$ref": "#/$defs/Address", "description": "Where it goes, with street and number."},
            "text": {"type": "string", "description": "What it says."},
            "urgent": {"type": "boolean", "default": False},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
        "required": ["to", "text"],
    }
    arguments = {"to": {"street": "High Street"}, "text": "hello", "tags": ["x"]}
    assert await letter.call(arguments) == "High Street 1: hello False ['x']"


def test_types_a_model_can_choose_from() -> None:
    def pick(
        colour: Colour,
        size: Literal["s", "m"],
        when: dt.date | None = None,
        ratio: Annotated[float, Field(ge=0, le=1, description="A share.")] = 0.5,
        note: Annotated[str, "Free text."] = "",
    ) -> None: ...

    schema = parameters(pick)
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert schema["properties"]["size"]["enum"] == ["s", "m"]
    assert schema["properties"]["ratio"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.5,
        "description": "A share.",
    }
    assert schema["properties"]["note"]["description"] == "Free text."
    assert schema["required"] == ["colour", "size"]


async def test_values_arrive_converted_and_defaults_are_the_functions_own() -> None:
    marker = object()
    seen: list[Any] = []

    def keep(colour: Colour, day: dt.date, number: int, other: Any = marker, _hidden: int = 3, copy: str = "c") -> None:
        seen.extend([colour, day, number, other, _hidden, copy])

    await FunctionTool(keep).call({"colour": "red", "day": "2026-11-21", "number": "7"})
    assert seen == [Colour.RED, dt.date(2026, 11, 21), 7, marker, 3, "c"]
    assert set(parameters(keep)["properties"]) == {"colour", "day", "number", "other", "_hidden", "copy"}


async def test_positional_only_parameters() -> None:
    def order(first: int, second: int = 2, third: int = 3, /, fourth: int = 4) -> list[int]:
        return [first, second, third, fourth]

    ordered = FunctionTool(order)
    assert await ordered.call({"first": 1}) == "[1, 2, 3, 4]"
    assert await ordered.call({"first": 1, "third": 9}) == "[1, 2, 9, 4]"
    assert await ordered.call({"first": 1, "fourth": 0}) == "[1, 2, 3, 0]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "argument 'text' is missing"),
        ({"text": "a", "n": "many"}, "argument 'n': Input should be a valid integer"),
        ({"text": "a", "words": 1}, "argument 'words' is not known; this tool takes: text, n, to"),
        ({"text": "a", "to": {"number": 3}}, "argument 'to.street' is missing"),
        ({"text": {"a": "b" * 500}}, "argument 'text': Input should be a valid string, not {'a': 'bbb"),
    ],
)
async def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    def repeat(text: str, n: int = 2, to: Address | None = None) -> str:
        raise AssertionError

    with pytest.raises(ToolError) as error:
        await FunctionTool(repeat).call(arguments)
    assert message in str(error.value)
    assert len(str(error.value)) < 300


async def test_sync_functions_run_in_our_threads_with_the_callers_context() -> None:
    loop_thread = threading.current_thread()
    user.set("ada")

    def where() -> list[str]:
        return [user.get(), threading.current_thread().name]

    async def here() -> bool:
        return user.get() == "ada" and threading.current_thread() is loop_thread

    name, thread = json.loads(await FunctionTool(where).call({}))
    assert name == "ada"
    assert thread.startswith("llmling-")
    assert await FunctionTool(here).call({}) == "true"


class Shelf:
    """A shelf of books."""

    def __init__(self, prefix: str = "book") -> None:
        self.prefix = prefix

    def find(self, title: str) -> str:
        """Find a book."""
        return f"{self.prefix}:{title}"

    async def __call__(self, title: str) -> str:
        """Look something up."""
        return f"called:{title}"

    @classmethod
    def build(cls, title: str) -> str:
        return f"{cls.__name__}:{title}"

    @staticmethod
    def plain(title: str) -> str:
        return title


async def test_every_kind_of_callable() -> None:
    async def later(title: str, *, loud: bool) -> str:
        """Say it later."""
        return title.upper() if loud else title

    partial = functools.partial(later, loud=True)
    expected = {
        Shelf().find: ("find", "Find a book.", "book:x"),
        Shelf(): ("Shelf", "Look something up.", "called:x"),
        Shelf.build: ("build", "", "Shelf:x"),
        Shelf.plain: ("plain", "", "x"),
        partial: ("later", "Say it later.", "X"),
    }
    for function, (name, description, answer) in expected.items():
        made = FunctionTool(function)
        assert (made.spec.name, made.spec.description) == (name, description)
        assert list(made.spec.parameters["properties"]) == ["title"]
        assert await made.call({"title": "x"}) == answer


async def test_a_wrapped_function_keeps_its_signature() -> None:
    def decorate(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> str:
            return "wrapped " + function(*args, **kwargs)

        return inner

    @decorate
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    assert await FunctionTool(shout).call({"text": "a"}) == "wrapped A"


def generates() -> Iterator[int]:
    yield 1


async def generates_async() -> AsyncIterator[int]:
    yield 1


def takes_args(*names: str) -> None: ...


def takes_kwargs(**names: str) -> None: ...


def takes_a_lock(lock: threading.Event) -> None: ...


def takes_unknown(thing: Missing) -> None: ...  # noqa: F821  # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]


def takes_a_function(back: Callable[[int], int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (takes_args, r"takes \*names, which cannot be described to a model"),
        (takes_kwargs, r"takes \*\*names"),
        (generates, "is a generator; return a list"),
        (generates_async, "is a generator; return a list"),
        (takes_a_lock, "'takes_a_lock': a parameter cannot be described.*Event"),
        (takes_unknown, "name 'Missing' is not defined"),  # pyright: ignore[reportUnknownArgumentType]
        (takes_a_function, "'takes_a_function': a parameter"),
        (lambda text: text, "'<lambda>' is no name for a tool"),  # pyright: ignore[reportUnknownLambdaType]
        (max, "no readable signature"),
    ],
)
def test_what_cannot_be_described_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FunctionTool(function)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("täxt", "täxt"),
        (None, ""),
        (7, "7"),
        (True, "true"),
        ({"a": ["ü", 1]}, '{"a": ["ü", 1]}'),
        (Address(street="s"), '{"street": "s", "number": 1}'),
        ([Point(1, 2)], '[{"x": 1, "y": 2}]'),
        (dt.date(2026, 11, 21), "2026-11-21"),
        (Colour.RED, "red"),
        (Path("a/b"), "a/b"),
        (b"bytes", "bytes"),
        (b"\xff", "b'\\xff'"),
        (
            {
                1,
            },
            "[1]",
        ),
        (1 + 2j, "1+2j"),
        ({"at": threading}, json.dumps({"at": str(threading)})),
    ],
)
def test_results_become_text(result: Any, text: str) -> None:
    assert to_text(result) == text


async def test_a_limit_of_time_is_named_and_async_work_is_cancelled() -> None:
    cancelled = asyncio.Event()

    @tool(timeout_s=0.05)
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    release = threading.Event()

    @tool(timeout_s=0.05)
    def blocks() -> None:
        release.wait(10)

    with pytest.raises(ToolError, match=r"tool 'forever' took longer than 0.05 s \(timeout_s\)"):
        await as_tool(forever).call({})
    assert cancelled.is_set()
    with pytest.raises(ToolError, match=r"tool 'blocks' took longer than 0.05 s"):
        await as_tool(blocks).call({})
    release.set()


async def test_a_functions_own_errors_pass_and_none_ends_the_pool() -> None:
    def own_timeout() -> None:
        raise TimeoutError("the database")

    async def leaves() -> None:
        sys.exit(3)

    def leaves_in_a_thread() -> None:
        sys.exit(3)

    with pytest.raises(TimeoutError, match="the database"):
        await FunctionTool(own_timeout).call({})
    with pytest.raises(ToolError, match="'leaves' tried to end the program"):
        await FunctionTool(leaves).call({})
    with pytest.raises(RuntimeError, match="SystemExit"):
        await FunctionTool(leaves_in_a_thread).call({})


async def test_the_decorator_leaves_a_function_and_options_win() -> None:
    @tool
    def plain(text: str) -> str:
        """Plain."""
        return text

    @tool(name="better_name", description="Better.", idempotent=True, timeout_s=3)
    def dressed(text: str) -> str:
        """Dressed."""
        return text * 2

    assert plain("a") == "a"
    assert dressed("a") == "aa"
    assert (as_tool(plain).spec.name, as_tool(plain).repeatable, as_tool(plain).timeout_s) == ("plain", False, None)
    made = as_tool(dressed)
    assert (made.spec.name, made.spec.description, made.repeatable, made.timeout_s) == (
        "better_name",
        "Better.",
        True,
        3,
    )
    assert as_tool(made) is made
    with pytest.raises(ValueError, match="7 is no tool"):
        as_tool(7)  # pyright: ignore[reportArgumentType]


async def test_the_manifest_names_a_function_and_its_keys_win(tmp_path: Path) -> None:
    (tmp_path / "letters_of_a_test.py").write_text(
        "from llmling.tools.function import tool\n"
        "@tool(idempotent=True, timeout_s=9)\n"
        "def send(text: str) -> str:\n"
        "    'Send it.'\n"
        "    return 'sent ' + text\n"
        "number = 7\n"
    )
    services = Services(folder=tmp_path)
    path = "letters_of_a_test:send"
    made = function_tool(FunctionToolConfig(function=path), services)
    assert (made.spec.name, made.spec.description, made.repeatable, made.timeout_s) == ("send", "Send it.", True, 9)
    assert await made.call({"text": "x"}) == "sent x"
    config = FunctionToolConfig(function=path, name="mail", description="Mail.", idempotent=False, timeout_s=1)
    made = function_tool(config, services)
    assert (made.spec.name, made.spec.description, made.repeatable, made.timeout_s) == ("mail", "Mail.", False, 1)
    with pytest.raises(ValueError, match="has no 'sned'; did you mean 'send'"):
        function_tool(FunctionToolConfig(function="letters_of_a_test:sned"), services)
    with pytest.raises(ValueError, match="letters_of_a_test:number is not callable"):
        function_tool(FunctionToolConfig(function="letters_of_a_test:number"), services)
