"""The format of OpenAI's chat completions, which most providers write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmling.models.dialects.base import Dialect, StreamFailed, Unusual, count, fields, items, text
from llmling.models.sse import Events
from llmling.models.tariff import Tokens
from llmling.models.wire import Answer

_FINISHED = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
_NO_MATTER = frozenset({
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
    "prompt_cache_hit_tokens", "prompt_cache_miss_tokens",
    "queue_time", "prompt_time", "completion_time", "total_time",
})  # fmt: skip
"""What providers say of their tokens that bears on no price we reckon; anything more is for litellm."""
_CACHED, _THOUGHT = frozenset({"cached_tokens", "text_tokens"}), frozenset({"reasoning_tokens", "text_tokens"})


def _whole(data: Any, answer: Answer) -> None:
    body = fields(data)
    if body.get("error") or "choices" not in body:
        raise Unusual
    choices = items(body["choices"])
    if not choices:
        raise ValueError("it holds no choice, so nothing was said")
    choice = fields(choices[0])
    message = fields(choice["message"])
    said, calls = text(message.get("content")), items(message.get("tool_calls"))
    reason = choice.get("finish_reason") or "stop"
    if said.startswith("<") or reason not in _FINISHED or "executed_tools" in message:
        raise Unusual  # it may think aloud first, or have searched, which costs
    for position, (name, function, arguments) in enumerate([_wanted(fields(call)) for call in calls]):
        draft = answer.call(position)
        draft.id, draft.name, draft.arguments = name, function, arguments
    if said:
        answer.texts.append(said)
    answer.finish_reason = "tool_calls" if reason == "stop" and calls else reason
    answer.usage = body.get("usage")


def _wanted(call: dict[str, Any]) -> tuple[str, str, str]:
    function = fields(call.get("function"))
    wanted = text(call.get("id")), text(function.get("name")), text(function.get("arguments"))
    if not all(wanted) or call.get("type", "function") != "function" or wanted[1] == "multi_tool_use.parallel":
        raise Unusual
    return wanted


def _piece(data: Any, answer: Answer) -> str:
    body = fields(data)
    if error := body.get("error"):
        raise _failure(error)
    choices = items(body.get("choices"))
    if not choices:
        answer.usage = body.get("usage") or answer.usage
        return ""
    choice = fields(choices[0])
    delta = fields(choice.get("delta"))
    said, calls, reason = text(delta.get("content")), delta.get("tool_calls"), choice.get("finish_reason")
    if calls is not None or reason is not None:
        _more(answer, items(calls), reason)
    answer.usage = body.get("usage") or answer.usage
    if said:
        answer.texts.append(said)
    return said


def _more(answer: Answer, calls: list[Any], reason: Any) -> None:
    if reason is not None and reason not in _FINISHED:
        raise Unusual
    for position, each in enumerate(calls):
        _add(answer, position, fields(each))
    if reason is not None:
        answer.finish_reason = "tool_calls" if reason == "stop" and answer.calls else reason


def _add(answer: Answer, position: int, call: dict[str, Any]) -> None:
    index = call.get("index")
    draft, function = answer.call(position if index is None else index), fields(call.get("function"))
    draft.id = draft.id or text(call.get("id"))
    draft.name = draft.name or text(function.get("name"))
    draft.arguments += text(function.get("arguments"))


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    details, more = fields(usage.get("prompt_tokens_details")), fields(usage.get("completion_tokens_details"))
    cached = count(usage.get("prompt_cache_hit_tokens") or details.get("cached_tokens"))
    plain = _NO_MATTER.issuperset(usage) and _no_other(details, _CACHED) and _no_other(more, _THOUGHT)
    return Tokens(count(usage.get("prompt_tokens")), cached, count(usage.get("completion_tokens")), plain, usage)


OPENAI = Dialect(Events, _whole, _piece, _tokens)


def _no_other(details: Mapping[str, Any], names: frozenset[str]) -> bool:
    return names.issuperset(details) or all(name in names for name, value in details.items() if value)


def _failure(error: Any) -> StreamFailed:
    if type(error) is str:
        return StreamFailed(error, None)
    said = fields(error)
    code = said.get("code")
    return StreamFailed(str(said.get("message") or said), code if type(code) is int else None)
