"""The turns of one session as they are kept: one row each, written once, whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from llmling.messages import Message
from llmling.protocols import Store

LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Turn:
    """What one run added to a history; `key` is what makes it the same turn when it is added again."""

    key: str
    messages: tuple[Message, ...]


class History:
    """The turns of one session in a store."""

    def __init__(self, store: Store, agent: str, id: str) -> None:  # noqa: A002
        """Names may be any text: none of them reaches into the history of another."""
        self.name = f"{named(agent)}/{named(id)}"
        self.space = f"session/{self.name}"
        self._store = store

    async def turns(self) -> tuple[Turn, ...]:
        """Return every turn, the first one first."""
        return read(await self._store.items(self.space))

    async def add(self, known: Sequence[Turn], turn: Turn) -> tuple[Turn, ...]:
        """Write a turn behind the `known` ones and return them all; a turn that is there already stays as it is.

        Raises:
            EngineError: It cannot be written.
        """
        row = {"key": turn.key, "messages": [message.to_dict() for message in turn.messages]}
        turns = tuple(known)
        while all(other.key != turn.key for other in turns):
            # A row is only written where none is, so no process can overwrite a turn it does not know of.
            if await self._store.swap(self.space, f"{len(turns):08d}", None, row):
                return (*turns, turn)
            turns = await self.turns()
        return turns

    async def clear(self) -> None:
        """Forget every turn."""
        await self._store.remove(self.space, list(await self._store.items(self.space)))


def read(rows: dict[str, Any]) -> tuple[Turn, ...]:
    """Return the turns of a space."""
    return tuple(
        Turn(row["key"], tuple(Message.from_dict(message) for message in row["messages"]))
        for _, row in sorted(rows.items())
    )


def messages_of(turns: Iterable[Turn]) -> tuple[Message, ...]:
    """Return the messages of turns in their order."""
    return tuple(message for turn in turns for message in turn.messages)


def named(text: str) -> str:
    """Return any text as a name of letters, digits and `-_~%!`: different texts, different names, at most 200 long."""
    name = quote(text, safe="", errors="surrogatepass").replace(".", "%2E")
    if len(name) <= LONGEST_NAME:
        return name
    # Quoting leaves no `!`, so a short text cannot be made to look like a long one.
    return f"{name[:120]}!{hashlib.sha256(name.encode()).hexdigest()}"
