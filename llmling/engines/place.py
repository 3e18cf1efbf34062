"""The files of a journal, as they were opened."""

from __future__ import annotations

from pathlib import Path

from llmling.errors import EngineError


class Place:
    """Sees when a file of the journal has been deleted or replaced: what is committed then is lost with it.

    SQLite goes on writing to a deleted file without a word.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: dict[Path, tuple[int, int]] = {}

    def remember(self) -> None:
        """Take the files for the right ones; they have just been opened."""
        for file in (self.path, self.path.with_name(self.path.name + "-wal")):
            if file.exists():
                self._opened[file] = _identity(file)

    def check(self) -> None:
        """Hold the files against what was opened.

        Raises:
            EngineError: One of them is gone or another one.
        """
        for file, opened in self._opened.items():
            try:
                found = _identity(file)
            except OSError as error:
                raise EngineError(f"{file} cannot be found any more ({error.strerror}); {self._advice}") from error
            if found != opened:
                raise EngineError(f"{file} is another file than the one that was opened; {self._advice}")

    @property
    def _advice(self) -> str:
        return f"put {self.path.name} and its -wal and -shm files back, or restart to go on with what is there"


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino
