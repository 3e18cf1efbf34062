"""The files of a manifest on disk, and whether they say something else than when they were read."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from llmling.manifest.root import Manifest

Facts: TypeAlias = dict[Path, object]
Patterns: TypeAlias = tuple[tuple[Path, str], ...]


class ManifestFiles:
    """Reads a manifest anew when one of its files, or what its `include` matches, is another one.

    Everything blocks on the file system. What the files say decides; their dates only tell when to look.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._files, self._patterns = manifest.sources
        self._facts = self._now()
        self._contents = _contents(self._facts)

    def read(self) -> Manifest:
        """Read the manifest anew; what `changed` compares with is what was read, also of one that cannot be used.

        Raises:
            ManifestError: It cannot be used.
        """
        # Looked at before reading: what is written meanwhile is a change.
        facts = self._now()
        contents = _contents(facts)
        found, make = self._manifest.reread()
        self._files, self._patterns = found.files, found.patterns
        now = self._now()
        self._facts = {file: facts.get(file, each) for file, each in now.items()}
        self._contents = {file: contents.get(file, each) for file, each in _contents(now).items()}
        self._manifest = make()
        return self._manifest

    def touched(self) -> Facts | None:
        """Return what the files look like if any looks other than when it was read, else None."""
        facts = self._now()
        return None if facts == self._facts else facts

    def changed(self, facts: Facts) -> bool:
        """Return whether files that look like this say something else than what was read."""
        if _contents(facts) != self._contents:
            return True
        self._facts = facts
        return False

    def _now(self) -> Facts:
        matched = {
            Path(os.path.abspath(folder / name))  # noqa: PTH100 - as the loader names them
            for folder, pattern in self._patterns
            for name in glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207
        }
        return {file: _facts(file) for file in (*self._files, *sorted(matched - set(self._files)))}


def _facts(file: Path) -> object:
    try:
        facts = file.stat()
    except OSError as error:
        return error.errno
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _contents(files: Iterable[Path]) -> Facts:
    contents: Facts = {}
    for file in files:
        try:
            contents[file] = hashlib.sha256(file.read_bytes()).digest() if file.is_file() else None
        except OSError as error:
            contents[file] = error.errno
    return contents
