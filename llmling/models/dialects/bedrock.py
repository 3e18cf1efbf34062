"""The format of Bedrock's Converse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmling.models.dialects.base import Dialect, Unusual, count, fields, items, text
from llmling.models.frames import Frames
from llmling.models.tariff import Tokens
from llmling.models.wire import Answer

_FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "model_context_window_exceeded": "length",
}
_COUNTS = frozenset({
    "inputTokens", "outputTokens", "totalTokens", "cacheReadInputTokens", "cacheReadInputTokenCount",
    "serverToolUsage",
})  # fmt: skip


def _whole(data: Any, answer: Answer) -> None:
    body = fields(data)
    reason, usage = body.get("stopReason"), fields(body.get("usage"))
    blocks = items(fields(fields(body.get("output")).get("message")).get("content"))
    if reason not in _FINISHED or not _plain(usage) or body.get("additionalModelResponseFields"):
        raise Unusual
    for place, block in enumerate(map(fields, blocks)):
        if "text" in block and len(block) == 1:
            answer.texts.append(text(block["text"]))
        elif "toolUse" in block and len(block) == 1:
            wanted, draft = fields(block["toolUse"]), answer.call(place)
            draft.id, draft.name = wanted["toolUseId"], wanted["name"]
            draft.arguments = json.dumps(wanted["input"])
        else:
            raise Unusual
    if "".join(answer.texts).lstrip().startswith(("<", "{")):  # it may think aloud first, or write a call as text
        raise Unusual
    answer.finish_reason = _FINISHED[reason]
    answer.usage = usage


def _piece(data: Any, answer: Answer) -> str:
    event = fields(data)
    if "delta" in event:
        return _add(answer, event)
    if "start" in event:
        block = fields(event["start"])
        if "toolUse" not in block:
            raise Unusual
        draft, wanted = answer.call(event["contentBlockIndex"]), fields(block["toolUse"])
        draft.id, draft.name = wanted["toolUseId"], wanted["name"]
    elif "stopReason" in event:
        reason = event["stopReason"]
        if reason not in _FINISHED or event.get("additionalModelResponseFields"):
            raise Unusual
        finished = _FINISHED[reason]
        answer.finish_reason = "tool_calls" if finished == "stop" and answer.calls else finished
    elif "usage" in event:
        usage = fields(event["usage"])
        if not _plain(usage):
            raise Unusual
        answer.usage = usage
    # Anything else is the beginning or the end of something.
    return ""


def _add(answer: Answer, event: dict[str, Any]) -> str:
    delta = fields(event["delta"])
    if "text" in delta:
        said = text(delta["text"])
        if said:
            answer.texts.append(said)
        return said
    if "toolUse" not in delta:
        raise Unusual
    answer.call(event["contentBlockIndex"]).arguments += text(fields(delta["toolUse"]).get("input"))
    return ""


def _plain(usage: Mapping[str, Any]) -> bool:
    return (
        "inputTokens" in usage
        and "outputTokens" in usage
        and all(not value or name in _COUNTS for name, value in usage.items())
    )


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    cached = count(usage.get("cacheReadInputTokens") or usage.get("cacheReadInputTokenCount"))
    read, written = count(usage["inputTokens"]) + cached, count(usage["outputTokens"])
    said = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return Tokens(read, cached, written, plain=True, said=said)


BEDROCK = Dialect(Frames, _whole, _piece, _tokens, stays=True)
