"""A running webhook trigger over a real listener, for tests."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from llmling.errors import EngineError
from llmling.events import Event
from llmling.manifest.triggers import WebhookTriggerConfig
from llmling.protocols import Receipt
from llmling.runtime.services import Services
from llmling.server.connection import Bounds
from llmling.server.listener import Listeners
from llmling.triggers.webhook import WebhookTrigger

HOST = "127.0.0.1"
JSON = {"Content-Type": "application/json"}
KEY = b"0123456789abcdef0123456789abcdef"
WHSEC = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Mailbox:
    """An emit that keeps what it is given, as an engine does."""

    events: list[Event] = field(default_factory=list[Event])
    keys: dict[str, str] = field(default_factory=dict[str, str])
    kept_s: float | None = None
    error: EngineError | None = None
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(
        self, event: Event, *, key: str | None = None, keep_key_s: float | None = None, dead: str | None = None
    ) -> Receipt:
        self.entered.set()
        if self.error is not None:
            raise self.error
        if key is not None and key in self.keys:
            return Receipt(self.keys[key], new=False)
        if key is not None:
            self.keys[key] = event.id
        self.kept_s = keep_key_s
        self.events.append(event)
        if self.gate is not None:
            # As an engine: what was handed over is committed, whoever waits for it.
            await self.gate.wait()
        return Receipt(event.id, new=True)


@dataclass
class Hook:
    """A running trigger, and how to post to it."""

    port: int
    mailbox: Mailbox
    listeners: Listeners
    task: asyncio.Task[None]
    session: aiohttp.ClientSession

    async def post(
        self, data: Any = b"{}", headers: dict[str, str] | None = None, *, method: str = "POST", path: str = "/webhook"
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        request = self.session.request(
            method, f"http://{HOST}:{self.port}{path}", data=data, headers=JSON if headers is None else headers
        )
        async with request as response:
            body: dict[str, Any] = await response.json() if method != "HEAD" else {}
            return response.status, body, dict(response.headers)


async def armed(trigger: WebhookTrigger, emit: Mailbox) -> asyncio.Task[None]:
    """Run a trigger until it says it is armed."""
    started = asyncio.Event()
    task = asyncio.create_task(trigger.run(emit, started.set))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        await task
    return task


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


@asynccontextmanager
async def hook(
    mailbox: Mailbox | None = None,
    *,
    body_timeout_s: float = 5.0,
    bounds: Bounds | None = None,
    make: Callable[[Bounds], Listeners] = Listeners,
    **config: Any,
) -> AsyncGenerator[Hook]:
    mailbox = mailbox or Mailbox()
    async with make(bounds or Bounds(linger_s=1, close_s=0.5)) as listeners, aiohttp.ClientSession() as session:
        port = await listeners.bind(HOST, 0, owner="test")
        settings = WebhookTriggerConfig.model_validate({"name": "hook", "port": port, **config})
        services = Services(listeners=listeners, status_url=lambda event_id: f"http://pool/events/{event_id}")
        trigger = WebhookTrigger(settings, services, "agent", body_timeout_s=body_timeout_s)
        assert trigger.name == "hook"
        assert trigger.place == f"http://{HOST}:{port}{settings.path}"
        task = await armed(trigger, mailbox)
        try:
            yield Hook(port, mailbox, listeners, task, session)
        finally:
            await stopped(task)


def github(body: bytes, secret: str = "s") -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


GITHUB: dict[str, Any] = {"auth": {"type": "github", "secret": "s"}}


async def raw(port: int, data: bytes, timeout_s: float = 5.0) -> bytes:
    """Send bytes and return everything until the server closes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), timeout_s)
    except ConnectionError:
        return b""
    finally:
        writer.close()


BODIES = [b"{}", b"[1]", b'{"a": "\\ud800"}', b"\xff\xfe", b"[" * 2000, b"null", b"", b"a=1", b"NaN", b"1" * 3000]
PATHS = ["/", "//webhook", "*", "http://x/webhook", "/webhook?%ff", "/%00", "\xff", "/" * 99]
TYPES = ["application/json"] * 5 + ["text/plain", "multipart/form-data", ";;;", "", "a/b; charset=x"]
LENGTHS = ["-1", "x", "1000000000", "5", "1, 1"]
CHUNKS = [b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n", b"5\r\nab", b"0\r\n\r\n", b"ffffffffffffffffff\r\n"]
ODD_HEADERS = [
    "Expect: 100-continue", "Expect: x", "Upgrade: websocket", "Connection: upgrade", "Idempotency-Key: \xff\x80",
    "webhook-id: a", "Authorization: \xfe", "Origin: null", "Origin: http://[", "X: a\rb", ": empty", "no colon",
    "Cookie: " + "c" * 9000, "Content-Type: text/plain", "Transfer-Encoding: gzip", "Content-Encoding: gzip",
]  # fmt: skip


def random_request(rng: random.Random) -> bytes:
    """Make a request that is wrong in a few random ways, or in none."""
    method = rng.choice(["POST"] * 8 + ["GET", "PUT", "HEAD", "OPTIONS", "CONNECT", "post", "\x00", "P" * 30])
    path = rng.choice(["/webhook"] * 12 + PATHS)
    version = rng.choice(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2.0", "HTTP/1.1.1", ""])
    body = rng.choice([*BODIES, rng.randbytes(50)])
    headers = ["Host: x"] * rng.choice([1, 1, 1, 0, 2]) + [f"Content-Type: {rng.choice(TYPES)}"]
    framing = rng.choice(["length"] * 6 + ["odd length", "chunked", "none"])
    if framing == "length":
        headers.append(f"Content-Length: {len(body)}")
    elif framing == "odd length":
        headers.append(f"Content-Length: {rng.choice(LENGTHS)}")
    elif framing == "chunked":
        headers.append("Transfer-Encoding: chunked")
        body = rng.choice(CHUNKS)
    headers += rng.sample(ODD_HEADERS, rng.choice([0, 0, 0, 1, 1, 2]))
    rng.shuffle(headers)
    return "\r\n".join([f"{method} {path} {version}", *headers, "", ""]).encode("latin-1") + body
