"""Files, globs and folders, put into the system message in whole."""

from __future__ import annotations

import fnmatch
import logging
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from llmling.errors import StartupError
from llmling.manifest.knowledge import FileKnowledgeConfig
from llmling.runtime.services import Services
from llmling.runtime.threads import run_in_thread

logger = logging.getLogger(__name__)

_MAGIC = frozenset("*?[")
Version: TypeAlias = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was read, and the path, size and time of every file at that moment."""

    text: str
    version: Version


class FileKnowledge:
    """The text of one file, of all files a glob matches, or of all files below a folder.

    Names that start with `.` and links to folders are left out of globs and folders. Files are read when it is
    entered, and again before a run when any of them has changed; if that fails, the text read before stays in use.
    """

    def __init__(self, config: FileKnowledgeConfig, services: Services) -> None:
        self._config = config
        self._folder = services.folder
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._complaint = ""

    @property
    def title(self) -> str:
        """Short name shown to the model above the text."""
        return self._config.path

    async def __aenter__(self) -> Self:
        self._loaded = await run_in_thread(self._load)
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def text(self, query: str) -> str:
        """Return all the text, whatever the query; several files each below a line with their path.

        Raises:
            StartupError: It was not entered, and the files cannot be read.
        """
        return await run_in_thread(self._current)

    def _current(self) -> str:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
                return self._loaded.text
            try:
                if _version(self._files()) != self._loaded.version:
                    self._loaded = self._load()
                self._complaint = ""
            except StartupError as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    logger.warning("%s; the text read before stays in use", error)
            return self._loaded.text

    def _load(self) -> _Loaded:
        files = self._files()
        version = _version(files)
        total = 0
        blocks: list[str] = []
        for path in files:
            shown = os.path.relpath(path, self._folder)
            raw = _read(path, shown, self._config.max_bytes - total)
            total += len(raw)
            if total > self._config.max_bytes:
                raise StartupError(
                    f"knowledge {self._config.path!r}: with {shown} it is larger than {self._config.max_bytes} bytes; "
                    "raise `max_bytes`, or search it with {type: folder, mode: search}",
                    usage=True,
                )
            try:
                text = raw.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise StartupError(
                    f"knowledge {self._config.path!r}: {shown} is not UTF-8 text (byte {error.start}); "
                    "convert it, or write a glob that leaves it out",
                    usage=True,
                ) from None
            blocks.append(text if shown == os.path.normpath(self._config.path) else f"## {shown}\n\n{text}")
        return _Loaded("\n\n".join(block.rstrip("\n") for block in blocks), version)

    def _files(self) -> list[Path]:
        """Return the files that the path stands for right now, sorted.

        Raises:
            StartupError: There is none.
        """
        path = self._folder / self._config.path
        try:
            mode = path.stat().st_mode
        except OSError as error:
            if not _MAGIC.intersection(self._config.path):
                raise StartupError(f"knowledge {self._config.path!r}: {path}: {error.strerror}", usage=True) from None
            found, what = sorted(_matches(self._folder, self._config.path)), "no file matches it"
        else:
            if not stat.S_ISDIR(mode):
                return [path]
            found, what = sorted(_below(path)), "the folder holds no file"
        if not found:
            raise StartupError(f"knowledge {self._config.path!r}: {what} below {self._folder}", usage=True)
        return found


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(place, name)


def _matches(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files a glob matches; `**` stands for any number of folders, and a `.` must be written out."""
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if _MAGIC.intersection(part))
    root, wanted = folder.joinpath(*parts[:fixed]), parts[fixed:]
    hidden = any(part.startswith(".") for part in wanted)
    for place, folders, names in os.walk(root):
        inner = Path(place).relative_to(root).parts
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        if "**" not in wanted and len(inner) >= len(wanted) - 1:
            folders.clear()
        yield from (Path(place, name) for name in names if _fits((*inner, name), wanted))


def _fits(names: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not names
    if wanted[0] == "**":
        if _fits(names, wanted[1:]):
            return True
        return bool(names) and not names[0].startswith(".") and _fits(names[1:], wanted)
    if not names or (names[0].startswith(".") and not wanted[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], wanted[0]) and _fits(names[1:], wanted[1:])


def _version(files: Sequence[Path]) -> Version:
    """Return path, size and time of every file; one that is gone or a link to nowhere counts as empty."""
    version: list[tuple[str, int, int]] = []
    for path in files:
        try:
            facts = path.stat()
        except OSError:
            version.append((str(path), -1, -1))
        else:
            version.append((str(path), facts.st_size, facts.st_mtime_ns))
    return tuple(version)


def _read(path: Path, shown: str, most: int) -> bytes:
    """Return a file, or `most` bytes and one more of it; a pipe or device is never waited for."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise StartupError(f"knowledge: {shown} is not a regular file", usage=True)
            return stream.read(most + 1)
    except OSError as error:
        raise StartupError(f"knowledge: {shown} cannot be read: {error.strerror}", usage=True) from None
