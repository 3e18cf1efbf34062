"""Sends POSTs over many connections as cheaply as can be: python posts.py PORT PATH COUNT.

Without asyncio, which would take longer for a POST than the bare handler does, and hide what that one can.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

CONNECTIONS = 128
BODY = b'{"order": 4711, "text": "Two crates were re-weighed and the manifest was signed."}'


def answered(buffer: bytes) -> bool:
    """Whether a whole answer is there."""
    head, separator, body = buffer.partition(b"\r\n\r\n")
    return bool(separator) and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])


def main(port: int, path: str, count: int) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    poll = selectors.DefaultSelector()
    buffers: dict[socket.socket, bytes] = {}
    left, missing, refused = count, count, 0
    began = time.perf_counter()
    for _ in range(min(CONNECTIONS, count)):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(connection, selectors.EVENT_READ)
        buffers[connection] = b""
        connection.sendall(request)
        left -= 1
    while missing:
        for key, _ in poll.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(65536)
            if not data:
                raise SystemExit("the server has closed a connection")
            buffers[connection] += data
            if not answered(buffers[connection]):
                continue
            refused += not buffers[connection].startswith(b"HTTP/1.1 202 ")
            buffers[connection] = b""
            missing -= 1
            if left:
                left -= 1
                connection.sendall(request)
    print(time.perf_counter() - began, refused)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
