"""The short way: what is all there is answered from where it is read, and nobody can tell."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp import web

from llmling.server.connection import Bounds
from llmling.server.listener import Listeners
from llmling.server.reply import JsonReply, Refused, json_reply

HOST = "127.0.0.1"


class Short:
    """Answers what it is given, at once or when it is let go, and notes what it was asked."""

    def __init__(self, *, held: bool = False, name: str = "short", padding: str = "") -> None:
        self.held = held
        self.name = name
        self.padding = padding
        self.bodies: list[bytes] = []
        self.waiting: list[asyncio.Future[bytes]] = []
        self.asked = asyncio.Event()

    def suits(self, headers: Mapping[str, str], length: int) -> bool:
        return "X-Odd" not in headers

    def begin(self, headers: Mapping[str, str], body: bytes) -> asyncio.Future[bytes]:
        self.bodies.append(body)
        self.asked.set()
        if body == b"no":
            raise Refused(400, "not that", headers={"X-Why": "no"})
        if body == b"fault":
            raise ZeroDivisionError
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if self.held:
            self.waiting.append(future)
        else:
            future.set_result(body)
        return future

    def answer(self, done: asyncio.Future[bytes]) -> JsonReply:
        if done.result() == b"late no":
            raise Refused(503, "not now")
        if done.result() == b"late fault":
            raise ZeroDivisionError
        return JsonReply(200, {"by": self.name, "body": done.result().decode(), "padding": self.padding})

    async def let_go(self) -> None:
        await self.asked.wait()
        self.asked.clear()
        self.waiting.pop(0).set_result(self.bodies[-1])


class Usual:
    """The handler of the same route."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        return json_reply(200, {"by": "usual", "body": body.decode()})


def post(body: str, *more: str, path: str = "/a") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more, "", body]).encode()


class Peer:
    """A connection, and who answered what was sent over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Peer:
        return cls(*await asyncio.open_connection(HOST, port))

    async def answer(self) -> tuple[int, str]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode()
        length = re.search(r"Content-Length: (\d+)", head)
        assert length is not None, head
        return int(head[9:12]), (await self.reader.readexactly(int(length[1]))).decode()

    async def asks(self, *data: bytes) -> tuple[int, str]:
        for piece in data:
            self.writer.write(piece)
            await self.writer.drain()
        return await self.answer()

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()


@asynccontextmanager
async def served(
    short: Short, usual: Usual | None = None, bounds: Bounds | None = None
) -> AsyncGenerator[tuple[int, Peer]]:
    """A listener with one route that has a short way; gives its port and a connection."""
    async with (
        Listeners(bounds) as listeners,
        listeners.route(HOST, 0, "POST", "/a", usual or Usual(), owner="x", direct=short) as port,
        await Peer.to(port) as peer,
    ):
        yield port, peer


async def caught_up(port: int) -> None:
    """Wait until what was sent so far has been read: another connection is answered after it."""
    async with await Peer.to(port) as other:
        await other.asks(post("x", "X-Odd: 1"))


async def test_a_request_that_is_all_there_goes_the_short_way_again_and_again() -> None:
    short, usual = Short(), Usual()
    async with Listeners() as listeners, listeners.route(HOST, 0, "POST", "/a", usual, owner="x", direct=short) as port:
        for _ in range(2):
            async with await Peer.to(port) as peer:
                for body in ("one", "two", "three", "six", ""):
                    status, text = await peer.asks(post(body))
                    assert (status, f'"body": "{body}"' in text) == (200, True)
    assert short.bodies == [b"one", b"two", b"three", b"six", b""] * 2
    assert usual.bodies == []


@pytest.mark.parametrize(
    ("request_", "after"),
    [
        (post("hi", "X-Odd: 1"), "short"),
        (post("hi", path="/%61"), "short"),
        (post("hi", path="/a?b=c"), "short"),
        (post("hi", "Connection: upgrade", "Upgrade: foo"), "usual"),
        (post("hi").replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"\r\n0\r\n\r\n", "usual"),
    ],
)
async def test_what_does_not_suit_goes_the_usual_way(request_: bytes, after: str) -> None:
    short, usual = Short(), Usual()
    request_ = request_.replace(b"\r\n\r\nhi\r\n0", b"\r\n\r\n2\r\nhi\r\n0")
    async with served(short, usual) as (_, peer):
        for _ in range(2):
            assert (await peer.asks(request_))[1] == '{"by": "usual", "body": "hi"}'
            assert f'"by": "{after}"' in (await peer.asks(post("yes")))[1]


async def test_a_known_head_with_its_body_in_pieces_waits_for_the_body() -> None:
    short, usual = Short(), Usual()
    whole = post("three")
    async with served(short, usual) as (port, peer):
        for cut in range(1, len(whole)):
            await peer.asks(whole)
            peer.writer.write(whole[:cut])
            await caught_up(port)
            status, text = await peer.asks(whole[cut:])
            assert (status, '"body": "three"' in text) == (200, True), cut
    assert len(usual.bodies) + len(short.bodies) == 3 * (len(whole) - 1)


async def test_requests_sent_ahead_are_answered_in_order_while_one_is_under_way() -> None:
    short = Short(held=True)
    async with served(short) as (port, peer):
        peer.writer.write(post("first"))
        await short.asked.wait()
        peer.writer.write(post("second") + post("third"))
        await caught_up(port)
        await short.let_go()
        found = [(await peer.answer())[1] for _ in range(3)]
    assert [re.findall(r'"body": "(\w+)"', text) for text in found] == [["first"], ["second"], ["third"]]


async def test_one_that_is_sent_ahead_goes_the_short_way_after_the_first() -> None:
    short, usual = Short(held=True), Usual()
    async with served(short, usual) as (port, peer):
        peer.writer.write(post("first"))
        await short.asked.wait()
        peer.writer.write(post("second"))
        await caught_up(port)
        for body in ("first", "second"):
            await short.let_go()
            assert f'"body": "{body}"' in (await peer.answer())[1]
    assert short.bodies == [b"first", b"second"]


async def test_refusals_and_faults_are_answered_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    short = Short()
    async with served(short) as (_, peer):
        for _ in range(2):
            assert await peer.asks(post("no")) == (400, '{"error": "not that"}')
            assert await peer.asks(post("late no")) == (503, '{"error": "not now"}')
            for body in ("fault", "late fault"):
                status, text = await peer.asks(post(body))
                assert (status, '"error": "internal error"' in text) == (500, True)
                assert text.split('"')[-2] in caplog.text
                assert "ZeroDivisionError" not in text
        assert (await peer.asks(post("ok")))[0] == 200
    assert "'/a' failed" in caplog.text


async def test_the_last_answer_of_a_connection_closes_it() -> None:
    async with (
        Listeners() as listeners,
        listeners.route(HOST, 0, "POST", "/a", Usual(), owner="x", direct=Short()) as port,
    ):
        for whole, says in (
            (post("hi", "Connection: close"), b"Connection: close"),
            (post("hi").replace(b"HTTP/1.1", b"HTTP/1.0"), b"HTTP/1.0 200 OK"),
        ):
            async with await Peer.to(port) as peer:
                peer.writer.write(whole)
                answer = await peer.reader.read()
            assert says in answer
            assert answer.endswith(b"}")
            assert b'"by": "short"' in answer


async def test_leaving_waits_for_answers_under_way_and_cuts_what_does_not_end() -> None:
    short = Short(held=True)
    async with Listeners(Bounds(close_s=20)) as listeners:
        async with listeners.route(HOST, 0, "POST", "/a", Usual(), owner="x", direct=short) as port:
            peer = await Peer.to(port)
            peer.writer.write(post("hi"))
            await short.asked.wait()
        asyncio.get_running_loop().call_later(0.05, short.waiting[0].set_result, b"hi")
    assert '"body": "hi"' in (await peer.reader.read()).decode()
    peer.writer.close()

    async with (
        Listeners(Bounds(close_s=0.1)) as listeners,
        listeners.route(HOST, 0, "POST", "/a", Usual(), owner="x", direct=short) as port,
    ):
        peer = await Peer.to(port)
        short.asked.clear()
        peer.writer.write(post("hi"))
        await short.asked.wait()
    assert await peer.reader.read() == b""
    assert short.waiting[-1].cancelled()
    peer.writer.close()


async def test_a_peer_that_leaves_ends_the_wait() -> None:
    short = Short(held=True)
    async with (
        Listeners() as listeners,
        listeners.route(HOST, 0, "POST", "/a", Usual(), owner="x", direct=short) as port,
    ):
        peer = await Peer.to(port)
        peer.writer.write(post("hi"))
        await short.asked.wait()
        peer.writer.transport.abort()
        with pytest.raises(asyncio.CancelledError):
            await short.waiting[0]


async def test_an_answer_under_way_outlives_the_idle_time_and_an_idle_connection_does_not() -> None:
    short = Short(held=True)
    async with served(short, bounds=Bounds(keepalive_s=0.1)) as (_, peer):
        for _ in range(2):
            peer.writer.write(post("hi"))
            await short.asked.wait()
            reading = asyncio.create_task(peer.answer())
            assert not (await asyncio.wait([reading], timeout=0.4))[0]
            await short.let_go()
            assert (await reading)[0] == 200
        assert await peer.reader.read() == b""


async def test_a_peer_that_takes_no_answers_is_bounded_and_cut() -> None:
    short, usual = Short(padding="x" * 50_000_000), Usual()
    async with served(short, usual, Bounds(write_timeout_s=0.2)) as (port, peer):
        cast("asyncio.ReadTransport", peer.writer.transport).pause_reading()
        peer.writer.write(post("hi"))
        await short.asked.wait()
        peer.writer.write(post("more"))
        async with asyncio.timeout(20):
            while b"more" not in usual.bodies:
                async with await Peer.to(port) as other:
                    assert (await other.asks(post("x", "X-Odd: 1")))[0] == 200
    assert short.bodies == [b"hi"]


async def test_a_known_head_is_answered_by_whoever_has_the_route_now() -> None:
    async with (
        Listeners() as listeners,
        listeners.route(HOST, 0, "POST", "/b", Usual(), owner="y") as port,
        await Peer.to(port) as peer,
    ):
        for name in ("first", "second"):
            async with listeners.route(HOST, port, "POST", "/a", Usual(), owner="x", direct=Short(name=name)):
                for _ in range(2):
                    assert f'"by": "{name}"' in (await peer.asks(post("hi")))[1]
            assert (await peer.asks(post("hi")))[0] == 404


async def test_the_same_bytes_inside_of_a_head_are_no_request() -> None:
    first, second, known = Usual(), Short(name="second"), post("hi", path="/b")
    async with (
        Listeners() as listeners,
        listeners.route(HOST, 0, "POST", "/a", first, owner="x", direct=Short(name="first")) as port,
        listeners.route(HOST, port, "POST", "/b", Usual(), owner="y", direct=second),
        await Peer.to(port) as honest,
    ):
        for _ in range(2):
            await honest.asks(known)
        for begun in (b"PO", b"POST /a HTTP/1.1\r\nX-Long: "):
            async with await Peer.to(port) as other:
                # The next head begins in the same piece as a request: nothing but the parser knows.
                await other.asks(post("whole") + begun)
                status, text = await other.asks(known)
                assert (status, '"by": "usual"' in text) == ((400, False) if begun == b"PO" else (200, True))
            # Nor has anybody learned from it.
            assert '"by": "second"' in (await honest.asks(known))[1]
            async with await Peer.to(port) as fresh:
                assert '"by": "second"' in (await fresh.asks(known))[1]
    assert second.bodies == [b"hi"] * 6
    assert first.bodies == [b"whole", b"whole", b"hi"]


async def test_a_next_head_that_begins_while_an_answer_is_under_way_is_read_on() -> None:
    short, usual = Short(held=True), Usual()
    whole = post("hi")
    async with served(short, usual) as (port, peer):
        peer.writer.write(whole)
        await short.asked.wait()
        peer.writer.write(whole[:24])
        await caught_up(port)
        await short.let_go()
        assert '"by": "short"' in (await peer.answer())[1]
        for _ in range(4):
            assert '"by": "usual"' in (await peer.asks(whole[24:]))[1]
            peer.writer.write(whole[:24])
            await caught_up(port)
    assert usual.bodies.count(b"hi") == 4


async def test_a_body_without_an_end_takes_all_that_follows() -> None:
    short, usual = Short(), Usual()
    async with served(short, usual) as (port, peer):
        async with await Peer.to(port) as honest:
            for _ in range(2):
                await honest.asks(post("hi"))
        endless = b"GET /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n"
        assert (await peer.asks(endless))[0] == 404
        peer.writer.write(post("hi"))
        await caught_up(port)
    assert short.bodies == [b"hi", b"hi"]


@pytest.mark.parametrize("chunks", [16_384, 16_385, 16_386])
async def test_what_follows_a_body_of_very_many_chunks_is_answered(chunks: int) -> None:
    body = b"1\r\n1\r\n" * chunks + b"0\r\n\r\n"
    async with served(Short()) as (_, peer):
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await peer.asks(head + body))[0] == 200
        assert '"body": "after"' in (await peer.asks(post("after")))[1]


async def test_an_answer_that_somebody_else_cancels_ends_the_connection() -> None:
    short = Short(held=True)
    async with served(short) as (port, peer):
        peer.writer.write(post("first"))
        await short.asked.wait()
        peer.writer.write(post("second"))
        await caught_up(port)
        short.waiting[0].cancel()
        assert await peer.reader.read() == b""


async def test_of_posts_with_one_head_each_is_judged_by_its_body() -> None:
    short = Short()
    async with served(short) as (_, peer):
        for _ in range(3):
            assert (await peer.asks(post("no")))[0] == 400
            assert (await peer.asks(post("ok")))[0] == 200  # the same head
            assert (await peer.asks(post("no")))[0] == 400


async def test_many_heads_are_known_and_none_is_mixed_up() -> None:
    short = Short()
    async with served(short) as (_, peer):
        for _ in range(2):
            for number in range(300):
                status, text = await peer.asks(post(f"n{number}", f"X-N: {number}"))
                assert (status, f'"body": "n{number}"' in text) == (200, True)
