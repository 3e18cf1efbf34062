"""The items a team maps over: where they come from, and how one reads as a message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from llmling.errors import LimitExceeded, TeamError
from llmling.events import Event
from llmling.messages import Message
from llmling.templates import value

_FENCE = re.compile(r"\A```[^\n`]*\n(.*?)\n?```\Z", re.DOTALL)
_BULLET = re.compile(r"\A(?:[-*+•]|\d{1,4}[.)])\s+")


def items(team: str, over: str | None, message: Message, event: Event) -> list[Any]:
    """Return what a team maps over: what `over` gives, else the list in the text of the message, else its lines.

    The text may be a JSON list, a JSON object with nothing in it but one list, or lines; bullets and numbers before
    them are left out, empty lines too.

    Raises:
        TeamError: There is no list.
        TemplateFailed: The expression fails.
    """
    data = _data(message.text)
    if over is None:
        found: Any = _listed(data)
        found = _lines(message.text) if found is None else found
        where = "the message"
    else:
        found = value(over)({"message": message, "event": event, "data": data})
        where = f"`over: {over}`"
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        kind = _kind(cast("object", found))
        raise TeamError(f"team {team!r} has no list to map over: {where} gives {kind}")
    return list(cast("Iterable[Any]", found))


def check_count(team: str, count: int, before: int, most: int) -> None:
    """Compare the items of a list, and those that other teams made of the same message, with what is allowed.

    Raises:
        LimitExceeded: They are more.
    """
    if before + count > most:
        others = f", with {before} of other teams" if before else ""
        raise LimitExceeded(
            f"team {team!r} would map over {count} items{others}, allowed are {most}: "
            "raise limits.max_messages_per_event"
        )


def text_of(item: Any) -> str:
    """Return an item as the text of a message: a text as it is, everything else as JSON."""
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, default=str)


def title_of(number: int, text: str) -> str:
    """Return the heading of an item: its number and how it begins."""
    line = " ".join(text.split())
    return f"{number}. {line if len(line) <= 60 else line[:57] + '...'}"


def _data(text: str) -> Any:
    whole = text.strip()
    fenced = _FENCE.match(whole)
    try:
        return json.loads(fenced[1] if fenced else whole)
    except (ValueError, RecursionError):
        return None


def _listed(data: Any) -> list[Any] | None:
    # A model with an `output` schema answers an object, since most providers take no other schema.
    if isinstance(data, dict):
        values = list(cast("dict[str, Any]", data).values())
        data = values[0] if len(values) == 1 else None
    return cast("list[Any]", data) if isinstance(data, list) else None


def _lines(text: str) -> list[str]:
    lines = (_BULLET.sub("", line.strip()).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _kind(found: object) -> str:
    if found is None:
        return "nothing"
    return (
        f"a {'mapping' if isinstance(found, Mapping) else 'text' if isinstance(found, str) else type(found).__name__}"
    )
