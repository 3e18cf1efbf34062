"""One request over a pooled connection of aiohttp, without the session around it, which costs twice what both do.

aiohttp opens the connections, keeps them and reads what comes; the head of the request, the same each time, is written
beforehand. This leans on what aiohttp does not promise, so other releases than those known go through the session.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import yarl
from aiohttp.connector import Connection
from multidict import CIMultiDict

_AIOHTTP = re.compile(r"3\.14\.\d+$")
_FINAL, _SWITCHING = 200, 101
"""Statuses of answers after which no other comes."""
_MOVED = frozenset({301, 302, 303, 307, 308})
_ENDS = frozenset("\r\n\0")
NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=None)
"""The deadline of the call bounds everything."""


class Reply(Protocol):
    """An answer as far as its headers; its connection is in use until it is released or closed."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    # A property would not do: it is one of another kind in aiohttp.
    headers: Any
    """The headers, whatever the case of their names."""

    @property
    def content(self) -> aiohttp.StreamReader:
        """The body."""
        ...

    def release(self) -> object:
        """Give the connection back; it is closed when the body was not read to its end."""
        ...

    def close(self) -> object:
        """Hang up."""
        ...


class Line:
    """How to reach one address in one loop, and what every request to it begins with."""

    __slots__ = ("_head", "_headers", "_request", "_ssl", "_url")

    def __init__(self, url: yarl.URL, headers: Mapping[str, str], ssl: Any) -> None:
        self._url, self._headers, self._ssl = url, headers, ssl
        # It knows how connections are told apart and made, and what else stands in the head; it is never sent itself.
        self._request = aiohttp.ClientRequest(
            "POST", url, headers=headers, data=b"-", ssl=ssl, loop=asyncio.get_running_loop()
        )
        fields = CIMultiDict(self._request.headers)
        fields.popall("Content-Length", None)
        lines = [f"POST {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if not all(_ENDS.isdisjoint(line) for line in lines):
            raise ValueError("a header holds a line break")
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode()

    async def post(self, session: aiohttp.ClientSession, body: bytes) -> Reply:
        """Send a request over the connections of a session and return its answer; a redirect is left to the session.

        Raises:
            aiohttp.ClientError: There was none.
        """
        connector: Any = session.connector
        connection: Connection = await connector.connect(self._request, [], NO_LIMIT)
        try:
            # Both are there as long as nobody has closed the connection.
            protocol: Any = connection.protocol
            protocol.set_response_params(read_until_eof=True)
            protocol.transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            while True:
                message, content = await protocol.read()
                if message.code >= _FINAL or message.code == _SWITCHING:
                    break
            if message.code not in _MOVED:
                return _Reply(message.code, message.headers, content, connection)
        except BaseException:
            connection.close()
            raise
        connection.close()
        return await session.post(self._url, data=body, headers=self._headers, ssl=self._ssl, timeout=NO_LIMIT)


def known() -> bool:
    """Whether this is a release of aiohttp that is known to work so."""
    return _AIOHTTP.match(aiohttp.__version__) is not None


@dataclass(slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader
    _connection: Connection

    def release(self) -> None:
        self._connection.release()

    def close(self) -> None:
        self._connection.close()
