from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, ValidationError
from standardwebhooks import Webhook

from llmling.errors import SinkError
from llmling.events import Event
from llmling.manifest.sinks import HttpSinkConfig
from llmling.messages import Message
from llmling.protocols import Answer
from llmling.runtime.services import Services
from llmling.sinks.http import HttpSink

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TIME = dt.datetime(2026, 11, 21, 3, 0, tzinfo=dt.UTC)


@dataclass(slots=True)
class Receiver:
    """A real service that takes answers; `reply` makes what it says, None: nothing at all."""

    url: str = ""
    reply: Callable[[], web.Response] | None = lambda: web.Response(status=204)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])
    closing: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()

    async def take(request: web.Request) -> web.Response:
        it.got.append((dict(request.headers), await request.read()))
        if it.reply is None:
            await it.closing.wait()
            return web.Response()
        return it.reply()

    app = web.Application()
    app.router.add_post("/{tail:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/T0/secret?token=hunter2"
    yield it
    it.closing.set()
    await runner.cleanup()


def answer(text: str = "Größe", content: Any = None, delivery_id: str = "E1/writer/editor") -> Answer:
    event = Event("watch", "dev.llmling.file.added", id="E1", time=TIME)
    return Answer(text, text if content is None else content, Message.assistant(text), event, "editor", delivery_id)


def sink(url: str, **keys: Any) -> HttpSink:
    return HttpSink(HttpSinkConfig.model_validate({"url": url, **keys}), Services())


async def test_posts_the_answer(receiver: Receiver) -> None:
    await sink(receiver.url).send(answer())
    [(headers, body)] = receiver.got
    assert json.loads(body) == {
        "event_id": "E1",
        "delivery_id": "E1/writer/editor",
        "agent": "editor",
        "content": "Größe",
        "time": "2026-11-21T03:00:00+00:00",
    }
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == "E1/writer/editor"
    assert "webhook-signature" not in headers


class Point(BaseModel):
    x: int


@pytest.mark.parametrize("content", [{"x": 1}, Point(x=1)])
async def test_a_structured_answer_is_sent_as_an_object(receiver: Receiver, content: Any) -> None:
    await sink(receiver.url).send(answer('{"x": 1}', content))
    assert json.loads(receiver.got[0][1])["content"] == {"x": 1}


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, SECRET),
        (SECRET.removeprefix("whsec_"), SECRET),
        (SECRET.rstrip("="), SECRET),
        ("not base64!", b"not base64!"),
    ],
)
async def test_the_signature_is_that_of_standard_webhooks(receiver: Receiver, secret: str, key: str | bytes) -> None:
    await sink(receiver.url, secret=secret).send(answer())
    headers, body = receiver.got[0]
    assert Webhook(key).verify(body, headers)["content"] == "Größe"


async def test_a_second_try_sends_the_same_body_and_id(receiver: Receiver) -> None:
    out = sink(receiver.url, secret=SECRET)
    await out.send(answer())
    await out.send(answer())
    (first, body), (second, again) = receiver.got
    assert (first["webhook-id"], body) == (second["webhook-id"], again)


async def test_own_headers_are_sent_but_replace_none_of_ours(receiver: Receiver) -> None:
    await sink(receiver.url, secret=SECRET, headers={"Authorization": "Bearer x", "Webhook-Id": "forged"}).send(
        answer()
    )
    headers, body = receiver.got[0]
    assert headers["Authorization"] == "Bearer x"
    assert Webhook(SECRET).verify(body, headers)
    assert headers["webhook-id"] == "E1/writer/editor"


async def test_any_agent_name_fits_into_the_header(receiver: Receiver) -> None:
    await sink(receiver.url, secret=SECRET).send(answer(delivery_id="E1/prüfer 1\r\nX-Evil: 1"))
    headers, body = receiver.got[0]
    assert headers["webhook-id"] == "E1/pr%C3%BCfer%201%0D%0AX-Evil:%201"
    assert Webhook(SECRET).verify(body, headers)
    assert "X-Evil" not in headers


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, False) for status in (400, 401, 404, 410, 422)),
        *((status, True) for status in (408, 425, 429, 500, 502, 503)),
    ],
)
async def test_the_status_decides_whether_to_try_again(receiver: Receiver, status: int, retryable: bool) -> None:
    receiver.reply = lambda: web.Response(status=status, text="no\x1b[31m such\nhook " + "x" * 100_000)
    with pytest.raises(SinkError) as caught:
        await sink(receiver.url).send(answer())
    assert caught.value.retryable is retryable
    message = str(caught.value)
    assert f"answered {status}" in message
    assert "no [31m such hook xxx" in message
    assert len(message) < 500
    assert "hunter2" not in message
    assert "secret" not in message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    receiver.reply = lambda: web.Response(
        status=status, headers={"Location": "https://other.example/new?token=hunter2"}
    )
    with pytest.raises(SinkError, match=rf"redirects \({status} to https://other\.example\)") as caught:
        await sink(receiver.url).send(answer())
    assert not caught.value.retryable
    assert len(receiver.got) == 1


async def test_a_receiver_that_hangs_is_given_up(receiver: Receiver) -> None:
    receiver.reply = None
    with pytest.raises(SinkError, match=r"did not answer within 0\.1 s") as caught:
        await sink(receiver.url, timeout_s=0.1).send(answer())
    assert caught.value.retryable


async def test_nobody_there_is_retryable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(SinkError, match=f"http http://127.0.0.1:{port} could not be reached") as caught:
            await sink(f"http://me:hunter2@127.0.0.1:{port}/secret").send(answer())
    assert caught.value.retryable
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"secret": "whsec_%%%"}, "not base64"),
        ({"secret": ""}, "secret is empty"),
        ({"secret": "whsec_"}, "secret is empty"),
        ({"headers": {"X-A": "b\r\nX-B: c"}}, "holds no line break"),
        ({"url": "http://[bad/secret"}, "no address of a server"),
        ({"url": "https://"}, "no address of a server"),
    ],
)
def test_what_can_never_work_is_refused_by_its_config(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HttpSinkConfig.model_validate({"url": "https://x.example/secret", **keys})
