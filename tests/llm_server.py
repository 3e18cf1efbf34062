"""A real HTTP server on the loopback that speaks the wire formats of model providers, with scripted answers.

    async with LLMServer() as server:
        server.replies += [Reply(status=429, retry_after="0"), Reply("hello")]
        ...  # a client with api_base server.openai_url
        assert server.requests[0].body["model"] == "my-model"

`replies` is a queue; when it is empty `server.answer(request)` is asked, which by default echoes the last message.
Formats: OpenAI (`/v1/chat/completions`, `/v1/models`, and Azure's deployments of it), Bedrock
(`/model/.../converse`, `/model/.../converse-stream`), Anthropic (`/v1/messages`), Gemini (`...:generateContent`,
`...:streamGenerateContent`), Ollama (`/api/chat`, `/api/tags`); each streamed and whole, with tool calls and usage.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from llm_wire_bedrock import bedrock_body, bedrock_stream
from llm_wires import (
    Call,
    Reply,
    Request,
    Wire,
    anthropic_body,
    anthropic_stream,
    gemini_body,
    gemini_stream,
    ollama_body,
    ollama_stream,
    openai_body,
    openai_stream,
)

STREAMS = {"ollama": "application/x-ndjson", "bedrock": "application/vnd.amazon.eventstream"}

__all__ = ["Call", "LLMServer", "Reply", "Request", "Wire", "echo"]


def echo(request: Request) -> Reply:
    """Answer with the last message."""
    return Reply(f"echo: {request.last_text}")


class LLMServer:
    """The server; entering it listens on a free port of the loopback."""

    def __init__(self, answer: Callable[[Request], Reply] = echo, *, models: Sequence[str] = ("served-model",)) -> None:
        self.answer: Callable[[Request], Reply] = answer
        self.replies: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.paths: list[str] = []
        """Method and path of everything that was asked, whether it is known here or not."""
        self.models = models
        self.url = ""
        self.in_flight = 0
        """Requests that have arrived and are not answered yet."""
        self.peak = 0
        """The most there were in flight at once."""
        self._arrived = asyncio.Condition()
        self._stopping = False
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._note])
        app.router.add_post("/v1/chat/completions", self._openai)
        app.router.add_post("/openai/v1/chat/completions", self._openai)
        app.router.add_post("/openai/deployments/{model}/chat/completions", self._openai)
        app.router.add_post(r"/model/{model}/{call:converse(-stream)?}", self._bedrock)
        app.router.add_post("/v1/messages", self._anthropic)
        app.router.add_post(r"/{at:.*}/{call:[^/]+:(stream)?[gG]enerateContent}", self._gemini)
        app.router.add_post("/api/chat", self._ollama)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.05, access_log=None)

    @property
    def openai_url(self) -> str:
        """What OPENAI_BASE_URL or `api_base` has to be."""
        return f"{self.url}/v1"

    async def __aenter__(self) -> LLMServer:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._runner.cleanup()

    async def wait_for_requests(self, count: int, timeout_s: float = 60.0) -> None:
        """Return once `count` requests have arrived."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.paths.append(f"{request.method} {request.path}")
        return await handler(request)

    async def _openai(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("openai", http, openai_body, openai_stream)

    async def _anthropic(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("anthropic", http, anthropic_body, anthropic_stream)

    async def _gemini(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("gemini", http, gemini_body, gemini_stream)

    async def _ollama(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("ollama", http, ollama_body, ollama_stream)

    async def _bedrock(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("bedrock", http, bedrock_body, bedrock_stream)

    async def _tags(self, http: web.Request) -> web.Response:
        return web.json_response({"models": [{"name": name, "model": name, "size": 1} for name in self.models]})

    async def _models(self, http: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "owned_by": "tests"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _serve(
        self,
        wire: Wire,
        http: web.Request,
        body: Callable[[Request, Reply], dict[str, Any]],
        stream: Callable[[Request, Reply], Iterator[str | bytes]],
    ) -> web.StreamResponse:
        request = Request(wire, http.path_qs, dict(http.headers), await http.json())
        self.requests.append(request)
        async with self._arrived:
            self._arrived.notify_all()
        reply = self.replies.popleft() if self.replies else self.answer(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._send(http, request, reply, body, stream)
        except (asyncio.CancelledError, ConnectionResetError):
            if not self._stopping:
                request.hung_up.set()
            raise
        finally:
            self.in_flight -= 1

    async def _send(
        self,
        http: web.Request,
        request: Request,
        reply: Reply,
        body: Callable[[Request, Reply], dict[str, Any]],
        stream: Callable[[Request, Reply], Iterator[str | bytes]],
    ) -> web.StreamResponse:
        await asyncio.sleep(reply.delay_s)
        if reply.gate is not None:
            await reply.gate.wait()
        if reply.hang:
            await asyncio.Event().wait()
        headers = {} if reply.retry_after is None else {"Retry-After": reply.retry_after}
        if reply.raw is not None:
            raw = reply.raw.encode() if isinstance(reply.raw, str) else reply.raw
            return web.Response(status=reply.status, body=raw, headers=headers, content_type="application/json")
        if reply.status != 200:
            error = {"message": reply.text or f"scripted {reply.status}", "type": "scripted_error"}
            return web.json_response({"type": "error", "error": error}, status=reply.status, headers=headers)
        if not request.stream:
            response = web.json_response(body(request, reply))
            if reply.cut and http.transport is not None:
                await _write_half(http, response)
            return response
        answer = web.StreamResponse(headers={"Content-Type": STREAMS.get(request.wire, "text/event-stream")})
        await answer.prepare(http)
        for count, line in enumerate(stream(request, reply)):
            await answer.write(line.encode() if isinstance(line, str) else line)
            if count == reply.hang_after:
                await (reply.resume or asyncio.Event()).wait()
        if reply.cut and http.transport is not None:
            await asyncio.sleep(0.01)
            http.transport.close()
        return answer


async def _write_half(http: web.Request, response: web.Response) -> None:
    text = response.text or ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    assert isinstance(http.transport, asyncio.Transport)
    http.transport.write((head + text[: len(text) // 2]).encode())
    await asyncio.sleep(0.01)
    http.transport.close()
