"""What lies in the folders of a file trigger right now: the truth that every hint is checked against."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field

from llmling.triggers.folders.names import original, storable
from llmling.triggers.folders.seen import Seen
from llmling.triggers.folders.selection import Root, Selection

_log = logging.getLogger("llmling.triggers.file")
_MOST_REMARKS = 10_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at a file.

    `relative` is its path from the manifest's folder, fit to be stored; `path` is what `os.open` takes, with a
    link in place of the last name already followed.
    """

    relative: str
    path: str
    size: int
    mtime_ns: int
    inode: int

    def same_version(self, other: Sighting) -> bool:
        """Say whether nothing has happened to the file between two looks."""
        return (self.size, self.mtime_ns, self.inode) == (other.size, other.mtime_ns, other.inode)


@dataclass(slots=True)
class Scan:
    """What one scan found: files that are not as they were last `seen`, and those that are gone.

    `more` says that there was no room for all of them; `folders` that a hint led to a whole folder.
    """

    found: list[Sighting] = field(default_factory=list[Sighting])
    gone: list[str] = field(default_factory=list[str])
    more: bool = False
    folders: bool = False


class Scanner:
    """Walks the roots of a selection; made for one thread at a time that is not the event loop's."""

    def __init__(self, selection: Selection, trigger: str) -> None:
        self._selection = selection
        self._trigger = trigger
        self._remarks: set[str] = set()

    def full(self, roots: Sequence[Root], seen: Seen, *, waiting: Container[str], room: float) -> Scan:
        """Scan `roots` completely; files in `waiting` are not reported, nor more than `room`."""
        scan = Scan()
        present: set[str] = set()
        unreadable: list[str] = []
        for root in roots:
            for sighting in self._walk(root, "", unreadable.append):
                present.add(sighting.relative)
                if sighting.size and sighting.relative not in waiting:
                    self._report(scan, sighting, seen, room)
        scan.gone = [path for path in seen.paths() if path not in present and self._can_tell(path, roots, unreadable)]
        return scan

    def hinted(self, paths: Sequence[str], roots: Sequence[Root], seen: Seen, *, room: float) -> Scan:
        """Look only at `paths`, and at everything below those that are folders."""
        scan = Scan()
        missing: list[str] = []
        for path in paths:
            for root in roots:
                below = root.below(path)
                if below is None or not self._selection.reaches(root, below):
                    continue
                for sighting in self._at(root, below, scan, missing):
                    if sighting.size:
                        self._report(scan, sighting, seen, room)
        if missing:
            scan.gone = [path for path in missing if path in seen]
            folders = tuple(f"{path}/" for path in missing if path not in seen)
            if folders:
                scan.gone.extend(path for path in seen.paths() if path.startswith(folders))
            scan.gone = [path for path in scan.gone if self._selection.covers(original(path))]
        return scan

    def look(self, relative: str) -> Sighting | None:
        """Look at one file again; None when it is no longer there or no longer meant."""
        path = self._selection.full(original(relative))
        for root in self._selection.roots:
            below = root.below(path)
            if below is not None and self._selection.reaches(root, below) and self._selection.takes(root, below):
                sighting = self._file(root, below, path)
                if sighting is not None:
                    return sighting
        return None

    def _report(self, scan: Scan, sighting: Sighting, seen: Seen, room: float) -> None:
        if seen.same(sighting.relative, sighting.size, sighting.mtime_ns):
            return
        if len(scan.found) < room:
            scan.found.append(sighting)
        else:
            scan.more = True

    def _can_tell(self, relative: str, roots: Sequence[Root], unreadable: Sequence[str]) -> bool:
        """Say whether a path that was not met is really gone: it is meant, and its folder could be read."""
        path = self._selection.full(original(relative))
        return (
            any(root.below(path) is not None for root in roots)
            and not any(path.startswith(folder + "/") for folder in unreadable)
            and self._selection.covers(original(relative))
        )

    def _at(self, root: Root, below: str, scan: Scan, missing: list[str]) -> Iterator[Sighting]:
        path = f"{root.path}/{below}" if below else root.path
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            missing.append(storable(root.relative(below)))
            return
        if stat.S_ISDIR(mode):
            if not below or self._selection.enters(root, below):
                scan.folders = True
                yield from self._walk(root, below, lambda _: None)
        elif self._selection.takes(root, below):
            sighting = self._file(root, below, path)
            if sighting is not None:
                yield sighting
            elif not stat.S_ISLNK(mode):
                missing.append(storable(root.relative(below)))

    def _walk(self, root: Root, start: str, unreadable: Callable[[str], None]) -> Iterator[Sighting]:
        """Yield the files below a folder of a root; the root itself may be a file."""
        takes, enters = self._selection.takes, self._selection.enters
        folders = [start]
        while folders:
            folder = folders.pop()
            path = f"{root.path}/{folder}" if folder else root.path
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        below = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if enters(root, below):
                                folders.append(below)
                        elif takes(root, below):
                            sighting = self._entry(root, below, entry)
                            if sighting is not None:
                                yield sighting
            except NotADirectoryError:
                if not folder and root.glob is None and takes(root, "") and (found := self._file(root, "", path)):
                    yield found
            except FileNotFoundError:
                if not folder:
                    unreadable(path)
            except OSError as error:
                unreadable(path)
                self._remark(path, f"folder cannot be read: {error.strerror}")

    def _entry(self, root: Root, below: str, entry: os.DirEntry[str]) -> Sighting | None:
        if entry.is_symlink():
            return self._file(root, below, entry.path)
        try:
            facts = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._remark(entry.path, f"it cannot be read: {error.strerror}")
            return None
        return self._sighting(root, below, entry.path, facts)

    def _file(self, root: Root, below: str, path: str) -> Sighting | None:
        try:
            facts = os.lstat(path)
            if stat.S_ISLNK(facts.st_mode):
                # The root may be a link, or be reached by one: its owner named it. Nothing below may lead out of it.
                target = os.path.realpath(path, strict=True)
                home = os.path.realpath(root.path if below else os.path.dirname(root.path))  # noqa: PTH120
                if not target.startswith(home.rstrip("/") + "/"):
                    self._remark(path, f"it is a link that leads out of the folder, to {storable(target)!r}")
                    return None
                path, facts = target, os.lstat(target)
                if stat.S_ISDIR(facts.st_mode):
                    self._remark(path, "it is a link to a folder, whose files are found under their own names")
                    return None
        except OSError:
            return None
        return self._sighting(root, below, path, facts)

    def _sighting(self, root: Root, below: str, path: str, facts: os.stat_result) -> Sighting | None:
        if not stat.S_ISREG(facts.st_mode):
            self._remark(path, "it is not a regular file")
            return None
        relative = storable(root.relative(below))
        return Sighting(relative, path, facts.st_size, facts.st_mtime_ns, facts.st_ino)

    def _remark(self, path: str, reason: str) -> None:
        """Log once per path why it is left alone."""
        if path not in self._remarks and len(self._remarks) < _MOST_REMARKS:
            self._remarks.add(path)
            _log.warning("trigger %r leaves %r alone: %s", self._trigger, storable(path), reason)
