"""A model provider on loopback that costs as little as can be: OpenAI's chat completions, prepared beforehand.

    python benchmarks/model_server.py        # prints its port

It runs in a process of its own on a core of its own, so that a client's figures are the client's. `POST /script` sets
what it does: `latency_s`, `tool_rounds` and `tool_calls` of requests that bring tools, `chunks` of a stream. `GET
/counts` tells how many requests it has answered.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any, ClassVar, cast

TEXT = "The crate left the northern depot at dawn and is at the harbour before the evening tide turns."
USAGE = {"prompt_tokens": 57, "completion_tokens": 21, "total_tokens": 78}
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_SCRIPT: dict[str, Any] = {"latency_s": 0.0, "tool_rounds": 0, "tool_calls": 1, "chunks": 20}


def _response(body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body)


def _completion(message: dict[str, Any], finish: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
    return _response(json.dumps({**head, "choices": [choice], "usage": USAGE}).encode())


def _chunk(delta: dict[str, Any], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    return b"data: %s\n\n" % json.dumps({**head, "choices": choices, "usage": usage}).encode()


def _stream(chunks: int) -> bytes:
    words = [_chunk({"content": f"tok{number} "}) for number in range(chunks)]
    parts = [_chunk({"role": "assistant", "content": ""}), *words, _chunk({}, "stop"), _chunk({}, None, USAGE)]
    body = b"".join([*parts, b"data: [DONE]\n\n"])
    return _response(body, b"text/event-stream")


_ANSWER = _completion({"content": TEXT}, "stop")


class Provider(asyncio.Protocol):
    """One connection."""

    script: ClassVar[dict[str, Any]] = dict(_SCRIPT)
    stream = _stream(20)
    requests = 0

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=1 << 24)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            found = _LENGTH.search(head)
            stop = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < stop:
                return
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST /script"):
            Provider.script = {**_SCRIPT, **json.loads(body)}
            Provider.stream = _stream(Provider.script["chunks"])
            answer = _response(b"{}")
        elif head.startswith(b"GET /counts"):
            answer = _response(json.dumps({"requests": Provider.requests}).encode())
        else:
            Provider.requests += 1
            answer = self._answer(body)
            if Provider.script["latency_s"]:
                asyncio.get_running_loop().call_later(Provider.script["latency_s"], self._transport.write, answer)
                return
        self._transport.write(answer)

    def _answer(self, body: bytes) -> bytes:
        script = Provider.script
        if script["tool_rounds"] and b'"tools"' in body:
            request = json.loads(body)
            rounds = sum(bool(message.get("tool_calls")) for message in request["messages"])
            if rounds < script["tool_rounds"]:
                name = request["tools"][0]["function"]["name"]
                calls = [
                    {
                        "id": f"call_{rounds}_{i}",
                        "type": "function",
                        "function": {"name": name, "arguments": f'{{"i": {i}}}'},
                    }
                    for i in range(script["tool_calls"])
                ]
                return _completion({"content": None, "tool_calls": calls}, "tool_calls")
        return Provider.stream if b'"stream": true' in body or b'"stream":true' in body else _ANSWER


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    # It ends with whoever started it: a pipe that closes is heard on every system.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
