"""What a server may do on the way to an answer, which no provider's format speaks of."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from llmling import Agent
from llmling.errors import ModelError

ANSWER = json.dumps({
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "here"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}).encode()  # fmt: skip


def whole(body: bytes = ANSWER, *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*head, b"", body])


class Server:
    """Answers each request with the next bytes; remembers what came, and over how many connections."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self.heads: list[str] = []
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(self._answers.pop(0).replace(b"{url}", self.url.encode()))
        except asyncio.IncompleteReadError:
            pass  # it was hung up on
        finally:
            writer.close()


@asynccontextmanager
async def server(*answers: bytes) -> AsyncGenerator[Server]:
    told = Server(answers)
    async with await asyncio.start_server(told.serve, "127.0.0.1") as listening:
        told.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        yield told


def agent(at: Server, key: str = "k") -> Agent:
    return Agent("a", model={"type": "litellm", "name": "openai/gpt-4o-mini", "api_base": at.url, "api_key": key})


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole(),
        whole(gzip.compress(ANSWER), b"Content-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nT: x\r\n\r\n"
        % (len(ANSWER), ANSWER),
    ],
    ids=["an interim answer comes first", "compressed", "in chunks with an extension and a trailer"],
)
async def test_an_answer_is_read_however_it_is_sent(answer: bytes) -> None:
    async with server(answer, whole()) as told:
        one = agent(told)
        assert [(await one.run("where?")).response for _ in range(2)] == ["here", "here"]
        assert told.connections == 1
        # What the same client sends is the same, but for what is different in it.
        assert told.heads[0] == told.heads[1]
        assert told.heads[0].startswith("POST /v1/chat/completions HTTP/1.1\r\n")
        assert "authorization: bearer k" in told.heads[0].lower()


async def test_a_server_that_hangs_up_after_its_answer_is_called_again() -> None:
    async with server(whole(ANSWER, b"Connection: close"), whole()) as told:
        one = agent(told)
        assert [(await one.run("where?")).response for _ in range(2)] == ["here", "here"]
        assert told.connections == 2


async def test_a_redirect_is_followed() -> None:
    moved = b"HTTP/1.1 307 Moved\r\nLocation: {url}/elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with server(moved, moved, whole()) as told:
        # The session asks again, and is sent on itself.
        assert (await agent(told).run("where?")).response == "here"
        assert [head.split()[1] for head in told.heads] == ["/v1/chat/completions"] * 2 + ["/v1/elsewhere"]


async def test_an_answer_that_is_no_http_is_a_failure_of_the_model() -> None:
    async with server(b"SMTP ready\r\n\r\n") as told:
        with pytest.raises(ModelError, match="no complete answer") as caught:
            await Agent(
                "a",
                model={"type": "litellm", "name": "openai/gpt-4o-mini", "api_base": told.url, "api_key": "k"},
                retries={"attempts": 1},
            ).run("where?")
        assert caught.value.retryable


async def test_no_header_is_smuggled_into_a_request_by_a_key() -> None:
    async with server(whole()) as told:
        with pytest.raises(ModelError):
            await agent(told, "k\r\nX-Other: 1").run("where?")
        assert told.heads == []
