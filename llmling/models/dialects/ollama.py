"""The format of Ollama's chat endpoint; its streams are read by litellm, one value a line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from llmling.models.dialects.base import Dialect, StreamFailed, Unusual, count, fields, items, text
from llmling.models.sse import Lines
from llmling.models.tariff import Tokens
from llmling.models.wire import Answer

_FINISHED = frozenset({"stop", "length"})


def _whole(data: Any, answer: Answer) -> None:
    body = fields(data)
    message, reason = fields(body.get("message")), body.get("done_reason") or "stop"
    read, written = body.get("prompt_eval_count"), body.get("eval_count")
    said = text(message.get("content"))
    if type(read) is not int or type(written) is not int or said.startswith("<") or reason not in _FINISHED:
        raise Unusual
    calls = [_wanted(fields(call)) for call in items(message.get("tool_calls"))]
    for position, (call_id, name, arguments) in enumerate(calls):
        draft = answer.call(position)
        draft.id, draft.name, draft.arguments = call_id, name, arguments
    if said:
        answer.texts.append(said)
    answer.finish_reason = "tool_calls" if calls else reason
    answer.usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _wanted(call: dict[str, Any]) -> tuple[str, str, str]:
    function = fields(call.get("function"))
    name = text(function.get("name"))
    if not name:
        raise Unusual
    return text(call.get("id")) or f"call_{uuid.uuid4()}", name, json.dumps(fields(function.get("arguments")))


def _piece(data: Any, answer: Answer) -> str:
    if error := fields(data).get("error"):
        raise StreamFailed(str(error), None)
    raise Unusual


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    read, written = count(usage["prompt_tokens"]), count(usage["completion_tokens"])
    return Tokens(read, 0, written, plain=True, said=usage)


OLLAMA = Dialect(Lines, _whole, _piece, _tokens)
