"""Which events a command is about, when it is about many."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self

import typer

from llmling.protocols import Engine, EventRecord, EventStatus

_SINCE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Filter:
    """Events of a status, trigger and agent, that came after `since` (Unix seconds) and whose reason has `error`."""

    status: EventStatus | None = None
    trigger: str | None = None
    agent: str | None = None
    since: float | None = None
    error: str | None = None

    @classmethod
    def of(
        cls,
        status: EventStatus | None,
        trigger: str | None,
        agent: str | None,
        since: str | None,
        error: str | None,
    ) -> Self:
        """Read what the command line was given.

        Raises:
            BadParameter: `since` is no time.
        """
        return cls(status, trigger, agent, None if since is None else time.time() - _age_s(since), error)

    @property
    def narrows(self) -> bool:
        """Whether it leaves anything out."""
        return self != Filter()

    async def events(self, engine: Engine) -> AsyncIterator[EventRecord]:
        """Yield the events it lets through, newest first, without their deliveries."""
        async for record in engine.runs(status=self.status, trigger=self.trigger, limit=None):
            if self._lets_through(record):
                yield record

    def _lets_through(self, record: EventRecord) -> bool:
        if self.agent is not None and record.agent != self.agent:
            return False
        if self.since is not None and record.created < self.since:
            return False
        return self.error is None or self.error.casefold() in (record.error or "").casefold()


def _age_s(text: str) -> float:
    found = _SINCE.match(text.strip())
    if found is None:
        raise typer.BadParameter(f"--since {text!r} is no time: write a number and s, m, h or d, such as 2h")
    return float(found[1]) * _SECONDS[found[2]]
