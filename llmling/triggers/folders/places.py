"""Where the roots of a trigger stand: there or missing, held for this process, replaced by another folder."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmling.errors import StartupError
from llmling.triggers.folder_lock import FolderBusy, FolderLock
from llmling.triggers.folders.selection import Root

_log = logging.getLogger("llmling.triggers.file")


@dataclass(frozen=True, slots=True)
class Place:
    """A root as it was found: the folder to hold and to watch, which is the one around it when it is a file."""

    folder: str
    identity: tuple[int, int]
    is_file: bool


@dataclass(slots=True)
class Places:
    """The roots of one trigger; its methods block on the file system.

    `devices` remembers on which file system each root was, so that an unmounted one is told from an emptied one.
    """

    trigger: str
    roots: Sequence[Root]
    devices: dict[str, int]
    owner: object = None
    _found: dict[Root, Place] = field(default_factory=dict[Root, Place])
    _locks: dict[Root, FolderLock] = field(default_factory=dict[Root, FolderLock])
    _complaints: dict[Root, str] = field(default_factory=dict[Root, str])
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _released: bool = False

    def present(self) -> list[Root]:
        """Return the roots that are there and held."""
        return list(self._found)

    def deep(self) -> list[str]:
        """Return the folders to watch with everything below."""
        return sorted({place.folder for root, place in self._found.items() if not place.is_file and root.depth != 1})

    def flat(self) -> list[str]:
        """Return the folders to watch without what is below."""
        return sorted({place.folder for root, place in self._found.items() if place.is_file or root.depth == 1})

    def check(self, *, first: bool = False) -> bool:
        """Look at every root again; True when something is different: scan all and watch anew.

        Raises:
            StartupError: At the `first` check, another process holds one of the folders.
        """
        with self._guard:
            if self._released:
                return False
            changes = [self._check(root, first=first) for root in self.roots]
        return any(changes)

    def release(self) -> None:
        """Let all folders go, for good."""
        with self._guard:
            self._released = True
            while self._locks:
                self._locks.popitem()[1].release()
            self._found.clear()

    def _check(self, root: Root, *, first: bool) -> bool:
        before = self._found.get(root)
        place = self._look(root)
        if place == before:
            return False
        if before is not None:
            del self._found[root]
            self._locks.pop(root).release()
            if place is not None:
                _log.warning("trigger %r: %s was replaced; it is watched anew", self.trigger, root.path)
        if place is not None:
            self._hold(root, place, first=first)
        return before is not None or root in self._found

    def _hold(self, root: Root, place: Place, *, first: bool) -> None:
        try:
            lock = FolderLock.take(place.folder, self.owner)
        except FolderBusy:
            message = (
                f"trigger {self.trigger!r}: another pool watches the folder {place.folder}; give each process folders"
                " of its own, or let them share their events by `engine: {type: nats}`"
            )
            if first:
                raise StartupError(message, usage=True) from None
            self._complain(root, message)
        except OSError as error:
            self._complain(root, f"trigger {self.trigger!r}: {place.folder} cannot be opened: {error.strerror}")
        else:
            if self._complaints.pop(root, None) is not None:
                _log.info("trigger %r: %s is there now", self.trigger, root.path)
            self._found[root] = place
            self._locks[root] = lock

    def _look(self, root: Root) -> Place | None:
        try:
            facts = os.stat(root.path)  # noqa: PTH116
            if stat.S_ISDIR(facts.st_mode):
                if self._unmounted(root, facts.st_dev):
                    self._complain(
                        root,
                        f"trigger {self.trigger!r}: {root.path} is empty and on another file system than before;"
                        " taken for one that is not mounted: waiting for files",
                    )
                    return None
                return Place(root.path, (facts.st_dev, facts.st_ino), is_file=False)
            folder = os.path.dirname(root.path)  # noqa: PTH120
            facts = os.stat(folder)  # noqa: PTH116
            return Place(folder, (facts.st_dev, facts.st_ino), is_file=True)
        except (FileNotFoundError, NotADirectoryError):
            self._complain(root, f"trigger {self.trigger!r}: {root.path} does not exist yet; waiting for it")
        except OSError as error:
            self._complain(root, f"trigger {self.trigger!r}: {root.path} cannot be read: {error.strerror}")
        return None

    def _unmounted(self, root: Root, device: int) -> bool:
        if self.devices.get(root.path, device) != device:
            with os.scandir(root.path) as entries:
                if next(entries, None) is None:
                    return True
        self.devices[root.path] = device
        return False

    def _complain(self, root: Root, message: str) -> None:
        """Log once why a root is not watched, until the reason is another one."""
        if self._complaints.get(root) != message:
            self._complaints[root] = message
            _log.warning("%s", message)
