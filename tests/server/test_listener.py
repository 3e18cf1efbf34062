"""Listeners over real sockets: sharing, clashes, hostile peers, leaving."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llmling.errors import StartupError
from llmling.server.connection import Bounds
from llmling.server.listener import Listeners, url_host
from llmling.server.reply import Refused, json_reply

HOST = "127.0.0.1"


async def echo(request: web.BaseRequest) -> web.Response:
    return json_reply(200, {"path": request.path, "body": (await request.read()).decode()})


async def raw(port: int, data: bytes, *, timeout_s: float = 5) -> bytes:
    """Send bytes and return everything until the server closes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), timeout_s)
    finally:
        writer.close()


async def call(method: str, port: int, path: str, **kwargs: Any) -> tuple[int, Any, dict[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{HOST}:{port}{path}", **kwargs) as response,
    ):
        return response.status, await response.json() if method != "HEAD" else None, dict(response.headers)


async def test_one_port_serves_many_routes_that_come_and_go() -> None:
    async with Listeners() as listeners, AsyncExitStack() as stack:
        port = await stack.enter_async_context(listeners.route(HOST, 0, "POST", "/a", echo, owner="trigger 'a'"))
        assert port > 0
        async with listeners.route(HOST, port, "POST", "/b", echo, owner="trigger 'b'") as same:
            assert same == port
            assert (await call("POST", port, "/b", data="x"))[1] == {"path": "/b", "body": "x"}
        assert (await call("POST", port, "/b", data="x"))[0] == 404
        assert (await call("POST", port, "/a", data="y"))[1] == {"path": "/a", "body": "y"}


async def test_requests_sent_ahead_are_answered_in_order_also_behind_a_long_body() -> None:
    bodies = [str(number) if number != 30 else "x" * 700_000 for number in range(60)]
    heads = [f"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n" for body in bodies]
    heads[-1] += "Connection: close\r\n"
    sent = "".join(f"{head}\r\n{body}" for head, body in zip(heads, bodies, strict=True))
    async with Listeners() as listeners, listeners.route(HOST, 0, "POST", "/a", echo, owner="x") as port:
        answers = await raw(port, sent.encode(), timeout_s=30)
    assert re.findall(r'"body": "(\w+)"', answers.decode()) == bodies


async def test_404_comes_before_405_which_names_the_methods() -> None:
    async with (
        Listeners() as listeners,
        listeners.route(HOST, 0, "POST", "/a", echo, owner="a") as port,
        listeners.route(HOST, port, "GET", "/pages/*", echo, owner="b"),
    ):
        status, body, headers = await call("GET", port, "/a")
        assert (status, headers["Allow"]) == (405, "POST")
        assert body == {"error": "use POST here, not GET"}
        assert (await call("HEAD", port, "/a"))[0] == 405
        status, _, headers = await call("DELETE", port, "/pages/1")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert (await call("HEAD", port, "/pages/1"))[0] == 200
        assert (await call("GET", port, "/pages/x/y"))[1]["path"] == "/pages/x/y"
        assert (await call("DELETE", port, "/nowhere"))[0] == 404
        assert (await call("POST", port, "/a/"))[0] == 404


async def test_same_path_twice_names_both_owners() -> None:
    async with Listeners() as listeners, listeners.route(HOST, 0, "POST", "/a", echo, owner="trigger 'x'") as port:
        with pytest.raises(StartupError, match=r"trigger 'y' and trigger 'x' both serve POST /a") as caught:
            async with listeners.route(HOST, port, "POST", "/a", echo, owner="trigger 'y'"):
                pytest.fail("entered")
        assert caught.value.usage
        assert (await call("POST", port, "/a", data=""))[0] == 200


async def test_a_port_in_use_says_what_to_do() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        async with Listeners() as listeners:
            with pytest.raises(StartupError) as caught:
                await listeners.bind(HOST, port, owner="trigger 'x'")
            assert str(caught.value) == (
                f"port {port} on {HOST} is in use (trigger 'x'); choose another `port:` or stop the other program"
            )
            assert caught.value.usage
            free = await listeners.bind_free(HOST, port, owner="server", avoid={port + 1})
            assert free > port + 1


async def test_one_port_under_two_names_says_so() -> None:
    async with Listeners() as listeners:
        port = await listeners.bind(HOST, 0, owner="trigger 'a'")
        with pytest.raises(StartupError, match="write the same `host:` in both"):
            await listeners.bind("localhost", port, owner="trigger 'b'")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_foreign_address_is_named(host: str) -> None:
    async with Listeners() as listeners:
        with pytest.raises(StartupError, match="is not an address of this machine") as caught:
            await listeners.bind(host, 0, owner="trigger 'a'")
        assert caught.value.usage


async def test_concurrent_routes_open_one_listener() -> None:
    async with Listeners() as listeners:
        port = await listeners.bind(HOST, 0, owner="first")
        ports = await asyncio.gather(*(listeners.bind(HOST, port, owner=str(n)) for n in range(20)))
        assert set(ports) == {port}


async def test_a_fault_shows_an_id_and_no_text(caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(request: web.BaseRequest) -> web.Response:
        raise ValueError("the password is hunter2")

    async with Listeners() as listeners, listeners.route(HOST, 0, "GET", "/", faulty, owner="x") as port:
        status, body, headers = await call("GET", port, "/")
    assert status == 500
    assert body == {"error": "internal error", "id": body["id"]}
    assert body["id"] in caplog.text
    assert "aiohttp" not in str(headers)


async def test_refusals_carry_their_headers() -> None:
    async def refusing(request: web.BaseRequest) -> web.Response:
        raise Refused(429, "slower", headers={"Retry-After": "7"})

    async with Listeners() as listeners, listeners.route(HOST, 0, "GET", "/", refusing, owner="x") as port:
        status, body, headers = await call("GET", port, "/")
    assert (status, body, headers["Retry-After"]) == (429, {"error": "slower"}, "7")
    assert headers["Server"] == "llmling"


async def test_slow_heads_are_cut_while_others_are_served() -> None:
    bounds = Bounds(head_timeout_s=0.4, keepalive_s=30)
    async with Listeners(bounds) as listeners, listeners.route(HOST, 0, "POST", "/", echo, owner="x") as port:

        async def drip(first: bytes) -> float:
            reader, writer = await asyncio.open_connection(HOST, port)
            started = time.monotonic()
            writer.write(first)
            reading = asyncio.ensure_future(reader.read())
            while not reading.done():
                writer.write(b"X")
                await asyncio.wait({reading}, timeout=0.05)
            writer.close()
            await asyncio.gather(reading, return_exceptions=True)
            return time.monotonic() - started

        slow = [asyncio.create_task(drip(b"POST / HTTP/1.1\r\nX-Long: ")) for _ in range(50)]
        silent = asyncio.create_task(raw(port, b""))
        # A served connection that begins its next head slowly is no better.
        second = asyncio.create_task(drip(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nPO"))
        for _ in range(20):
            async with asyncio.timeout(30):
                assert (await call("POST", port, "/", data="ok"))[0] == 200
        assert max(await asyncio.gather(*slow, second)) < 30
        assert (await silent).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_that_was_served_stays() -> None:
    bounds = Bounds(head_timeout_s=0.1)
    async with Listeners(bounds) as listeners, listeners.route(HOST, 0, "POST", "/", echo, owner="x") as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
        for _ in range(2):
            writer.write(request)
            assert (await reader.readuntil(b"}")).endswith(b'"body": "hi"}')
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.3)
        writer.close()


async def test_one_peer_too_many_is_sent_away() -> None:
    bounds = Bounds(connections=3)
    async with Listeners(bounds) as listeners, listeners.route(HOST, 0, "POST", "/", echo, owner="x") as port:
        idle = [await asyncio.open_connection(HOST, port) for _ in range(3)]
        for _, writer in idle:  # served once, so the server has surely counted it
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        for reader, _ in idle:
            await reader.readuntil(b"}")
        assert (await raw(port, b"")).startswith(b"HTTP/1.1 503 ")
        idle[0][1].close()
        await idle[0][1].wait_closed()
        async with asyncio.timeout(30):
            while (await raw(port, b"GET /x HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 503 "):
                pass
        for _, writer in idle[1:]:
            writer.close()


async def test_draining_removed_routes_answer_503_and_leaving_waits_for_answers() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.Response:
        entered.set()
        await leave.wait()
        return json_reply(200, {})

    async with AsyncExitStack() as outer:
        listeners = await outer.enter_async_context(Listeners())
        stack = await outer.enter_async_context(AsyncExitStack())
        port = await stack.enter_async_context(listeners.route(HOST, 0, "POST", "/gone", echo, owner="x"))
        await outer.enter_async_context(listeners.route(HOST, port, "POST", "/slow", slow, owner="y"))
        answer = asyncio.create_task(call("POST", port, "/slow", data=""))
        await entered.wait()
        listeners.draining = True
        await stack.aclose()
        status, _, headers = await call("POST", port, "/gone", data="")
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        asyncio.get_running_loop().call_later(0.05, leave.set)
    assert (await answer)[0] == 200
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(HOST, port)


async def test_leaving_cuts_what_does_not_end() -> None:
    entered = asyncio.Event()

    async def stuck(request: web.BaseRequest) -> web.Response:
        entered.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    started = time.monotonic()
    async with (
        Listeners(Bounds(close_s=0.1)) as listeners,
        listeners.route(HOST, 0, "GET", "/", stuck, owner="x") as port,
    ):
        peer = asyncio.create_task(raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        await entered.wait()
    assert await peer == b""
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"\r\n" * 1000 + b"x\r\n\r\n",
    ],
)
async def test_garbage_is_answered_with_a_plain_400_and_no_traceback(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bounds = Bounds(linger_s=0.1)
    async with Listeners(bounds) as listeners, listeners.route(HOST, 0, "POST", "/", echo, owner="x") as port:
        answer = await raw(port, data)
    assert answer[9:12] in {b"400", b"404", b"405"}, answer
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost"), ("::", "127.0.0.1")]
)
def test_hosts_as_people_can_open_them(host: str, shown: str) -> None:
    assert url_host(host) == shown
