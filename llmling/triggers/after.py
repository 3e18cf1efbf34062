"""What becomes of a file once its event has settled."""

from __future__ import annotations

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
        path = original(str(data["path"]))  # pyright: ignore[reportUnknownArgumentType]
        try:
            facts = os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False
        if (facts.st_size, mtime_text(facts.st_mtime_ns)) != (data["size"], data["mtime"]):
            return False
        if self._actions[status] == "delete":
            os.unlink(path)  # noqa: PTH108
            return True
        folder, name = os.path.split(path)
        kept = _put_away(path, os.path.join(folder, ".done" if status == "done" else ".failed"), name)  # noqa: PTH118
        if status == "dead":
            _explain(kept, event, error)
        return True


def _put_away(path: str, folder: str, name: str) -> str:
    """Move a file into a folder beside it under a name that is free; return its new path."""
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    stem, ending = os.path.splitext(name)  # noqa: PTH122
    number = 1
    while True:
        free = name if number == 1 else shortened(stem, f".{number}{ending}")
        target = os.path.join(folder, free)  # noqa: PTH118
        if _move(path, target):
            return target
        number += 1


def _move(path: str, target: str) -> bool:
    """Move a file to a name in the same file system; False when the name is taken, which `os.rename` would ignore."""
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        # A process that died halfway left the file under both names.
        if not os.path.samestat(os.lstat(path), os.lstat(target)):
            return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            return False
        os.rename(path, target)  # noqa: PTH104
        return True
    os.unlink(path)  # noqa: PTH108
    return True


def _explain(kept: str, event: Event, error: str | None) -> None:
    folder, name = os.path.split(kept)
    reason = os.path.join(folder, shortened(name, ".reason.txt"))  # noqa: PTH118
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    with open(reason, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(f"reason: {error or 'unknown'}\nevent: {event.id}\ntime: {now}\n")
