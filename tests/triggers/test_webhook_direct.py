"""Posts that go the short way get what they would get the usual way."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from webhook_door import HOST, JSON, Hook, Mailbox, hook, random_request

from llmling.errors import Full
from llmling.events import Event
from llmling.protocols import Receipt
from llmling.server.connection import Bounds
from llmling.server.direct import Direct
from llmling.server.listener import Listeners

REQUESTS, CONVERSATIONS = 400, 300
_VARYING = re.compile(rb"Date: [^\r]*|[0-9A-HJKMNP-TV-Z]{26}")


class OnlyTheUsualWay(Listeners):
    """Listeners without the short way."""

    @asynccontextmanager
    async def route(self, *args: Any, direct: Direct | None = None, **kw: Any) -> AsyncGenerator[int]:
        async with super().route(*args, **kw) as port:
            yield port


async def answers(door: Hook, data: bytes, times: int = 3) -> list[bytes]:
    """Send a request again and again over one connection, and return what came back, without what always varies."""
    reader, writer = await asyncio.open_connection(HOST, door.port)
    found: list[bytes] = []
    try:
        for _ in range(times):
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            none = length is None or data.startswith(b"HEAD") or b" 100 " in head[:14]
            found.append(head + (b"" if none or length is None else await reader.readexactly(int(length[1]))))
        writer.write_eof()
        found.append(await reader.read())
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        found.append(getattr(error, "partial", b""))
    finally:
        writer.close()
    return [_VARYING.sub(b"", answer) for answer in found]


def usual_request(rng: random.Random) -> bytes:
    body = rng.choice([b"{}", b'{"n": 1.5}', b'"text"', b"[null, true]", b"plain", b" \n{}\n", b""])
    headers = ["Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    headers += rng.sample(
        ["X-Event: push", "x-event: again", "Idempotency-Key: k", "Connection: close"], rng.choice([0, 0, 1, 2])
    )
    return "\r\n".join(["POST /webhook HTTP/1.1", *headers, "", ""]).encode() + body


async def test_random_requests_get_the_same_answers_either_way() -> None:
    rng = random.Random(20261127)
    bounds = Bounds(head_timeout_s=0.1, linger_s=0.05, keepalive_s=5)
    limits: dict[str, Any] = {"body_timeout_s": 0.05, "bounds": bounds, "max_body_bytes": 2500}
    limit = asyncio.Semaphore(40)
    async with hook(**limits) as short, hook(make=OnlyTheUsualWay, **limits) as usual:

        async def both(data: bytes) -> None:
            async with limit:
                got, expected = await asyncio.gather(answers(short, data), answers(usual, data))
            assert got == expected, data

        async with asyncio.TaskGroup() as group:
            for number in range(REQUESTS):
                group.create_task(both(random_request(rng) if number % 3 else usual_request(rng)))
        events = [
            sorted(repr((event.subject, event.data, sorted(event.headers.items()))) for event in door.mailbox.events)
            for door in (short, usual)
        ]
    assert events[0] == events[1]
    assert len(events[0]) > REQUESTS // 10


class Refusing(Mailbox):
    """A mailbox that says at the call that it is full, as an engine may."""

    def __call__(
        self, event: Event, *, key: str | None = None, keep_key_s: float | None = None, dead: str | None = None
    ) -> NoReturn:
        raise Full("full", retry_after_s=7)


@pytest.mark.parametrize("mailbox", [Refusing(), Mailbox(error=Full("full", retry_after_s=7))])
async def test_a_refusal_is_the_same_answer_at_the_call_and_later_either_way(mailbox: Mailbox) -> None:
    post = b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    async with hook(mailbox) as short, hook(mailbox, make=OnlyTheUsualWay) as usual:
        got, expected = await answers(short, post), await answers(usual, post)
    assert got == expected
    assert all(b" 503 " in answer and b"Retry-After: 7" in answer for answer in got[:3])


class Slowly(Mailbox):
    """A mailbox that commits some turns of the loop later."""

    async def __call__(
        self, event: Event, *, key: str | None = None, keep_key_s: float | None = None, dead: str | None = None
    ) -> Receipt:
        receipt = await super().__call__(event, key=key, keep_key_s=keep_key_s, dead=dead)
        await some_turns(event.data["turns"])
        return receipt


async def some_turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def conversation(rng: random.Random) -> list[bytes]:
    """Make valid requests in a row, cut into pieces anywhere, mostly between two of them."""
    requests: list[bytes] = []
    for _ in range(rng.randrange(2, 12)):
        body = b'{"turns": %d}' % rng.choice([0, 0, 3, 9])
        kind = rng.choice(
            ["plain"] * 8 + ["X-V: 1", "Idempotency-Key: k", "Connection: keep-alive", "Expect: x", "GET"]
        )
        kind = rng.choice([kind, kind, kind, "chunked", "line end first"])
        head = ["POST /webhook HTTP/1.1", "Host: x", "Content-Type: application/json"]
        if kind == "chunked":
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            head.append("Transfer-Encoding: chunked")
        elif kind == "GET":
            head, body = ["GET /webhook HTTP/1.1", "Host: x"], b""
        else:
            head.append(f"Content-Length: {len(body)}")
        if ":" in kind:
            head.append(kind)
        first = b"\r\n" if kind == "line end first" else b""
        requests.append(first + "\r\n".join([*head, "", ""]).encode() + body)
    requests.append(b"POST /webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    data, ends = b"".join(requests), [len(b"".join(requests[:count])) for count in range(1, len(requests))]
    cuts = {end for end in ends if rng.random() < 0.7}
    if rng.random() < 0.5:
        cuts.update(rng.sample(range(1, len(data)), len(requests)))
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


async def heard(door: Hook, pieces: list[bytes], pauses: list[int]) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, door.port)
    try:
        for piece, turns in zip(pieces, pauses, strict=True):
            writer.write(piece)
            await some_turns(turns)
        return _VARYING.sub(b"", await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


async def test_requests_in_a_row_however_they_are_cut_get_the_same_answers_either_way() -> None:
    rng = random.Random(20261128)
    bounds = Bounds(keepalive_s=20, linger_s=0.05)
    async with hook(Slowly(), bounds=bounds) as short, hook(Slowly(), bounds=bounds, make=OnlyTheUsualWay) as usual:
        for _ in range(CONVERSATIONS):
            pieces = conversation(rng)
            pauses = [rng.choice([0, 2, 5, 12]) for _ in pieces]
            got, expected = [await heard(door, pieces, pauses) for door in (short, usual)]
            assert got == expected, pieces
    assert [event.data for event in short.mailbox.events] == [event.data for event in usual.mailbox.events]
    assert len(short.mailbox.events) > CONVERSATIONS


@pytest.mark.parametrize("auth", [{"type": "none"}, {"type": "bearer", "token": "t"}])
async def test_a_post_with_an_id_is_known_beside_posts_without_one(auth: dict[str, str]) -> None:
    headers = {**JSON, "Authorization": "Bearer t"}
    async with hook(auth=auth) as door:
        without = [await door.post(headers=headers) for _ in range(3)]
        with_id = [await door.post(headers={**headers, "Idempotency-Key": "k"}) for _ in range(3)]
    assert [status for status, _, _ in without] == [202, 202, 202]
    assert [status for status, _, _ in with_id] == [202, 200, 200]
    assert len({body["event_id"] for _, body, _ in without}) == 3
    assert len({body["event_id"] for _, body, _ in with_id}) == 1
