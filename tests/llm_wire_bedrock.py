"""What Bedrock's converse API answers, with the framing of its streams."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from llm_wires import Reply, Request


def bedrock_body(request: Request, reply: Reply) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [{"text": reply.text}] if reply.text else []
    blocks += [
        {"toolUse": {"toolUseId": f"tool_{n}", "name": call.name, "input": call.arguments}}
        for n, call in enumerate(reply.calls)
    ]
    return {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": reply.finish or ("tool_use" if reply.calls else "end_turn"),
        "usage": _usage(reply),
        "metrics": {"latencyMs": 1},
    }


def bedrock_stream(request: Request, reply: Reply) -> Iterator[bytes]:
    yield frame("messageStart", {"role": "assistant"})
    pieces = reply.pieces[: len(reply.pieces) // 2 or 1] if reply.cut else reply.pieces
    for piece in pieces:
        yield frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}})
    if reply.cut:
        return
    if pieces:
        yield frame("contentBlockStop", {"contentBlockIndex": 0})
    for n, call in enumerate(reply.calls, start=bool(pieces)):
        start = {"toolUse": {"toolUseId": f"tool_{n}", "name": call.name}}
        yield frame("contentBlockStart", {"contentBlockIndex": n, "start": start})
        for part in (call.text[: len(call.text) // 2], call.text[len(call.text) // 2 :]):
            yield frame("contentBlockDelta", {"contentBlockIndex": n, "delta": {"toolUse": {"input": part}}})
        yield frame("contentBlockStop", {"contentBlockIndex": n})
    if not reply.unfinished:
        yield frame("messageStop", {"stopReason": reply.finish or ("tool_use" if reply.calls else "end_turn")})
        yield frame("metadata", {"usage": _usage(reply), "metrics": {"latencyMs": 1}})


def _usage(reply: Reply) -> dict[str, int]:
    fresh = reply.input_tokens - reply.cached_tokens
    total = reply.input_tokens + reply.output_tokens
    return {
        "inputTokens": fresh,
        "outputTokens": reply.output_tokens,
        "totalTokens": total,
        "cacheReadInputTokens": reply.cached_tokens,
        "cacheWriteInputTokens": 0,
    }


def frame(event: str, payload: dict[str, Any], kind: str = "event") -> bytes:
    """Return one event of a stream, or an exception."""
    names = {f":{kind}-type": event, ":content-type": "application/json", ":message-type": kind}
    heads = b"".join(
        struct.pack(f"!B{len(name)}sBH{len(value)}s", len(name), name.encode(), 7, len(value), value.encode())
        for name, value in names.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(heads) + len(body), len(heads))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + heads + body
    return message + struct.pack("!I", zlib.crc32(message))
