"""The engine without a file: all that a pool in one process needs, gone when it ends."""

from __future__ import annotations

from pathlib import Path

from llmling.engines.database import MemoryDatabase
from llmling.engines.journal import JournalEngine
from llmling.engines.retention import Retention
from llmling.manifest.pool import MemoryEngineConfig
from llmling.runtime.clock import SYSTEM_CLOCK, Clock

_KEEP_S = 86_400
_KEEP_EVENTS = 10_000


class MemoryEngine(JournalEngine):
    """Keeps events in memory, settled ones for a day and at most 10,000 of them."""

    def __init__(self, config: MemoryEngineConfig, folder: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        """Config and folder are those every engine gets; nothing of them is needed here."""
        super().__init__(Retention(_KEEP_S, _KEEP_EVENTS), clock)

    def _make_database(self) -> MemoryDatabase:
        return MemoryDatabase()

    async def _claim(self) -> None:
        """Nobody else can reach what is in this process's memory."""

    def _unclaim(self) -> None:
        """Nobody else waits for it."""
