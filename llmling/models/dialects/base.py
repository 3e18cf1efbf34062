"""What a dialect is: how answers are read where nothing in them is unusual."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llmling.models.tariff import Tokens
from llmling.models.wire import Answer


class Unusual(Exception):
    """An answer holds what only litellm knows to read."""


class StreamFailed(Exception):
    """The provider says inside a stream that it has failed."""

    def __init__(self, message: str, status_code: int | None) -> None:
        super().__init__(message)
        self.status_code = status_code


class Splitter(Protocol):
    """Cuts a streamed body into values; `ended` once the server has said that it is done."""

    ended: bool

    def feed(self, part: bytes) -> Generator[Any]:
        """Yield the values that are complete with this part."""
        ...

    def close(self) -> Generator[Any]:
        """Yield what is left when the body ends."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """The ways to read one format.

    `whole` and `piece` fill an answer from a body or from one value of a stream, `piece` returns the text it brought;
    both raise `Unusual`, `piece` before it has changed anything. `tokens` counts what the answer keeps as its `usage`.
    Where a stream `stays` unusual, what follows an unusual piece is read by litellm too.
    """

    splitter: Callable[[], Splitter]
    whole: Callable[[Any, Answer], None]
    piece: Callable[[Any, Answer], str]
    tokens: Callable[[Mapping[str, Any]], Tokens]
    stays: bool = False


def fields(value: Any) -> dict[str, Any]:
    """Return an object as it is, and none for null.

    Raises:
        Unusual: It is something else.
    """
    if type(value) is dict:
        return value  # pyright: ignore[reportUnknownVariableType]
    if value is not None:
        raise Unusual
    return {}


def items(value: Any) -> list[Any]:
    """Return an array as it is, and none for null.

    Raises:
        Unusual: It is something else.
    """
    if type(value) is list:
        return value  # pyright: ignore[reportUnknownVariableType]
    if value is not None:
        raise Unusual
    return []


def text(value: Any) -> str:
    """Return a text as it is, and none for null.

    Raises:
        Unusual: It is something else.
    """
    if type(value) is str:
        return value
    if value is not None:
        raise Unusual
    return ""


def count(value: Any) -> int:
    """Return a number of tokens; nothing is none."""
    return value if type(value) is int else int(value or 0)
