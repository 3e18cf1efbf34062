"""What model providers are asked and what they answer, in their wire formats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Wire = Literal["openai", "anthropic", "gemini", "ollama", "bedrock"]


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
    of the answer, `hang_after` streams that many pieces of text and then nothing more until `resume` is set,
    `unfinished` ends a stream properly but without its finish reason. `usage_unasked` tells the usage of a stream also
    to who has not asked for it. `raw` is sent as the body, with `status`.
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
    resume: asyncio.Event | None = None
    finish: str | None = None
    input_tokens: int = 11
    cached_tokens: int = 0
    output_tokens: int = 7
    usage_unasked: bool = False
    raw: str | bytes | None = None

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
        return (
            bool(self.body.get("stream", self.wire == "ollama"))
            or ":stream" in self.path
            or self.path.endswith("-stream")
        )

    @property
    def last_text(self) -> str:
        if self.wire == "gemini":
            return "".join(part.get("text", "") for part in self.body["contents"][-1]["parts"])
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


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


def openai_body(request: Request, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.calls:
        message["tool_calls"] = _openai_calls(reply)
    finish = reply.finish or ("tool_calls" if reply.calls else "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": request.body.get("model", "a-deployment"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _usage(reply),
        "service_tier": "default",
    }


def openai_stream(request: Request, reply: Reply) -> Iterator[str]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _sse({**frame, "choices": [choice]})

    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request.body.get("model")}
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
    if options.get("include_usage") or reply.usage_unasked:
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


def anthropic_body(request: Request, reply: Reply) -> dict[str, Any]:
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


def anthropic_stream(request: Request, reply: Reply) -> Iterator[str]:
    def event(kind: str, **data: Any) -> str:
        return f"event: {kind}\n" + _sse({"type": kind, **data})

    whole = anthropic_body(request, reply)
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


def gemini_body(request: Request, reply: Reply) -> dict[str, Any]:
    text = [{"text": reply.text}] if reply.text else []
    return _gemini_frame(reply, text + _gemini_calls(reply), reply.finish or "STOP")


def gemini_stream(request: Request, reply: Reply) -> Iterator[str]:
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


def ollama_body(request: Request, reply: Reply) -> dict[str, Any]:
    calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in reply.calls]
    message: dict[str, Any] = {"content": reply.text, **({"tool_calls": calls} if calls else {})}
    usage = {"prompt_eval_count": reply.input_tokens, "eval_count": reply.output_tokens}
    return _ollama_frame(request, message, done=True, done_reason=reply.finish or "stop", **usage)


def ollama_stream(request: Request, reply: Reply) -> Iterator[str]:
    for piece in reply.pieces:
        yield json.dumps(_ollama_frame(request, {"content": piece})) + "\n"
    if not reply.unfinished and not reply.cut:
        yield json.dumps(ollama_body(request, Reply(calls=reply.calls, finish=reply.finish))) + "\n"


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
