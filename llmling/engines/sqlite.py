"""The engine for one machine: a journal in one SQLite file."""

from __future__ import annotations

from pathlib import Path

from llmling.engines.database import FileDatabase
from llmling.engines.journal import JournalEngine
from llmling.engines.lock import FileLock
from llmling.engines.retention import Retention
from llmling.manifest.pool import SqliteEngineConfig
from llmling.runtime.clock import SYSTEM_CLOCK, Clock

_DAY_S = 86_400


class SqliteEngine(JournalEngine):
    """Keeps events in a file that survives the process, `kill -9` and loss of power.

    One process serves a file; any number may open it to accept, list, retry and drop, also meanwhile.
    """

    def __init__(self, config: SqliteEngineConfig, folder: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        """`config.path` starts at `folder` when it is relative."""
        super().__init__(Retention(config.keep_days * _DAY_S), clock)
        self.path = folder / config.path
        self._lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        self._file: FileDatabase | None = None

    @property
    def serving(self) -> bool:
        """Whether any process serves this file right now."""
        return super().serving or self._lock.held

    def _make_database(self) -> FileDatabase:
        self._file = FileDatabase(self.path, self._foreign, lambda: self._lock.held)
        return self._file

    async def _claim(self) -> None:
        await self._lock.take(self.path)
        if self._file is not None:
            await self._file.check()

    def _unclaim(self) -> None:
        self._lock.free()
