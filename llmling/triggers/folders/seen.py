"""The files a trigger has already dealt with, in memory and in the engine's store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llmling.protocols import Store

_MOST_GONE = 20_000
_BATCH = 5_000


class Seen:
    """Path -> version of every file that was dealt with; a version is `size.mtime_ns~n#sha256`.

    `~n` counts how often the path has vanished, so that a file that comes back unchanged is a new one; the counts of
    vanished paths are kept for the last 20,000 of them. `#sha256` is there when contents are compared.
    """

    def __init__(self, store: Store, trigger: str) -> None:
        self._store = store
        self._space = f"file:{trigger}"
        self._gone_space = f"file:{trigger}:gone"
        self._state_space = f"file:{trigger}:state"
        self._versions: dict[str, str] = {}
        self._gone: dict[str, int] = {}
        self._left: dict[str, int] = {}

    async def load(self) -> None:
        """Read what earlier processes stored."""
        self._versions = await self._store.items(self._space)
        self._gone = await self._store.items(self._gone_space)

    async def state(self, key: str) -> object:
        """Return a fact about the trigger itself, or None."""
        return await self._store.get(self._state_space, key)

    async def set_state(self, key: str, value: str | int) -> None:
        """Store a fact about the trigger itself."""
        await self._store.put(self._state_space, {key: value})

    def __contains__(self, path: object) -> bool:
        return path in self._versions

    def paths(self) -> Sequence[str]:
        """Return a copy of all paths."""
        return list(self._versions)

    def same(self, path: str, size: int, mtime_ns: int) -> bool:
        """Say whether this version of the file was already dealt with."""
        known = self._versions.get(path)
        if known is None:
            return False
        version = f"{size}.{mtime_ns}"
        return known == version or known.startswith((version + "~", version + "#"))

    def version(self, path: str, size: int, mtime_ns: int) -> str:
        """Return the version such a file has now."""
        known = self._versions.get(path)
        times = self._gone.get(path, 0) if known is None else _times(known)
        return f"{size}.{mtime_ns}~{times}" if times else f"{size}.{mtime_ns}"

    def known(self, path: str) -> str:
        """Return the version last dealt with.

        Raises:
            KeyError: There is none.
        """
        return self._versions[path]

    async def add(self, versions: Mapping[str, str]) -> None:
        """Remember files as dealt with; durable on return."""
        await self.flush()
        self._versions.update(versions)
        items = list(versions.items())
        for start in range(0, len(items), _BATCH):
            await self._store.put(self._space, dict(items[start : start + _BATCH]))

    def leave(self, path: str) -> None:
        """Forget a file that is no longer there; `flush` makes it durable."""
        known = self._versions.pop(path, None)
        if known is None:
            return
        self._gone.pop(path, None)
        self._gone[path] = self._left[path] = _times(known) + 1

    async def flush(self) -> None:
        """Store what `leave` forgot."""
        left, self._left = self._left, {}
        if not left:
            return
        # The count first: a crash in between finds the file gone once more, and counts to the same number.
        await self._store.put(self._gone_space, left)
        await self._store.remove(self._space, [path for path in left if path not in self._versions])
        oldest = list(_first(self._gone, len(self._gone) - _MOST_GONE))
        if oldest:
            for path in oldest:
                del self._gone[path]
            await self._store.remove(self._gone_space, oldest)


def _times(version: str) -> int:
    """Return how often the path had vanished before this version."""
    return int(version.partition("#")[0].partition("~")[2] or 0)


def _first(keys: Iterable[str], count: int) -> Iterable[str]:
    for key, _ in zip(keys, range(max(0, count)), strict=False):
        yield key
