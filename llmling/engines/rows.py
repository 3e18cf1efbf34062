"""Statements about many rows at once: each spares a call of SQLite, and a wait of the loop for the writer, per row."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

Values: TypeAlias = tuple[Any, ...]

_SIZES = (256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)


def pieces(rows: Sequence[Values]) -> Iterator[Sequence[Values]]:
    """Yield the rows in pieces of a few sizes, so that SQLite compiles each statement a few times only."""
    start = 0
    for size in _SIZES:
        while size <= len(rows) - start:
            yield rows[start : start + size]
            start += size


def run(connection: sqlite3.Connection, statement: str, rows: Sequence[Values]) -> list[Values]:
    """Run a statement in which `{values}` stands for rows, and return what it gives."""
    found: list[Values] = []
    for piece in pieces(rows):
        cursor = connection.execute(_filled(statement, len(piece), len(piece[0])), tuple(chain.from_iterable(piece)))
        found += cursor.fetchall()
    return found


def change(connection: sqlite3.Connection, statement: str, rows: Sequence[Values]) -> int:
    """Run a statement that gives nothing, and return how many rows it has changed."""
    changed = 0
    for piece in pieces(rows):
        filled = _filled(statement, len(piece), len(piece[0]))
        changed += connection.execute(filled, tuple(chain.from_iterable(piece))).rowcount
    return changed


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[Values]) -> list[int]:
    """Insert rows into a table that counts them, all or none of a piece, and return their numbers."""
    numbers: list[int] = []
    for piece in pieces(rows):
        cursor = connection.execute(_filled(statement, len(piece), len(piece[0])), tuple(chain.from_iterable(piece)))
        last = cursor.lastrowid or 0
        numbers += range(last - len(piece) + 1, last + 1)
    return numbers


@lru_cache(512)
def _filled(statement: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.format(values=", ".join([row] * rows))
