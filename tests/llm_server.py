"""A real HTTP server on the loopback that speaks the wire formats of model providers, with scripted answers.

    async with LLMServer() as server:
        server.replies += [Reply(status=429, retry_after="0"), Reply("hello")]
        ...  # a client with api_base server.openai_url
        assert server.requests[0].body["model"] == "my-model"

`replies` is a queue; when it is empty `server.answer(request)` is asked, which by default echoes the last message.
Formats: OpenAI (`/v1/chat/completions`, `/v1/models`), Anthropic (`/v1/messages`), Gemini (`...:generateContent`,
`...:streamGenerateContent`), Ollama (`/api/chat`, `/api/tags`); each streamed and whole, with tool calls and usage.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler

Wire = Literal["openai", "anthropic", "gemini", "ollama"]


@dataclass(frozen=True)
class Call:
    """A tool call; `arguments` as a text is sent as it is, malformed or not."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Reply:
    """One scripted answer.

    `delay_s` waits first, `gate` waits until it is set, `hang` never answers, `cut` ends the connection in the middle
    of the answer, `hang_after` streams that many pieces of text and then nothing more, `unfinished` ends a stream
    properly but without its finish reason. `raw` is sent as the body, with `status`.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    status: int = 200
    retry_after: str | None = None
    delay_s: float = 0.0
    gate: asyncio.Event | None = None
    hang: bool = False
    cut: bool = False
    unfinished: bool = False
    hang_after: int | None = None
    finish: str | None = None
    input_tokens: int = 11
    cached_tokens: int = 0
    output_tokens: int = 7
    raw: str | None = None

    @property
    def pieces(self) -> list[str]:
        words = self.text.split(" ")
        return [word if n == 0 else f" {word}" for n, word in enumerate(words)] if self.text else []


@dataclass
class Request:
    """What the server was sent; `hung_up` is set when the client closed the connection before the answer was out."""

    wire: Wire
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream", self.wire == "ollama")) or ":stream" in self.path

    @property
    def last_text(self) -> str:
        if self.wire == "gemini":
            return "".join(part.get("text", "") for part in self.body["contents"][-1]["parts"])
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


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
        self._arrived = asyncio.Condition()
        self._stopping = False
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._note])
        app.router.add_post("/v1/chat/completions", self._openai)
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

    async def wait_for_requests(self, count: int, timeout_s: float = 10.0) -> None:
        """Return once `count` requests have arrived."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.paths.append(f"{request.method} {request.path}")
        return await handler(request)

    async def _openai(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("openai", http, _openai_body, _openai_stream)

    async def _anthropic(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("anthropic", http, _anthropic_body, _anthropic_stream)

    async def _gemini(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("gemini", http, _gemini_body, _gemini_stream)

    async def _ollama(self, http: web.Request) -> web.StreamResponse:
        return await self._serve("ollama", http, _ollama_body, _ollama_stream)

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
        stream: Callable[[Request, Reply], Iterator[str]],
    ) -> web.StreamResponse:
        request = Request(wire, http.path_qs, dict(http.headers), await http.json())
        self.requests.append(request)
        async with self._arrived:
            self._arrived.notify_all()
        reply = self.replies.popleft() if self.replies else self.answer(request)
        try:
            return await self._send(http, request, reply, body, stream)
        except (asyncio.CancelledError, ConnectionResetError):
            if not self._stopping:
                request.hung_up.set()
            raise

    async def _send(
        self,
        http: web.Request,
        request: Request,
        reply: Reply,
        body: Callable[[Request, Reply], dict[str, Any]],
        stream: Callable[[Request, Reply], Iterator[str]],
    ) -> web.StreamResponse:
        await asyncio.sleep(reply.delay_s)
        if reply.gate is not None:
            await reply.gate.wait()
        if reply.hang:
            await asyncio.Event().wait()
        headers = {} if reply.retry_after is None else {"Retry-After": reply.retry_after}
        if reply.raw is not None:
            return web.Response(status=reply.status, text=reply.raw, headers=headers, content_type="application/json")
        if reply.status != 200:
            error = {"message": reply.text or f"scripted {reply.status}", "type": "scripted_error"}
            return web.json_response({"type": "error", "error": error}, status=reply.status, headers=headers)
        if not request.stream:
            response = web.json_response(body(request, reply))
            if reply.cut and http.transport is not None:
                await _write_half(http, response)
            return response
        kind = "application/x-ndjson" if request.wire == "ollama" else "text/event-stream"
        answer = web.StreamResponse(headers={"Content-Type": kind})
        await answer.prepare(http)
        for count, line in enumerate(stream(request, reply)):
            await answer.write(line.encode())
            if reply.hang_after is not None and count >= reply.hang_after:
                await asyncio.Event().wait()
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


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
    }


def _openai_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{n}", "type": "function", "function": {"name": call.name, "arguments": call.text}}
        for n, call in enumerate(reply.calls)
    ]


def _openai_body(request: Request, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.calls:
        message["tool_calls"] = _openai_calls(reply)
    finish = reply.finish or ("tool_calls" if reply.calls else "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": request.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _usage(reply),
    }


def _openai_stream(request: Request, reply: Reply) -> Iterator[str]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _sse({**frame, "choices": [choice]})

    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request.body["model"]}
    yield chunk({"role": "assistant", "content": ""})
    for piece in reply.pieces[: len(reply.pieces) // 2 or 1] if reply.cut else reply.pieces:
        yield chunk({"content": piece})
    for n, call in enumerate(_openai_calls(reply)):
        text = call["function"]["arguments"]
        head = {**call, "index": n, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield chunk({"tool_calls": [head]})
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            yield chunk({"tool_calls": [{"index": n, "function": {"arguments": part}}]})
    if reply.cut or reply.unfinished:
        return
    yield chunk({}, reply.finish or ("tool_calls" if reply.calls else "stop"))
    options: dict[str, Any] = request.body.get("stream_options") or {}
    if options.get("include_usage"):
        yield _sse({**frame, "choices": [], "usage": _usage(reply)})
    yield "data: [DONE]\n\n"


def _anthropic_blocks(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    for n, call in enumerate(reply.calls):
        blocks.append({"type": "tool_use", "id": f"toolu_{n}", "name": call.name, "input": call.arguments})
    return blocks


def _anthropic_usage(reply: Reply) -> dict[str, int]:
    fresh = reply.input_tokens - reply.cached_tokens
    return {
        "input_tokens": fresh,
        "cache_read_input_tokens": reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": reply.output_tokens,
    }


def _anthropic_body(request: Request, reply: Reply) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request.body["model"],
        "content": _anthropic_blocks(reply),
        "stop_reason": reply.finish or ("tool_use" if reply.calls else "end_turn"),
        "stop_sequence": None,
        "usage": _anthropic_usage(reply),
    }


def _anthropic_stream(request: Request, reply: Reply) -> Iterator[str]:
    def event(kind: str, **data: Any) -> str:
        return f"event: {kind}\n" + _sse({"type": kind, **data})

    whole = _anthropic_body(request, reply)
    yield event("message_start", message={**whole, "content": [], "stop_reason": None})
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            pieces = reply.pieces[: len(reply.pieces) // 2 or 1] if reply.cut else reply.pieces
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
        else:
            yield event("content_block_start", index=index, content_block={**block, "input": {}})
            text = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
            parts = (text[: len(text) // 2], text[len(text) // 2 :])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        if reply.cut:
            return
        yield event("content_block_stop", index=index)
    if reply.unfinished:
        return
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=stop, usage={"output_tokens": reply.output_tokens})
    yield event("message_stop")


def _gemini_frame(reply: Reply, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    usage = {
        "promptTokenCount": reply.input_tokens,
        "candidatesTokenCount": reply.output_tokens,
        "totalTokenCount": reply.input_tokens + reply.output_tokens,
        "cachedContentTokenCount": reply.cached_tokens,
    }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "served-model"}


def _gemini_calls(reply: Reply) -> list[dict[str, Any]]:
    return [{"functionCall": {"name": call.name, "args": call.arguments}} for call in reply.calls]


def _gemini_body(request: Request, reply: Reply) -> dict[str, Any]:
    text = [{"text": reply.text}] if reply.text else []
    return _gemini_frame(reply, text + _gemini_calls(reply), reply.finish or "STOP")


def _gemini_stream(request: Request, reply: Reply) -> Iterator[str]:
    for piece in reply.pieces:
        yield _sse(_gemini_frame(reply, [{"text": piece}], None))
    if not reply.unfinished and not reply.cut:
        yield _sse(_gemini_frame(reply, _gemini_calls(reply), reply.finish or "STOP"))


def _ollama_frame(request: Request, message: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model": request.body["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": "", **message},
        "done": False,
        **more,
    }


def _ollama_body(request: Request, reply: Reply) -> dict[str, Any]:
    calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in reply.calls]
    message: dict[str, Any] = {"content": reply.text, **({"tool_calls": calls} if calls else {})}
    usage = {"prompt_eval_count": reply.input_tokens, "eval_count": reply.output_tokens}
    return _ollama_frame(request, message, done=True, done_reason=reply.finish or "stop", **usage)


def _ollama_stream(request: Request, reply: Reply) -> Iterator[str]:
    for piece in reply.pieces:
        yield json.dumps(_ollama_frame(request, {"content": piece})) + "\n"
    if not reply.unfinished and not reply.cut:
        yield json.dumps(_ollama_body(request, Reply(calls=reply.calls, finish=reply.finish))) + "\n"


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
