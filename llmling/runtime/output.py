"""Structured answers: from a JSON Schema or a pydantic model to an object that is known to fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel
from pydantic import ValidationError as ModelMismatch
from pydantic_core import to_jsonable_python

from llmling import plugins
from llmling.errors import OutputError, StartupError

_MOST_PROBLEMS = 8
_MOST_STARTS = 50
_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_START = re.compile(r"[{\[]")


class Mismatch(Exception):
    """A value is JSON but does not fit; the arguments are lines for the model."""


@dataclass(frozen=True, slots=True)
class OutputType:
    """The shape of an agent's answers; build one with `output_type`.

    `schema` is the JSON Schema the model is given, `check` turns a JSON value into the object.
    """

    schema: Mapping[str, Any]
    check: Callable[[Any], Any]

    @property
    def request(self) -> str:
        """What the model is told about it, for providers that take no schema."""
        return shape_request(self.schema)

    def parse(self, text: str) -> Any:
        """Return the object in a model's answer, whose JSON may stand alone, in a code fence or among words.

        The first JSON value that fits wins. With a pydantic model the result is an instance of it, else plain data.

        Raises:
            OutputError: There is no JSON, or none that fits; the message can be sent to the model as it is.
        """
        found: Mismatch | None = None
        # A string is often answered without its quotes.
        bare = (text.strip(),) if self.schema.get("type") == "string" and text.strip() else ()
        for value in (*_candidates(text), *bare):
            try:
                return self.check(value)
            except Mismatch as mismatch:
                found = found or mismatch
        if found is None:
            raise OutputError(f"The answer contains no JSON; it starts with {brief(text.strip(), 80)!r}.")
        lines = list(found.args)
        if len(lines) > _MOST_PROBLEMS:
            lines[_MOST_PROBLEMS:] = [f"and {len(lines) - _MOST_PROBLEMS} more"]
        raise OutputError("The answer does not match the schema:\n" + "\n".join(f"- {line}" for line in lines))

    def dump(self, value: Any) -> str:
        """Return the JSON text of an object that `parse` gave."""
        return dump(value)


def shape_request(schema: Mapping[str, Any]) -> str:
    """Return what a model is told about the shape of its answer."""
    return f"Answer with nothing but JSON that matches this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"


def dump(value: Any) -> str:
    """Return a structured answer as JSON text, indented by two spaces; characters stay as they are."""
    return json.dumps(to_jsonable_python(value, by_alias=True), indent=2, ensure_ascii=False)


def output_type(shape: Mapping[str, Any] | type[Any]) -> OutputType:
    """Build the output type of a JSON Schema or a pydantic model class.

    Raises:
        StartupError: The schema is not valid or refers to something outside itself, or the class is no
            pydantic model.
    """
    if isinstance(shape, Mapping):
        return OutputType(shape, plugins.load(plugins.CONFORMING)(shape))
    if isinstance(shape, type) and issubclass(shape, BaseModel):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _from_model(shape)
    raise StartupError(
        f"output: {getattr(shape, '__name__', repr(shape))} is neither a JSON Schema nor a pydantic model; "
        "derive it from pydantic.BaseModel",
        usage=True,
    )


def _from_model(model: type[BaseModel]) -> OutputType:
    def check(value: Any) -> BaseModel:
        try:
            # Through JSON text, because only there pydantic takes dates, bytes and sets the way JSON writes them.
            return model.model_validate_json(json.dumps(value))
        except ModelMismatch as error:
            raise Mismatch(*(f"{place_in(item['loc'])}: {item['msg']}" for item in error.errors())) from None

    return OutputType(model.model_json_schema(), check)


def _candidates(text: str) -> Iterator[Any]:
    """Yield the JSON values of an answer, the most likely one first."""
    whole = text.strip()
    yield from _decoded(whole)
    for block in _FENCE.findall(whole):
        yield from _decoded(block.strip())
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    position = 0
    for _ in range(_MOST_STARTS):
        start = _START.search(whole, position)
        if start is None:
            break
        try:
            value, position = decoder.raw_decode(whole, start.start())
        except (ValueError, RecursionError):
            position = start.end()
        else:
            yield value


def _decoded(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def place_in(path: Iterable[str | int]) -> str:
    """Return a path such as `items[0].price`, or `answer` for the whole value."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return place.removeprefix(".") or "answer"


def brief(text: str, most: int = 300) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= most else text[: most - 3] + "..."
