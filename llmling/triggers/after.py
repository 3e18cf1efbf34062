"""What becomes of a file once its event has settled."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
from collections.abc import Mapping
from typing import Any, Literal

from llmling.events import Event
from llmling.manifest.triggers import FileTriggerConfig
from llmling.protocols import EventStatus
from llmling.triggers.folders.content import mtime_text
from llmling.triggers.folders.names import original, shortened

# What file systems say that have no hard links, or give this file none.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class After:
    """Keeps, moves or deletes the file of a settled event, as `on_done` and `on_fail` say."""

    def __init__(self, config: FileTriggerConfig) -> None:
        self._actions: dict[EventStatus, Literal["keep", "move", "delete"]] = {
            "done": config.on_done,
            "dead": config.on_fail,
        }

    @property
    def idle(self) -> bool:
        """Whether files are always kept."""
        return all(action == "keep" for action in self._actions.values())

    def acts(self, status: EventStatus) -> bool:
        """Say whether a file is taken away when its event has this status."""
        return self._actions.get(status, "keep") != "keep"

    def apply(self, event: Event, status: EventStatus, error: str | None) -> bool:
        """Take the file of an event away; False when it is gone, or no longer the version that was run.

        Blocks on the file system.

        Raises:
            OSError: It could not be moved or deleted.
        """
        data: Any = event.data
        if not self.acts(status) or not isinstance(data, Mapping) or event.type.endswith(".deleted"):
            return False
        folder, name = os.path.split(original(str(data["path"])))  # pyright: ignore[reportUnknownArgumentType]
        try:
            place = os.open(folder, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return self._take(place, name, event, status, error)
        finally:
            os.close(place)

    def _take(self, place: int, name: str, event: Event, status: EventStatus, error: str | None) -> bool:
        data: Any = event.data
        try:
            facts = os.stat(name, dir_fd=place)
        except FileNotFoundError:
            return False
        if (facts.st_size, mtime_text(facts.st_mtime_ns)) != (data["size"], data["mtime"]):
            return False
        if self._actions[status] == "delete":
            os.unlink(name, dir_fd=place)
            return True
        kept = _enter(place, ".done" if status == "done" else ".failed")
        try:
            new = _put_away(place, name, kept)
            if status == "dead":
                _explain(kept, new, event, error)
        finally:
            os.close(kept)
        return True


def _enter(place: int, name: str) -> int:
    """Open a folder inside another one, made if it is not there; a link that leads elsewhere is refused."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=place)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise OSError(error.errno, f"{name} is no folder, or a link; remove it") from None
        raise


def _put_away(place: int, name: str, folder: int) -> str:
    """Move a file into a folder beside it under a name that is free; return that name."""
    stem, ending = os.path.splitext(name)  # noqa: PTH122
    number = 1
    while True:
        free = name if number == 1 else shortened(stem, f".{number}{ending}")
        if _move(place, name, folder, free):
            return free
        number += 1


def _move(place: int, name: str, folder: int, free: str) -> bool:
    """Move a file to a name in the same file system; False when the name is taken, which `os.rename` would ignore."""
    try:
        os.link(name, free, src_dir_fd=place, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        # A process that died halfway left the file under both names.
        if not os.path.samestat(_facts(name, place), _facts(free, folder)):
            return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with contextlib.suppress(FileNotFoundError):
            _facts(free, folder)
            return False
        os.rename(name, free, src_dir_fd=place, dst_dir_fd=folder)
        return True
    os.unlink(name, dir_fd=place)
    return True


def _facts(name: str, place: int) -> os.stat_result:
    return os.stat(name, dir_fd=place, follow_symlinks=False)


def _explain(folder: int, name: str, event: Event, error: str | None) -> None:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    reason = shortened(name, ".reason.txt")
    # What lies there may be a link or a pipe; it is replaced, never opened.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(reason, dir_fd=folder)
    file = os.open(reason, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
    with open(file, "w", encoding="utf-8") as text:  # noqa: PTH123
        text.write(f"reason: {error or 'unknown'}\nevent: {event.id}\ntime: {now}\n")
