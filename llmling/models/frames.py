"""JSON values out of Amazon's event streams, as their bytes arrive: frames with headers, each checked by two sums."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Generator
from typing import Any

from llmling.models.dialects.base import StreamFailed

_LONGEST = 16 * 2**20
_AROUND = 16
"""Bytes of a frame beside its headers and its payload: two lengths and a sum in front, a sum behind."""
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Types of headers that have one size; of types 6 and 7, bytes and text, the size stands in front."""
_FAILURES = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "modelTimeoutException": 408,
    "serviceUnavailableException": 503,
    "throttlingException": 429,
    "validationException": 400,
}


class Frames:
    """Reads frames; nothing in them says that they are the last one."""

    __slots__ = ("_rest", "ended")

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False

    def feed(self, part: bytes) -> Generator[Any]:
        """Yield the values that are complete with this part.

        Raises:
            ValueError: What came are no frames.
            StreamFailed: The provider says that it has failed.
        """
        data, at = self._rest + part, 0
        while len(data) - at >= _AROUND:
            size, heads = struct.unpack_from("!II", data, at)
            if not _AROUND + heads <= size <= _LONGEST:
                raise ValueError(f"the stream holds what is no frame: {data[at : at + 200]!r}")
            if len(data) - at < size:
                break
            frame, at = data[at : at + size], at + size
            yield from _values(frame, heads)
        self._rest = data[at:]

    def close(self) -> Generator[Any]:
        """Yield nothing more.

        Raises:
            ValueError: There is half a frame left.
        """
        if self._rest:
            raise ValueError(f"the stream ends within a frame: {self._rest[:200]!r}")
        yield from ()


def _values(frame: bytes, heads: int) -> Generator[Any]:
    (sum_of_prelude,) = struct.unpack_from("!I", frame, 8)
    (sum_of_frame,) = struct.unpack_from("!I", frame, len(frame) - 4)
    if sum_of_prelude != zlib.crc32(frame[:8]) or sum_of_frame != zlib.crc32(frame[:-4]):
        raise ValueError("a frame of the stream is not what was sent")
    headers, payload = _headers(frame[12 : 12 + heads]), frame[12 + heads : -4]
    kind = headers.get(":message-type")
    if kind == "error":
        raise StreamFailed(f"{headers.get(':error-code')} {headers.get(':error-message')}", 400)
    name = headers.get(":exception-type") if kind == "exception" else headers.get(":event-type")
    if kind == "exception" or name in _FAILURES:
        raise StreamFailed(f"{name} {payload.decode(errors='replace')}", _FAILURES.get(name or "", 400))
    if payload:
        yield json.loads(payload)


def _headers(data: bytes) -> dict[str, str]:
    """Return the headers that are text."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        name, kind, at = data[at + 1 : end], data[end], end + 1
        if kind in _SIZES:
            at += _SIZES[kind]
            continue
        (size,) = struct.unpack_from("!H", data, at)
        at += 2 + size
        if kind == 7:
            found[name.decode()] = data[at - size : at].decode(errors="replace")
    return found
