"""Holding a folder, so that two pools never run the same files."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from dataclasses import dataclass

_log = logging.getLogger("llmling.triggers.file")
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_guard = threading.Lock()


class FolderBusy(Exception):
    """Another pool holds the folder, in this process or another one."""


@dataclass(slots=True)
class _Held:
    descriptor: int
    holders: int
    owner: object


_held: dict[tuple[int, int], _Held] = {}


class FolderLock:
    """A folder held by this process: an advisory `flock` on the folder itself, gone with the process.

    Triggers of one owner (a pool's engine) share it. A file system without such locks is used without, with a warning.
    """

    def __init__(self, identity: tuple[int, int]) -> None:
        self._identity: tuple[int, int] | None = identity

    @classmethod
    def take(cls, folder: str, owner: object = None) -> FolderLock:
        """Hold a folder until `release`; never waits.

        Raises:
            FolderBusy: Another process or another owner holds it.
            OSError: It is not there, or may not be read.
        """
        with _guard:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            facts = os.fstat(descriptor)
            identity = facts.st_dev, facts.st_ino
            if identity in _held:
                os.close(descriptor)
                if _held[identity].owner is not owner:
                    raise FolderBusy(folder)
                _held[identity].holders += 1
                return cls(identity)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _BUSY:
                    os.close(descriptor)
                    raise FolderBusy(folder) from None
                _log.warning(
                    "folder %s cannot be locked (%s): make sure that no other pool watches it", folder, error.strerror
                )
            _held[identity] = _Held(descriptor, 1, owner)
            return cls(identity)

    def release(self) -> None:
        """Let the folder go, if no other trigger of its owner holds it; releasing twice is no error."""
        with _guard:
            identity, self._identity = self._identity, None
            if identity is None:
                return
            held = _held[identity]
            held.holders -= 1
            if not held.holders:
                del _held[identity]
                os.close(held.descriptor)
