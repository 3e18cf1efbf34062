"""JSON values out of a streamed answer, as its bytes arrive: server-sent events, or one value a line."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

_LONGEST = 16 * 2**20
_decode = json.JSONDecoder().raw_decode
"""As `json.loads`, which looks first in which encoding the bytes are and for spaces: here they are UTF-8, stripped."""


class Events:
    """Reads server-sent events; only their data counts. `ended` once the server has said that it is done."""

    __slots__ = ("_data", "_rest", "ended")

    def __init__(self) -> None:
        self._rest = b""
        self._data = b""
        self.ended = False

    def feed(self, part: bytes) -> Generator[Any]:
        """Yield the values that are complete with this part.

        Raises:
            ValueError: What came is no JSON, or a line has no end.
        """
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > _LONGEST:
            raise ValueError(f"a line of the stream is longer than {_LONGEST} bytes")
        for line in lines:
            if line or self._data:
                yield from self._line(line)

    def close(self) -> Generator[Any]:
        """Yield what the last line holds when it has no end.

        Raises:
            ValueError: It holds half a value.
        """
        rest, self._rest = self._rest, b""
        yield from self._line(rest)
        yield from self._line(b"")

    def _line(self, line: bytes) -> Generator[Any]:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                self.ended = True
            elif self._data:
                self._data += b"\n" + data
            elif data:
                value, end, said = None, -1, ""
                try:
                    said = data.decode()
                    value, end = _decode(said)
                except ValueError:
                    pass
                if end == len(said):
                    yield value
                else:
                    self._data = data  # a value over several lines, which ends with an empty one
        elif self._data and not line.strip():
            data, self._data = self._data, b""
            yield _value(data)


class Lines:
    """Reads one JSON value a line."""

    __slots__ = ("_rest", "ended")

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False

    def feed(self, part: bytes) -> Generator[Any]:
        """Yield the values that are complete with this part.

        Raises:
            ValueError: What came is no JSON, or a line has no end.
        """
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > _LONGEST:
            raise ValueError(f"a line of the stream is longer than {_LONGEST} bytes")
        for line in lines:
            if line.strip():
                yield _value(line)

    def close(self) -> Generator[Any]:
        """Yield what the last line holds when it has no end.

        Raises:
            ValueError: It holds half a value.
        """
        rest, self._rest = self._rest, b""
        if rest.strip():
            yield _value(rest)


def _value(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise ValueError(f"the stream holds what is no JSON: {data[:200].decode(errors='replace')!r}") from None
