"""From files that have settled to committed events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from llmling.errors import Full
from llmling.events import Event
from llmling.manifest.triggers import FileTriggerConfig
from llmling.protocols import Emit, Engine, Receipt
from llmling.triggers.folders.content import Content, mtime_text, read
from llmling.triggers.folders.lane import Lane
from llmling.triggers.folders.names import original, storable
from llmling.triggers.folders.scan import Sighting
from llmling.triggers.folders.seen import Seen
from llmling.triggers.folders.selection import Selection

_log = logging.getLogger("llmling.triggers.file")
_QUERY = 500
_TELL_FULL_S = 60.0

Change: TypeAlias = Literal["added", "modified", "deleted"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    sighting: Sighting
    version: str
    change: Change


class Intake:
    """Reads files and commits their events, many at once, then remembers them as seen.

    An event is committed before its file counts as seen. A crash in between is harmless: the key is known.
    """

    def __init__(
        self, config: FileTriggerConfig, selection: Selection, seen: Seen, engine: Engine, emit: Emit, lane: Lane
    ) -> None:
        self._config = config
        self._name = config.name
        self._selection = selection
        self._engine = engine
        self._emit = emit
        self._seen = seen
        self._lane = lane
        self._unreadable: set[str] = set()
        self._told_full = -_TELL_FULL_S

    async def take(self, chunk: Sequence[Sighting]) -> tuple[list[Sighting], list[Receipt]]:
        """Commit the events of files that have settled.

        Returns the files that changed meanwhile and must settle again, and the receipts of those that had been
        committed before and have settled since.

        Raises:
            EngineError: The store cannot be used.
        """
        seen: dict[str, str] = {}
        wanted: list[_Candidate] = []
        for sighting in chunk:
            version = self._seen.version(sighting.relative, sighting.size, sighting.mtime_ns)
            change: Change = "modified" if sighting.relative in self._seen else "added"
            if change in self._config.events:
                wanted.append(_Candidate(sighting, version, change))
            else:
                seen[sighting.relative] = version
        known = await self._known(wanted, seen)
        wanted = [candidate for candidate in wanted if candidate.sighting.relative not in seen]
        contents = await self._lane(lambda: [self._read(candidate.sighting) for candidate in wanted])
        changed: list[Sighting] = []
        commits: list[tuple[Event, str, str | None]] = []
        for candidate, content in zip(wanted, contents, strict=True):
            if content is None:
                changed.append(candidate.sighting)
            elif content != _UNREADABLE:
                commits.append(self._event(candidate, content))
                by_content = self._config.dedupe == "content" and content.sha256 is not None
                mark = f"#{content.sha256}" if by_content else ""
                seen[candidate.sighting.relative] = candidate.version + mark
        await self._commit(commits)
        if seen:
            await self._seen.add(seen)
        return changed, known

    async def gone(self, paths: Sequence[str]) -> None:
        """Commit that files, given by their paths from the manifest's folder, are no longer there."""
        ours = await self.receipts(paths)
        commits: list[tuple[Event, str, str | None]] = []
        for relative in paths:
            if relative not in self._seen:
                continue
            receipt = ours.get(relative)
            moved = receipt is not None and self._takes_away(receipt)
            if "deleted" in self._config.events and not moved:
                data = {
                    "path": storable(self._selection.full(original(relative))),
                    "name": PurePosixPath(relative).name,
                    "change": "deleted",
                    "size": None,
                    "mtime": None,
                    "sha256": None,
                    "text": None,
                }
                event = Event(self._name, "dev.llmling.file.deleted", relative, data)
                commits.append((event, f"deleted|{relative}|{self._seen.known(relative)}", None))
        await self._commit(commits)
        for relative in paths:
            self._unreadable.discard(relative)
            self._seen.leave(relative)
        await self._seen.flush()

    async def receipts(self, paths: Sequence[str]) -> dict[str, Receipt]:
        """Return, by path, the receipts of the last events of files that were seen."""
        keys = {self._key(path, self._seen.known(path)): path for path in paths}
        found: dict[str, Receipt] = {}
        ordered = list(keys)
        for start in range(0, len(ordered), _QUERY):
            known = await self._engine.known(self._name, ordered[start : start + _QUERY])
            found.update((keys[key], receipt) for key, receipt in known.items())
        return found

    def _takes_away(self, receipt: Receipt) -> bool:
        """Say whether a file whose event has this receipt was moved or deleted by us."""
        action = {"done": self._config.on_done, "dead": self._config.on_fail}.get(receipt.status, "keep")
        return action != "keep"

    def _key(self, relative: str, version: str) -> str:
        version, _, sha256 = version.partition("#")
        if self._config.dedupe == "path":
            return f"path|{relative}"
        return f"content|{sha256}" if sha256 else f"version|{relative}|{version}"

    async def _known(self, wanted: Sequence[_Candidate], seen: dict[str, str]) -> list[Receipt]:
        """Put those that were committed before into `seen`, unread; return their receipts."""
        if self._config.dedupe == "content" or not wanted:
            return []
        keys = {self._key(one.sighting.relative, one.version): one for one in wanted}
        known = await self._engine.known(self._name, list(keys))
        for key in known:
            seen[keys[key].sighting.relative] = keys[key].version
        return [receipt for receipt in known.values() if receipt.status in {"done", "dead"}]

    def _read(self, sighting: Sighting) -> Content | None:
        try:
            content = read(sighting, self._config.max_bytes)
        except OSError as error:
            if sighting.relative not in self._unreadable:
                self._unreadable.add(sighting.relative)
                _log.warning(
                    "trigger %r cannot read %r (%s); it is tried again every %g s",
                    self._name,
                    sighting.relative,
                    error.strerror,
                    self._config.poll_s,
                )
            return _UNREADABLE
        self._unreadable.discard(sighting.relative)
        return content

    def _event(self, candidate: _Candidate, content: Content) -> tuple[Event, str, str | None]:
        """Return an event with its key and, for a file that is too large, why it is dead."""
        sighting = candidate.sighting
        data = {
            "path": storable(self._selection.full(original(sighting.relative))),
            "name": PurePosixPath(sighting.relative).name,
            "change": candidate.change,
            "size": sighting.size,
            "mtime": mtime_text(sighting.mtime_ns),
            "sha256": content.sha256,
            "text": content.text,
        }
        event = Event(self._name, f"dev.llmling.file.{candidate.change}", sighting.relative, data)
        most = self._config.max_bytes
        dead = f"file is {sighting.size} bytes, over max_bytes {most} of trigger {self._name!r}"
        mark = f"#{content.sha256}" if self._config.dedupe == "content" and content.sha256 else ""
        key = self._key(sighting.relative, candidate.version + mark)
        return event, key, dead if sighting.size > most else None

    async def _commit(self, commits: Sequence[tuple[Event, str, str | None]]) -> None:
        """Commit all events side by side, so that the engine can write them in one transaction."""
        if len(commits) == 1:
            await self._commit_one(*commits[0])
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                for commit in commits:
                    tasks.create_task(self._commit_one(*commit))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _commit_one(self, event: Event, key: str, dead: str | None) -> None:
        while True:
            try:
                await self._emit(event, key=key, dead=dead)
            except Full as full:
                now = time.monotonic()
                if now - self._told_full >= _TELL_FULL_S:
                    self._told_full = now
                    _log.warning("trigger %r pauses: %s; it goes on as soon as there is room", self._name, full)
                await asyncio.sleep(full.retry_after_s)
            else:
                return


_UNREADABLE = Content(sha256="", text=None)
