from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmling.engines.schema import open_file
from llmling.engines.writer import NotWritable, Writer
from llmling.errors import EngineError


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    writer = Writer(lambda: open_file(tmp_path / "pool.db"))
    await writer.open()
    yield writer
    await writer.close(0)


def insert(connection: sqlite3.Connection, key: str) -> str:
    connection.execute("insert into store values ('s', ?, '1')", (key,))
    return key


def keys(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("select key from store order by key").fetchall()]


async def test_one_operation_that_fails_does_not_spoil_the_others(writer: Writer) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        insert(connection, "never")
        raise ZeroDivisionError

    results = await asyncio.gather(
        writer.submit(lambda connection: insert(connection, "a")),
        writer.submit(fail),
        writer.submit(lambda connection: insert(connection, "a")),
        writer.submit(lambda connection: insert(connection, "b")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [str, ZeroDivisionError, sqlite3.IntegrityError, str]
    assert await writer.submit(keys) == ["a", "b"]


async def test_cancelling_does_not_undo(writer: Writer) -> None:
    told: list[str] = []
    writer.submit(lambda connection: insert(connection, "a"), committed=told.append).cancel()
    assert await writer.submit(keys) == ["a"]
    assert told == ["a"]


async def test_many_writes_share_a_commit(writer: Writer) -> None:
    def changes(connection: sqlite3.Connection) -> int:
        return connection.total_changes

    for number in range(1000):
        writer.post(lambda connection, number=number: insert(connection, f"{number:04}"))
    assert len(await writer.submit(keys)) == 1000
    assert await writer.submit(changes) == 1000


async def test_what_was_queued_last_can_be_taken_back_until_the_thread_has_it(writer: Writer) -> None:
    first = writer.post(lambda connection: insert(connection, "first"))
    last = writer.post(lambda connection: insert(connection, "last"))
    assert not writer.take_back(first)
    assert writer.take_back(last)
    assert not writer.take_back(last)
    assert writer.take_back(first)
    gone = writer.post(lambda connection: insert(connection, "gone"))
    assert await writer.submit(keys) == ["gone"]
    assert not writer.take_back(gone)


async def test_closing_commits_what_is_queued(tmp_path: Path) -> None:
    writer = Writer(lambda: open_file(tmp_path / "pool.db"))
    await writer.open()
    for number in range(1000):
        writer.post(lambda connection, number=number: insert(connection, str(number)))
    await writer.close(0)
    with pytest.raises(EngineError, match="stopped"):
        writer.post(keys)
    connection = open_file(tmp_path / "pool.db")
    assert len(keys(connection)) == 1000
    connection.close()


async def test_a_callback_that_fails_is_reported(writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    def broken(result: str) -> None:
        raise ZeroDivisionError(result)

    assert await writer.submit(lambda connection: insert(connection, "a"), committed=broken) == "a"
    assert "ZeroDivisionError" in caplog.text


def insert_much(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("insert into store values ('s', ?, ?)", (key, "x" * 100_000))


class FullDisk:
    """A real file with a limit, as a disk has one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        self._connection = open_file(self._path)
        self.limit(1)
        return self._connection

    def limit(self, pages: int) -> None:
        assert self._connection is not None
        self._connection.execute(f"pragma max_page_count = {pages}")


async def test_a_full_store_refuses_some_and_delays_others_in_their_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []
    disk = FullDisk(tmp_path / "pool.db")
    writer = Writer(disk.open)
    await writer.open()
    patient = [
        writer.submit(
            lambda connection, key=key: insert_much(connection, key),
            patient=True,
            committed=lambda _, key=key: order.append(key),
        )
        for key in ("first", "second")
    ]
    with pytest.raises(NotWritable, match="engine not writable: database or disk is full"):
        await writer.submit(lambda connection: insert_much(connection, "third"))
    done, _ = await asyncio.wait(patient, timeout=0.2)
    assert not done
    disk.limit(10_000)
    await asyncio.wait_for(asyncio.gather(*patient), 30)
    assert order == ["first", "second"]
    assert await writer.submit(keys) == ["first", "second"]
    assert "can be written again" in caplog.text
    await writer.close(0)


async def test_a_full_store_does_not_keep_the_writer_from_closing(tmp_path: Path) -> None:
    writer = Writer(FullDisk(tmp_path / "pool.db").open)
    await writer.open()
    patient = writer.submit(lambda connection: insert_much(connection, "never"), patient=True)
    await writer.close(0.2)
    with pytest.raises(NotWritable):
        await patient
