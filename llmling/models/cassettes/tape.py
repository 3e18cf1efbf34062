"""What a cassette holds for one agent: each request's replies in the order they were recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmling.errors import StartupError
from llmling.manifest.cassettes import CassetteEntry, CassetteReply, read_cassette
from llmling.manifest.problems import Report, Source
from llmling.models.cassettes.exchange import identity, recorded_request
from llmling.models.cassettes.varying import alike


@dataclass(frozen=True, slots=True)
class Recorded:
    """One reply of a cassette, and its request ready to be compared."""

    agent: str
    reply: CassetteReply
    request: Mapping[str, Any]
    identity: str
    alike: str
    line: int


class Tape:
    """Answers a request with its replies in turn, and with the last one ever after.

    A request that differs from every recorded one is taken for the one that is the same but for ids, dates and times.
    """

    def __init__(self, recorded: Iterable[Recorded]) -> None:
        self.recorded = tuple(recorded)
        self._same = _grouped(self.recorded, lambda each: each.identity)
        self._alike = _grouped(self.recorded, lambda each: each.alike)
        self._given: dict[str, int] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were asked, in the order they first were."""
        return tuple(dict.fromkeys(each.reply.model for each in self.recorded))

    def of(self, model: str) -> Tape:
        """Return what was asked of one model."""
        return Tape(each for each in self.recorded if each.reply.model == model)

    def take(self, request: Mapping[str, Any]) -> Recorded | None:
        """Return the next reply to a request, or None when it was never recorded."""
        key, found = self._find(request)
        if not found:
            return None
        turn = self._given.get(key, 0)
        self._given[key] = turn + 1
        return found[min(turn, len(found) - 1)]

    def holds(self, request: Mapping[str, Any]) -> bool:
        """Whether a request was recorded."""
        return bool(self._find(request)[1])

    def _find(self, request: Mapping[str, Any]) -> tuple[str, list[Recorded]]:
        key = identity(request)
        if key in self._same:
            return key, self._same[key]
        key = alike(key)
        return key, self._alike.get(key, [])


def _grouped(recorded: Iterable[Recorded], key: Callable[[Recorded], str]) -> dict[str, list[Recorded]]:
    groups: dict[str, list[Recorded]] = {}
    for each in recorded:
        groups.setdefault(key(each), []).append(each)
    return groups


def load_cassette(path: Path) -> tuple[Recorded, ...]:
    """Return every reply of a cassette.

    Raises:
        StartupError: It cannot be read or used; the message names every mistake with its place.
    """
    try:
        facts = path.stat()
        return _loaded(path, facts.st_mtime_ns, facts.st_size)
    except OSError as error:
        hint = "; record it with --record" if isinstance(error, FileNotFoundError) else ""
        raise StartupError(f"cassette {path}: {error.strerror or error}{hint}", usage=True) from None


# Every agent of a pool reads the same file; what was read never changes.
@functools.lru_cache(maxsize=4)
def _loaded(path: Path, changed: int, size: int) -> tuple[Recorded, ...]:
    report = Report()
    entries = read_cassette(path, Source(str(path)), report)
    if report.failed:
        problems = "\n".join(problem.render() for problem in report.problems())
        raise StartupError(f"cassette {path} cannot be used:\n{problems}", usage=True)
    return tuple(recorded for entry in entries for recorded in _ready(entry))


def _ready(entry: CassetteEntry) -> list[Recorded]:
    request = recorded_request(entry)
    key = identity(request)
    like = alike(key)
    exchange = entry.exchange
    return [Recorded(exchange.agent, reply, request, key, like, entry.line) for reply in exchange.replies]
