"""One serving process per journal: a lock on a file beside it, which the kernel frees however that process ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path

from llmling.errors import EngineBusy, EngineError

_TRIES = 10
_PAUSE_S = 0.03


class FileLock:
    """An exclusive lock on `path`; the file stays, it holds the id of the last owner."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    async def take(self, subject: Path) -> None:
        """Take the lock that guards `subject`, within a third of a second.

        Raises:
            EngineBusy: Another process holds it.
            EngineError: The file cannot be made.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EngineError(f"the lock {self._path} cannot be made: {error.strerror}") from error
        try:
            owner = await _taken(fd)
        except BaseException:
            os.close(fd)
            raise
        if owner is None:
            self._fd = fd
            return
        os.close(fd)
        raise EngineBusy(
            f"{subject} is served by another process{f' (id {owner})' if owner else ''}; stop that one, or give each "
            "process an `engine.path` of its own. Several processes on one set of events need `engine: {type: nats}`"
        )

    def free(self) -> None:
        """Give the lock back; without having it this does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def held(self) -> bool:
        """Whether any process, this one included, has the lock."""
        if self._fd is not None:
            return True
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return not _try(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


async def _taken(fd: int) -> str | None:
    """Return None once it is ours, or the id of its owner when it still has one after the last try."""
    # More than one try: `held` of another process takes it for a moment, too.
    for _ in range(_TRIES):
        if _try(fd, fcntl.LOCK_EX):
            # The id is for people; a full disk has room for none, and says so when it matters.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return None
        await asyncio.sleep(_PAUSE_S)
    return os.pread(fd, 32, 0).decode("ascii", "replace").strip()


def _try(fd: int, mode: int) -> bool:
    try:
        fcntl.flock(fd, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
