"""How long settled events and keys are kept."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from llmling.engines import queries, upkeep
from llmling.engines.database import Database

_BATCH = 200
_SECOND_S, _HOUR_S = 1.0, 3600.0


@dataclass(frozen=True, slots=True)
class Retention:
    """Settled events older than `keep_s` go, and the oldest beyond `keep_events`; keys go when they expire."""

    keep_s: float
    keep_events: int | None = None

    @property
    def every_s(self) -> float:
        """How often to look: once an hour, and sooner where less than ten hours are kept."""
        return min(_HOUR_S, max(_SECOND_S, self.keep_s / 10))

    async def apply(self, database: Database, now: float) -> None:
        """Delete what is too old, in small batches between which events are accepted.

        Raises:
            EngineError: The store cannot be written.
        """
        after = 0
        while True:
            look = functools.partial(queries.outdated, finished_before=now - self.keep_s, after=after, limit=_BATCH)
            old, after = await database.read(look)
            await _forget(database, old)
            if not after:
                break
        while self.keep_events is not None:
            surplus = functools.partial(queries.surplus, keep=self.keep_events, limit=_BATCH)
            old = await database.read(surplus)
            await _forget(database, old)
            if len(old) < _BATCH:
                break
        while await database.writer.submit(functools.partial(upkeep.forget_keys, now=now)) >= upkeep.CHUNK:
            pass


async def _forget(database: Database, event_ids: list[str]) -> None:
    if event_ids:
        await database.writer.submit(functools.partial(upkeep.forget, event_ids=event_ids))
