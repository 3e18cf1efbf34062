"""The format of Gemini's `generateContent`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from llmling.models.dialects.base import Dialect, StreamFailed, Unusual, count, fields, items, text
from llmling.models.sse import Events
from llmling.models.tariff import Tokens
from llmling.models.wire import Answer

_FINISHED = {"STOP": "stop", "MAX_TOKENS": "length"}
_FLAGGED = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "OTHER", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
})  # fmt: skip
_READ = frozenset({"text", "thought", "thoughtSignature", "functionCall"})
_COUNTS = frozenset({
    "promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount", "cachedContentTokenCount",
    "trafficType",
})  # fmt: skip
_BY_KIND = frozenset({"promptTokensDetails", "candidatesTokensDetails", "cacheTokensDetails"})
_SIGNED = "__thought__"
"""Between the id of a tool call and the signature of the thought behind it, which go back together; as in litellm."""


def _whole(data: Any, answer: Answer) -> None:
    body = fields(data)
    candidates, usage = items(body.get("candidates")), fields(body.get("usageMetadata"))
    if not candidates or not usage or body.get("promptFeedback"):
        raise Unusual
    candidate = _candidate(candidates[0])
    reason = candidate.get("finishReason")
    if reason not in _FINISHED:
        raise Unusual
    for part in _parts(candidate):
        _add(answer, part)
    _count(answer, usage)
    answer.finish_reason = "tool_calls" if answer.calls else _FINISHED[reason]


def _piece(data: Any, answer: Answer) -> str:
    body = fields(data)
    if "error" in body:
        raise _failure(body["error"])
    candidates, usage = items(body.get("candidates")), fields(body.get("usageMetadata"))
    candidate = _candidate(candidates[0]) if candidates else {}
    reason, parts = candidate.get("finishReason"), _parts(candidate)
    if body.get("promptFeedback") or (reason is not None and reason not in _FINISHED and reason not in _FLAGGED):
        raise Unusual
    if usage:
        _count(answer, usage)
    said = "".join([_add(answer, part) for part in parts])
    if reason is not None:
        finished = _FINISHED.get(reason, "content_filter")
        calls = answer.calls and (finished == "stop" or any("functionCall" in part for part in parts))
        answer.finish_reason = "tool_calls" if calls else finished
    return said


def _candidate(value: Any) -> dict[str, Any]:
    candidate = fields(value)
    if "groundingMetadata" in candidate:  # it has searched, which costs
        raise Unusual
    return candidate


def _parts(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [fields(part) for part in items(fields(candidate.get("content")).get("parts"))]
    for part in parts:
        if not _READ.issuperset(part) or text(part.get("text")).startswith("data:audio"):
            raise Unusual
        if "functionCall" in part and not text(fields(part["functionCall"]).get("name")):
            raise Unusual
    return parts


def _add(answer: Answer, part: dict[str, Any]) -> str:
    if "functionCall" in part:
        wanted, signature = part["functionCall"], part.get("thoughtSignature")
        draft = answer.call(len(answer.calls))
        draft.id = wanted.get("id") or f"call_{uuid.uuid4().hex[:28]}"
        if signature:
            draft.id = f"{draft.id}{_SIGNED}{signature}"
        draft.name, draft.arguments = wanted["name"], json.dumps(wanted.get("args", {}), ensure_ascii=False)
    said = text(part.get("text"))
    if not said or part.get("thought") is True:
        return ""
    answer.texts.append(said)
    return said


def _count(answer: Answer, usage: dict[str, Any]) -> None:
    for name, value in usage.items():
        # Tokens of pictures and sounds have prices of their own, and so has what tools have read.
        others = [kind for kind in items(value) if fields(kind).get("modality") != "TEXT"] if name in _BY_KIND else ()
        if others or (value and name not in _COUNTS and name not in _BY_KIND):
            raise Unusual
    answer.usage = usage


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    read, said = count(usage.get("promptTokenCount")), count(usage.get("candidatesTokenCount"))
    cached, thought = count(usage.get("cachedContentTokenCount")), count(usage.get("thoughtsTokenCount"))
    total = count(usage.get("totalTokenCount"))
    written = said if read + said == total else said + thought  # some count the thoughts in what is said
    words = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    return Tokens(read, cached, written, plain=True, said=words)


def _failure(error: Any) -> StreamFailed:
    if type(error) is not dict:
        return StreamFailed(f"Unexpected error format in mid-stream chunk: {error}", 500)
    said: dict[str, Any] = fields(error)
    code = said.get("code", 500)
    status = int(code) if str(code).isdigit() else 500
    return StreamFailed(f"{said.get('status', 'UNKNOWN')} - {said.get('message', 'Unknown error')}", status)


GEMINI = Dialect(Events, _whole, _piece, _tokens, stays=True)
