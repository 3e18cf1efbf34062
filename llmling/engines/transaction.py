"""Many operations in one transaction, those of a kind in one call; one that fails does not take the others with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeGuard, TypeVar

from llmling.engines.schema import primary_code

A = TypeVar("A")
T = TypeVar("T")

# The fault of the store, not of an operation: everything of the transaction has failed and may succeed later.
_STORE_FAULTS = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
}  # fmt: skip


class OneByOne(Exception):
    """Raised by an operation on many items when each has to be done for itself: nothing of the transaction happened."""


class OneOfMany(Generic[A, T]):
    """An operation on one item that may be run with all others of its kind that queue up with it.

    `many` returns what comes of each, in their order. Between items of different kinds the order is not kept within a
    transaction: nothing may be queued that has to come after another kind of the same delivery, but is not told of it.
    """

    __slots__ = ("item", "many")

    def __init__(self, many: Callable[[sqlite3.Connection, Sequence[A]], Sequence[T]], item: A) -> None:
        self.many = many
        self.item = item

    def __call__(self, connection: sqlite3.Connection) -> T:
        """Run it alone."""
        return self.many(connection, (self.item,))[0]


@dataclass(slots=True, eq=False)
class Posted:
    """An operation that is queued."""

    run: Callable[[sqlite3.Connection], Any]
    patient: bool
    committed: Callable[[Any], None] | None
    failed: Callable[[BaseException], None] | None
    future: asyncio.Future[Any] | None


_Many: TypeAlias = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]
_Kinds: TypeAlias = dict[_Many, list[tuple[int, Any]]]
Outcome: TypeAlias = tuple[Posted, Any, BaseException | None]
"""An operation, what came of it, and why nothing did."""


def together(connection: sqlite3.Connection, jobs: list[Posted]) -> list[Outcome]:
    """Commit all jobs at once; when one of them fails, again with each of them for itself.

    Raises:
        sqlite3.Error: The store cannot be written; nothing of it happened.
    """
    try:
        connection.execute("begin immediate")
        results = _run(connection, jobs)
        connection.execute("commit")
        return [(job, result, None) for job, result in zip(jobs, results, strict=True)]
    except Exception as error:  # the border to the operations: each is run again, and whose error it is gets it
        _roll_back(connection)
        if _store_fault(error):
            raise
    try:
        connection.execute("begin immediate")
        outcomes: list[Outcome] = [_apart(connection, job) for job in jobs]
        connection.execute("commit")
    except sqlite3.Error:
        _roll_back(connection)
        raise
    return outcomes


def _run(connection: sqlite3.Connection, jobs: list[Posted]) -> list[Any]:
    """Run all jobs, items of a kind together, and return what comes of each."""
    results: list[Any] = [None] * len(jobs)
    kinds: _Kinds = {}
    for place, job in enumerate(jobs):
        run = job.run
        if _one_of_many(run):
            kinds.setdefault(run.many, []).append((place, run.item))
        else:
            _run_kinds(connection, kinds, results)
            results[place] = run(connection)
    _run_kinds(connection, kinds, results)
    return results


def _one_of_many(run: Callable[[sqlite3.Connection], Any]) -> TypeGuard[OneOfMany[Any, Any]]:
    return isinstance(run, OneOfMany)


def _run_kinds(connection: sqlite3.Connection, kinds: _Kinds, results: list[Any]) -> None:
    for many, items in kinds.items():
        for (place, _), result in zip(items, many(connection, [item for _, item in items]), strict=True):
            results[place] = result
    kinds.clear()


def _apart(connection: sqlite3.Connection, job: Posted) -> Outcome:
    connection.execute("savepoint job")
    try:
        result = job.run(connection)
    except Exception as error:
        if _store_fault(error):
            raise
        connection.execute("rollback to job")
        connection.execute("release job")
        return job, None, error
    connection.execute("release job")
    return job, result, None


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("rollback")


def _store_fault(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and primary_code(error) in _STORE_FAULTS
