"""Answers into files, inside one folder and whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from llmling.errors import SinkError
from llmling.manifest.sinks import FileSinkConfig
from llmling.protocols import Answer
from llmling.runtime.output import dump
from llmling.runtime.services import Services
from llmling.runtime.threads import run_in_thread
from llmling.templates import TemplateFailed, template

_FIRST_TAG = re.compile(r"\{[{%#]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# The path itself is wrong for these; sending the answer again cannot help.
_HOPELESS = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EILSEQ})


class FileSink:
    """Writes each answer and a newline into the file its template names; JSON when the answer is structured.

    The file lies inside the folder written before the first `{{`, whatever the values say: neither `..` nor links
    lead out of it. `write` puts a whole new file in the place of the old one, `append` adds the answer in one piece;
    both are on disk when `send` returns.
    """

    def __init__(self, config: FileSinkConfig, services: Services) -> None:
        self._template = config.path
        self._append = config.mode == "append"
        tag = _FIRST_TAG.search(config.path)
        literal = config.path[: tag.start()] if tag else config.path
        self._fixed = literal[: literal.rfind("/") + 1]
        self._folder = services.folder / self._fixed
        self._render = template(config.path)

    @property
    def name(self) -> str:
        """Short name for messages."""
        return f"file {self._template}"

    async def send(self, answer: Answer) -> None:
        """Write one answer; cancelling it does not tear the file.

        Raises:
            SinkError: The path would leave its folder, or the file could not be written.
        """
        segments = self._segments(answer)
        text = answer.text if isinstance(answer.content, str) else dump(answer.content)
        data = f"{text}\n".encode(errors="replace")
        # Named after the delivery, so that a try after a crash writes over what the crash left behind.
        mark = hashlib.sha256("\0".join((answer.delivery_id, *segments)).encode(errors="replace")).hexdigest()[:16]
        try:
            await run_in_thread(_store, self._folder, segments, data, None if self._append else f".{mark}.tmp")
        except (OSError, UnicodeEncodeError) as error:
            path = self._folder.joinpath(*segments)
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            retryable = isinstance(error, OSError) and error.errno not in _HOPELESS
            raise SinkError(
                f"file sink {self._template!r}: cannot write {path}: {reason}", retryable=retryable
            ) from error

    def _segments(self, answer: Answer) -> tuple[str, ...]:
        """Return the names below the fixed folder that the template gives for an answer."""
        values = {"event": answer.event, "agent": answer.agent, "delivery_id": answer.delivery_id}
        try:
            path = self._render(values)
        except TemplateFailed as error:
            raise SinkError(f"file sink {self._template!r}: {error}", retryable=False) from error
        segments = tuple(path.removeprefix(self._fixed).split("/"))
        if not path.startswith(self._fixed) or any(
            part in {"", ".", ".."} or _CONTROL.search(part) for part in segments
        ):
            raise SinkError(
                f"file sink {self._template!r}: {path!r} is no file inside {self._folder}; "
                "names may not be empty, `.`, `..`, or hold control characters",
                retryable=False,
            )
        return segments


def _store(folder: Path, segments: Sequence[str], data: bytes, temporary: str | None) -> None:
    """Write a file below a folder, never through a link; `temporary` None: add to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, _FOLDER)
    try:
        for name in segments[:-1]:
            inner = _enter(place, name)
            os.close(place)
            place = inner
        if temporary is None:
            _append(place, segments[-1], data)
        else:
            _replace(place, segments[-1], data, temporary)
        os.fsync(place)
    finally:
        os.close(place)


def _enter(place: int, name: str) -> int:
    try:
        os.mkdir(name, dir_fd=place)
    except FileExistsError:
        # A folder, or a link that the next line refuses.
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=place)


def _replace(place: int, name: str, data: bytes, temporary: str) -> None:
    file = os.open(temporary, _FILE | os.O_TRUNC, 0o666, dir_fd=place)
    try:
        try:
            _write(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, name, src_dir_fd=place, dst_dir_fd=place)
    except BaseException:
        os.unlink(temporary, dir_fd=place)
        raise


def _append(place: int, name: str, data: bytes) -> None:
    # Without O_NONBLOCK, opening a pipe that nobody reads would hang the thread.
    file = os.open(name, _FILE | os.O_APPEND | os.O_NONBLOCK, 0o666, dir_fd=place)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EISDIR, "not a regular file")
        # The lock keeps answers of other processes whole when a full disk makes us take back a part of ours.
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file).st_size
        try:
            _write(file, data)
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
