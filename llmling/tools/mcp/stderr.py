"""Standard error of a child process: into the log, line by line, never onto the console."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_LINE_BYTES = 8_000
_BURST = 200.0
_LINES_PER_S = 20.0
_TAIL = 5
_EOF_S = 0.3


class StderrLog(asyncio.Protocol):
    """Logs each line at DEBUG, at most 20 per second after a burst of 200, and remembers the last ones."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._rest = b""
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._tokens = _BURST
        self._filled = time.monotonic()
        self._dropped = 0
        self.ended = asyncio.Event()

    @property
    def last_words(self) -> str:
        """The last line that says something, cut to 300 characters; empty when there was none."""
        return next((line[:300] for line in reversed(self._tail) if line.strip()), "")

    def data_received(self, data: bytes) -> None:
        """Take what the child wrote."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > _LINE_BYTES:
            self._take(self._rest)
            self._rest = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Log the last line, also when it has no end."""
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        self.ended.set()

    def _take(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode("utf-8", "replace").rstrip()
        if not text:
            return
        self._tail.append(text)
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._filled) * _LINES_PER_S)
        self._filled = now
        if self._tokens < 1:
            self._dropped += 1
            return
        self._tokens -= 1
        if self._dropped:
            self._log.debug("... %d lines left out", self._dropped)
            self._dropped = 0
        self._log.debug("%s", text)


@asynccontextmanager
async def stderr_log(log: logging.Logger) -> AsyncGenerator[tuple[int, StderrLog], None]:
    """Give the file descriptor for a child's standard error and the log behind it; leaving closes both.

    Leaving waits a moment for what the child wrote last, not for grandchildren that keep the pipe open.
    """
    read_end, write_end = os.pipe()
    pipe = os.fdopen(read_end, "rb", 0)
    try:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_read_pipe(lambda: StderrLog(log), pipe)
    except BaseException:
        pipe.close()
        os.close(write_end)
        raise
    try:
        yield write_end, protocol
    finally:
        os.close(write_end)
        try:
            async with asyncio.timeout(_EOF_S):
                await protocol.ended.wait()
        except TimeoutError:
            transport.close()
