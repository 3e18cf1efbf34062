"""A journal opened for one process: its writer, and its reader off the loop and off the writer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from llmling.engines import schema
from llmling.engines.place import Place
from llmling.engines.writer import Writer
from llmling.errors import EngineError

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]
_CHECKED_BYTES = 64 * 2**20


class Database(Protocol):
    """Where a journal lives."""

    @property
    def writer(self) -> Writer:
        """The one that writes."""
        ...

    async def open(self) -> None:
        """Open it.

        Raises:
            EngineError: It cannot be used.
        """
        ...

    async def read(self, query: Query[T]) -> T:
        """Return what a query finds in one snapshot.

        Raises:
            EngineError: It cannot be read.
        """
        ...

    async def close(self, give_up_s: float) -> None:
        """Commit what is queued and close; a store that cannot be written is tried for `give_up_s`."""
        ...


class FileDatabase:
    """A journal in a file, with a second connection for reading in a thread of its own."""

    def __init__(self, path: Path, foreign: Callable[[], None], served: Callable[[], bool]) -> None:
        """`served` says whether a process serves the file; `foreign` is called after another one has written."""
        self._path = path
        self.writer = Writer(lambda: schema.open_file(path, served), place=Place(path), foreign=foreign)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="llmling-engine-reader")
        self._reader: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open both connections; the first makes the file when it is not there."""
        await self.writer.open()

    async def check(self) -> None:
        """Look for damage, unless the file is so large that this would delay the start.

        Raises:
            EngineError: The file is damaged.
        """
        if self._path.stat().st_size <= _CHECKED_BYTES:
            await self.read(schema.check)

    async def read(self, query: Query[T]) -> T:
        """Return what a query finds in one snapshot; cancelling it does not wait for it."""
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._executor, self._run, query)
        except RuntimeError as error:
            raise EngineError("the engine is stopped") from error
        try:
            return await reading
        except sqlite3.Error as error:
            raise schema.explain(self._path, error) from error

    async def close(self, give_up_s: float) -> None:
        """Close the writer, then the reader: the last one to close folds the log into the file."""
        await self.writer.close(give_up_s)
        # Queries are short, and the thread has to be gone before its connection is.
        self._executor.shutdown(wait=True)
        if self._reader is not None:
            self._reader.close()

    def _run(self, query: Query[T]) -> T:
        if self._reader is None:
            self._reader = schema.open_reader(self._path)
        self._reader.execute("begin")
        try:
            return query(self._reader)
        finally:
            self._reader.execute("rollback")


class MemoryDatabase:
    """A journal in memory: one connection, so reading is queued with the writes."""

    def __init__(self) -> None:
        self.writer = Writer(schema.open_memory)

    async def open(self) -> None:
        """Make the tables."""
        await self.writer.open()

    async def read(self, query: Query[T]) -> T:
        """Return what a query finds."""
        return await self.writer.submit(query)

    async def close(self, give_up_s: float) -> None:
        """Forget everything."""
        await self.writer.close(give_up_s)
