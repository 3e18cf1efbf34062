"""Waiting until a file is whole, and until a missing one is really gone."""

from __future__ import annotations

from collections.abc import Container

from llmling.triggers.folders.scan import Sighting

CHUNK_FILES = 64
CHUNK_BYTES = 32_000_000


class Settling:
    """Files that are not old enough: each must look the same in two looks that are `settle_s` seconds apart.

    Times are steady seconds. Modification times are not consulted: copies keep old ones, clocks differ.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        # Ordered by time, as the wait is the same for all.
        self._young: dict[str, tuple[Sighting, float]] = {}
        self._missing: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._young)

    @property
    def waiting(self) -> Container[str]:
        """The paths of the files that settle."""
        return self._young.keys()

    def see(self, sighting: Sighting, now: float) -> None:
        """Note a look at a file; a changed file starts to wait anew."""
        self._missing.pop(sighting.relative, None)
        known = self._young.get(sighting.relative)
        if known is None or not known[0].same_version(sighting):
            self._young.pop(sighting.relative, None)
            self._young[sighting.relative] = (sighting, now)

    def miss(self, relative: str, now: float) -> None:
        """Note that a file is not there."""
        self._young.pop(relative, None)
        self._missing.setdefault(relative, now)

    def next_look(self) -> float | None:
        """Return when the next file has waited long enough, or None."""
        firsts: list[float] = []
        if self._young:
            firsts.append(next(iter(self._young.values()))[1])
        if self._missing:
            firsts.append(next(iter(self._missing.values())))
        return min(firsts) + self._settle_s if firsts else None

    def due(self, now: float) -> list[Sighting]:
        """Take out the files that waited long enough: at most 64, and not much more than 32 MB."""
        chunk: list[Sighting] = []
        size = 0
        for sighting, first in self._young.values():
            if first + self._settle_s > now or len(chunk) == CHUNK_FILES or size > CHUNK_BYTES:
                break
            chunk.append(sighting)
            size += sighting.size
        for sighting in chunk:
            del self._young[sighting.relative]
        return chunk

    def lost(self, now: float) -> list[str]:
        """Take out the paths that were missing long enough, at most 64."""
        gone = [path for path, first in self._missing.items() if first + self._settle_s <= now][:CHUNK_FILES]
        for path in gone:
            del self._missing[path]
        return gone
