"""Small facts beside the events, in the same file and behind the same writer."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmling.engines import queries, records
from llmling.engines.database import Database


class EngineStore:
    """The `Store` of an engine; writes are durable on return."""

    def __init__(self, database: Callable[[], Database]) -> None:
        """`database` gives the open database, or raises when there is none."""
        self._database = database

    async def get(self, space: str, key: str) -> Any:
        """Return the value, or None."""
        return await self._database().read(lambda connection: queries.value(connection, space, key))

    async def put(self, space: str, items: Mapping[str, Any]) -> None:
        """Set many values in one commit.

        Raises:
            EngineError: The store cannot be written right now.
        """
        rows = [(space, records.stored(key), records.encode(value)) for key, value in items.items()]
        await self._database().writer.submit(functools.partial(_put, rows))

    async def remove(self, space: str, keys: Sequence[str]) -> None:
        """Forget values; unknown keys are no error.

        Raises:
            EngineError: The store cannot be written right now.
        """
        rows = [(space, records.stored(key)) for key in keys]
        await self._database().writer.submit(functools.partial(_remove, rows))

    async def items(self, space: str) -> dict[str, Any]:
        """Return all values of a space."""
        return await self._database().read(lambda connection: queries.values(connection, space))


def _put(rows: list[tuple[str, str | bytes, str]], connection: sqlite3.Connection) -> None:
    connection.executemany("insert or replace into store values (?, ?, ?)", rows)


def _remove(rows: list[tuple[str, str | bytes]], connection: sqlite3.Connection) -> None:
    connection.executemany("delete from store where space = ? and key = ?", rows)
