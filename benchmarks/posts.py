"""Sends POSTs over many connections as cheaply as can be: python posts.py PORT PATH COUNT."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

CONNECTIONS = 64
BODY = b'{"order": 4711, "text": "Two crates were re-weighed and the manifest was signed."}'


class Sender(asyncio.Protocol):
    """One connection: the next POST follows the answer to the one before."""

    left = answered = refused = 0
    done: asyncio.Event

    def __init__(self, path: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._next()

    def _next(self) -> None:
        if Sender.left > 0:
            Sender.left -= 1
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        self._buffer = b""
        Sender.answered += 1
        Sender.refused += b" 202 " not in head
        if Sender.left == 0 and Sender.answered == Sender.wanted:
            Sender.done.set()
        self._next()

    wanted = 0


async def main(port: int, path: str, count: int) -> None:
    Sender.left = Sender.wanted = count
    Sender.done = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    connections = min(CONNECTIONS, count)
    made = [await loop.create_connection(lambda: Sender(path), "127.0.0.1", port) for _ in range(connections)]
    await Sender.done.wait()
    seconds = time.perf_counter() - began
    for transport, _ in made:
        transport.close()
    print(seconds, Sender.refused)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
