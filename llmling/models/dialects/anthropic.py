"""The format of Anthropic's messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmling.models.dialects.base import Dialect, StreamFailed, Unusual, count, fields, items, text
from llmling.models.sse import Events
from llmling.models.tariff import Tokens
from llmling.models.wire import Answer

_FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "content_filtered": "content_filter",
    "compaction": "length",
    "pause_turn": "length",
    "model_context_window_exceeded": "length",
}
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_NO_MATTER = frozenset({"input_tokens", "output_tokens", "cache_read_input_tokens", "service_tier", "inference_geo"})


def _whole(data: Any, answer: Answer) -> None:
    body = fields(data)
    reason, usage, blocks = body.get("stop_reason"), fields(body.get("usage")), items(body.get("content"))
    if reason not in _FINISHED or not usage or not _tokens(usage).plain:
        raise Unusual
    for place, block in enumerate(map(fields, blocks)):
        kind = block.get("type")
        if kind == "text":
            answer.texts.append(text(block["text"]))
        elif kind == "tool_use":
            draft = answer.call(place)
            draft.id, draft.name, draft.arguments = block["id"], block["name"], json.dumps(block["input"])
        elif kind not in _THOUGHTS:
            raise Unusual
    answer.finish_reason = _FINISHED[reason]
    answer.usage = usage


def _piece(data: Any, answer: Answer) -> str:
    event = fields(data)
    kind, said = event.get("type"), ""
    if kind == "content_block_delta":
        said = _add(answer, event["index"], fields(event["delta"]))
    elif kind == "content_block_start":
        said = _start(answer, event["index"], fields(event["content_block"]))
    elif kind == "message_start":
        answer.usage = fields(fields(event["message"]).get("usage"))
    elif kind == "message_delta":
        answer.usage = {**(answer.usage or {}), **_told(fields(event.get("usage")))}
        reason = fields(event["delta"]).get("stop_reason")
        answer.finish_reason = _FINISHED.get(reason, "stop") if reason else answer.finish_reason
    elif kind == "error":
        error = fields(event.get("error"))
        raise StreamFailed(str(error.get("message") or error), None)
    # Anything else is a ping or the end of something.
    if said:
        answer.texts.append(said)
    return said


def _add(answer: Answer, index: int, delta: dict[str, Any]) -> str:
    if delta.get("type") == "input_json_delta":
        answer.call(index).arguments += text(delta["partial_json"])
    return text(delta["text"]) if delta.get("type") == "text_delta" else ""


def _start(answer: Answer, index: int, block: dict[str, Any]) -> str:
    if block.get("type") == "tool_use":
        draft = answer.call(index)
        draft.id, draft.name = block["id"], block["name"]
    return text(block.get("text")) if block.get("type") == "text" else ""


def _told(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    cached, made = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    read, written = count(usage.get("input_tokens")) + cached + made, count(usage.get("output_tokens"))
    plain = all(not value or name in _NO_MATTER for name, value in usage.items() if name != "cache_creation")
    said = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": made,
    }
    return Tokens(read, cached, written, plain, said)


ANTHROPIC = Dialect(Events, _whole, _piece, _tokens)
