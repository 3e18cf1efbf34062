"""Reading a file that was found, and only that one."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import stat
from dataclasses import dataclass

from llmling.triggers.folders.scan import Sighting

_PIECE = 1_000_000
_REPLACED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


def mtime_text(mtime_ns: int) -> str:
    """Return a modification time as an event carries it: ISO 8601 in UTC, to the microsecond; absurd ones as year 1."""
    try:
        return (_EPOCH + dt.timedelta(microseconds=mtime_ns // 1_000)).isoformat()
    except OverflowError:
        return _FIRST.isoformat()


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file; both are None when it was not read, `text` also when it is not UTF-8."""

    sha256: str | None = None
    text: str | None = None


def read(sighting: Sighting, max_bytes: int) -> Content | None:
    """Return the content of the very version that was seen, or None when it is another one by now.

    A file over `max_bytes` is not read. Never follows a link, never waits for a pipe.

    Raises:
        OSError: The file is there, but may not or cannot be read.
    """
    try:
        descriptor = os.open(sighting.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _REPLACED:
            return None
        raise
    raw = bytearray()
    try:
        if not _is_version(descriptor, sighting):
            return None
        if sighting.size > max_bytes:
            return Content()
        while len(raw) <= sighting.size and (piece := os.read(descriptor, _PIECE)):
            raw += piece
        if len(raw) != sighting.size or not _is_version(descriptor, sighting):
            return None
    finally:
        os.close(descriptor)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    return Content(hashlib.sha256(raw).hexdigest(), text)


def _is_version(descriptor: int, sighting: Sighting) -> bool:
    facts = os.fstat(descriptor)
    return stat.S_ISREG(facts.st_mode) and (facts.st_size, facts.st_mtime_ns, facts.st_ino) == (
        sighting.size,
        sighting.mtime_ns,
        sighting.inode,
    )
