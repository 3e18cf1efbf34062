"""Bodies: types, sizes and values, through a real listener."""

from __future__ import annotations

import asyncio
import io
import json
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from llmling.server.body import MAX_DEPTH, body_at_hand, check_media_type, parse, read_body
from llmling.server.connection import Bounds
from llmling.server.listener import Listeners
from llmling.server.reply import Refused, json_reply

HOST = "127.0.0.1"
LIMIT = 1000


@asynccontextmanager
async def server(timeout_s: float = 5.0) -> AsyncGenerator[int]:
    async def handler(request: web.BaseRequest) -> web.Response:
        check_media_type(request.headers)
        body = body_at_hand(request.headers, request.content, max_bytes=LIMIT)
        if body is None:
            body = await read_body(request, max_bytes=LIMIT, timeout_s=timeout_s)
        return json_reply(200, {"length": len(body), "value": parse(body, request.content_type, request.charset)})

    bounds = Bounds(linger_s=2)
    async with Listeners(bounds) as listeners, listeners.route(HOST, 0, "POST", "/", handler, owner="x") as port:
        yield port


async def post(port: int, data: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | (headers or {})
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{HOST}:{port}/", data=data, headers=headers) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("content_type", "status", "says"),
    [
        ("application/json", 200, ""),
        ("Application/JSON; charset=UTF-8", 200, ""),
        ("application/cloudevents+json", 200, ""),
        ("text/plain", 200, ""),
        ("text/csv; charset=iso-8859-1", 200, ""),
        ("application/x-www-form-urlencoded", 415, "form bodies are not taken; send Content-Type: application/json"),
        ("multipart/form-data; boundary=x", 415, "form bodies are not taken; send Content-Type: application/json"),
        ("application/octet-stream", 415, "send Content-Type: application/json"),
        ("application/jsonp", 415, "send Content-Type: application/json"),
        ("nonsense", 415, "send Content-Type: application/json"),
        ("text/plain; charset=utf-7", 415, "UTF-8"),
        ("text/plain; charset=zip", 415, "UTF-8"),
    ],
)
async def test_media_types(content_type: str, status: int, says: str) -> None:
    async with server() as port:
        answer = await post(port, b"1", {"Content-Type": content_type})
        assert answer[0] == status
        assert says in answer[1].get("error", "")


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("br", 415), ("identity", 200), ("", 200)])
async def test_any_compression_is_refused_unread(coding: str, status: int) -> None:
    async with server() as port, aiohttp.ClientSession(skip_auto_headers=["Accept-Encoding"]) as session:
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        async with session.post(f"http://{HOST}:{port}/", data=b"1", headers=headers) as response:
            assert response.status == status


async def chunks(total: int) -> AsyncIterator[bytes]:
    for start in range(0, total, 100_000):
        yield b"1" * min(100_000, total - start)


async def test_sizes_at_the_limit_above_and_far_above_also_chunked() -> None:
    async with server() as port:
        text = {"Content-Type": "text/plain"}
        assert (await post(port, b"1" * LIMIT, text))[0] == 200
        status, body = await post(port, b"1" * (LIMIT + 1), text)
        assert status == 413
        assert f"{LIMIT} bytes" in body["error"]
        large = io.BytesIO(b"1" * 50_000_000)
        tracemalloc.start()
        try:
            assert (await post(port, large, text))[0] == 413
            assert (await post(port, chunks(LIMIT), text))[0] == 200
            assert (await post(port, chunks(4_000_000), text))[0] == 413
            assert tracemalloc.get_traced_memory()[1] < 10_000_000, "what is too large is never held"
        finally:
            tracemalloc.stop()


async def exchange(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.close()
    return answer


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def test_a_length_above_the_limit_is_refused_before_any_byte() -> None:
    async with server() as port:
        assert b" 413 " in await exchange(port, HEAD + b"Content-Length: 1001\r\n\r\n")
        assert b" 413 " in await exchange(port, HEAD + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")


async def test_expect_is_answered_once_the_size_is_fine() -> None:
    async with server() as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"42")
        assert b'"value": 42' in await asyncio.wait_for(reader.readuntil(b"}"), 30)
        writer.close()
        assert b" 417 " in await exchange(port, HEAD + b"Content-Length: 2\r\nExpect: gold\r\n\r\n")


async def test_a_slow_body_is_cut_with_408_in_all_not_per_byte() -> None:
    async with server(timeout_s=0.3) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(HEAD + b"Content-Length: 500\r\n\r\n")
        # The head is enough: what is still written to a closed connection resets it.
        reading = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        async with asyncio.timeout(30):
            while not reading.done():
                writer.write(b"1")
                await asyncio.wait({reading}, timeout=0.02)
        answer = await reading
        assert b" 408 " in answer
        assert b"connection: close" in answer.lower()
        writer.close()


@pytest.mark.parametrize("ending", [b"5\r\nab", b"zz\r\nab\r\n", b"2\r\nabXX"])
async def test_wrong_chunks_are_a_400(ending: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with server(timeout_s=0.2) as port:
        answer = await exchange(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + ending)
    assert b" 400 " in answer or b" 408 " in answer
    assert not [record for record in caplog.records if record.exc_info]


def refused(body: bytes, content_type: str = "application/json", charset: str | None = None) -> str:
    with pytest.raises(Refused) as caught:
        parse(body, content_type, charset)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "line 1, column 2"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "too large"),
        (b"9" * 5000, "invalid JSON"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
        (b"\xff", "not valid UTF-8"),
        ('"ü"'.encode("latin-1"), "byte 1"),
        ('{"a":1}'.encode("utf-16"), "not valid UTF-8"),
        (b"[" * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 100"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper than 100"),
        (b"{'a': 1}", "line 1"),
        (b"1 2", "Extra data"),
    ],
)
def test_what_is_not_json_is_a_400_that_says_where(body: bytes, says: str) -> None:
    assert says in refused(body)


def test_what_is_json_passes() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "application/json", None)
    assert parse(b"[" + b"[]," * 500 + b"{}]", "application/json", None)
    assert parse(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}', "application/json", None) == {"a": "\U0001f600"}
    assert parse("grüße".encode(), "text/plain", None) == "grüße"
    assert parse("grüße".encode("latin-1"), "text/plain", "ISO-8859-1") == "grüße"
    assert "ASCII" in refused("ü".encode(), "text/plain", "us-ascii")


SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(VALUES)
def test_every_json_value_survives(value: Any) -> None:
    assert parse(json.dumps(value).encode(), "application/json", "utf-8") == value


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789.eE+-truefalsn\\ud8 ', max_size=60).map(str.encode))
def test_no_bytes_are_more_than_refused(body: bytes) -> None:
    try:
        value = parse(body, "application/json", None)
    except Refused:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
