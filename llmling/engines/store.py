"""Small facts beside the events, in the same file and behind the same writer."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from llmling.engines import queries, records
from llmling.engines.database import Database

_Row: TypeAlias = tuple[str | bytes, str | bytes]


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
        rows = [(*_row(space, key), records.encode(value)) for key, value in items.items()]
        await self._database().writer.submit(functools.partial(_put, rows))

    async def add(
        self, space: str, deltas: Mapping[str, float], *, below: Mapping[str, float] | None = None
    ) -> tuple[bool, dict[str, float]]:
        """Add to numbers in one commit; one that is not there yet is 0.

        With `below` nothing is added unless each number in it is below its bound. Returns whether it was added, and
        the numbers of `deltas` as they are then.

        Raises:
            EngineError: The store cannot be written right now.
        """
        return await self._database().writer.submit(functools.partial(_add, space, dict(deltas), dict(below or {})))

    async def remove(self, space: str, keys: Sequence[str]) -> None:
        """Forget values; unknown keys are no error.

        Raises:
            EngineError: The store cannot be written right now.
        """
        rows = [_row(space, key) for key in keys]
        await self._database().writer.submit(functools.partial(_remove, rows))

    async def swap(self, space: str, key: str, old: Any, new: Any) -> bool:
        """Set a value if it is `old` right now, and return whether it was; None stands for no value.

        Raises:
            EngineError: The store cannot be written right now.
        """
        row = _row(space, key)
        after = None if new is None else records.encode(new)
        return await self._database().writer.submit(functools.partial(_swap, row, old, after))

    async def items(self, space: str) -> dict[str, Any]:
        """Return all values of a space."""
        return await self._database().read(lambda connection: queries.values(connection, space))


def _row(space: str, key: str) -> _Row:
    return records.stored(space), records.stored(key)


def _put(rows: list[tuple[str | bytes, str | bytes, str]], connection: sqlite3.Connection) -> None:
    connection.executemany("insert or replace into store values (?, ?, ?)", rows)


def _add(
    space: str, deltas: dict[str, float], below: dict[str, float], connection: sqlite3.Connection
) -> tuple[bool, dict[str, float]]:
    found = {key: queries.value(connection, space, key) or 0 for key in {**deltas, **below}}
    if any(found[key] >= bound for key, bound in below.items()):
        return False, {key: found[key] for key in deltas}
    totals = {key: found[key] + delta for key, delta in deltas.items()}
    _put([(*_row(space, key), records.encode(total)) for key, total in totals.items()], connection)
    return True, totals


def _remove(rows: list[_Row], connection: sqlite3.Connection) -> None:
    connection.executemany("delete from store where space = ? and key = ?", rows)


def _swap(row: _Row, old: Any, new: str | None, connection: sqlite3.Connection) -> bool:
    found = connection.execute("select value from store where space = ? and key = ?", row).fetchone()
    if (None if found is None else json.loads(found[0])) != old:
        return False
    if new is None:
        _remove([row], connection)
    else:
        _put([(*row, new)], connection)
    return True
