"""One exchange with a model as plain data, the way a cassette keeps it, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmling.errors import ModelError
from llmling.manifest.cassettes import CassetteAnswer, CassetteCall, CassetteEntry, CassetteError, CassetteMessage
from llmling.messages import Message, Part, TextPart, ToolCallPart, ToolCallResponsePart, Usage
from llmling.protocols import ModelRequest, ModelResponse, ToolSpec


def request_data(request: ModelRequest) -> dict[str, Any]:
    """Return what was asked; neither time limits nor tries are part of it."""
    data: dict[str, Any] = {"messages": [_message(message) for message in request.messages]}
    if request.tools:
        data["tools"] = [_tool(tool) for tool in request.tools]
    if request.output_schema is not None:
        data["output"] = dict(request.output_schema)
    if request.settings:
        data["settings"] = dict(request.settings)
    return data


def recorded_request(entry: CassetteEntry) -> dict[str, Any]:
    """Return what was asked when a cassette was recorded, in the form of `request_data`."""
    request = entry.exchange.request
    messages = tuple(_recorded_message(message) for message in request.messages)
    tools = tuple(ToolSpec(tool.name, tool.description, tool.parameters) for tool in entry.tools)
    return request_data(ModelRequest(messages, tools, request.output, request.settings))


def identity(request: Mapping[str, Any]) -> str:
    """Return a text that is the same for two requests that ask the same; ids of tool calls do not count."""
    return json.dumps(_without_ids(request), sort_keys=True, ensure_ascii=False, default=str)


def _without_ids(request: Mapping[str, Any]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for message in request["messages"]:
        plain: dict[str, Any] = dict(message)
        for part in ("tool_calls", "results"):
            if part in plain:
                plain[part] = [{key: value for key, value in item.items() if key != "id"} for item in plain[part]]
        messages.append(plain)
    return {**request, "messages": messages}


def answer_data(response: ModelResponse, asked: str) -> dict[str, Any]:
    """Return an answer; `asked` is the name of the model, which is not repeated."""
    message = _message(response.message)
    data = {key: message[key] for key in ("text", "tool_calls") if key in message}
    data["finish_reason"] = response.finish_reason
    if response.model and response.model != asked:
        data["model"] = response.model
    data["usage"] = {
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
    }
    if response.cost_usd is not None:
        data["cost_usd"] = response.cost_usd
    if response.demo:
        data["demo"] = True
    return data


def error_data(error: ModelError, text: str) -> dict[str, Any]:
    """Return a failure; `text` is what a stream had brought by then."""
    data: dict[str, Any] = {"message": str(error)}
    if error.status is not None:
        data["status"] = error.status
    if error.provider:
        data["provider"] = error.provider
    data["retryable"] = error.retryable
    if error.retry_after_s is not None:
        data["retry_after_s"] = error.retry_after_s
    if error.attempts != 1:
        data["attempts"] = error.attempts
    if error.too_long:
        data["too_long"] = True
    if text:
        data["text"] = text
    return data


def response_of(answer: CassetteAnswer, asked: str) -> ModelResponse:
    """Return the answer as it was given."""
    calls = tuple(_call(call, place) for place, call in enumerate(answer.tool_calls))
    texts: tuple[Part, ...] = (TextPart(answer.text),) if answer.text or not calls else ()
    return ModelResponse(
        Message("assistant", (*texts, *calls)),
        Usage(answer.usage.input_tokens, answer.usage.output_tokens, requests=1),
        answer.model or asked,
        answer.finish_reason,
        answer.cost_usd,
        answer.demo,
    )


def error_of(error: CassetteError) -> ModelError:
    """Return the failure as it was raised, but for the time to wait: there is nobody to wait for."""
    return ModelError(
        error.message,
        status=error.status,
        provider=error.provider,
        attempts=error.attempts,
        retryable=error.retryable,
        retry_after_s=0.0 if error.retryable else None,
        too_long=error.too_long,
    )


def _message(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"role": message.role}
    if message.text:
        data["text"] = message.text
    if calls := message.tool_calls:
        data["tool_calls"] = [{"id": call.id, "name": call.name, "arguments": _arguments(call)} for call in calls]
    if results := [part for part in message.parts if isinstance(part, ToolCallResponsePart)]:
        data["results"] = [_result(result) for result in results]
    return data


def _arguments(call: ToolCallPart) -> dict[str, Any] | str:
    return call.arguments if isinstance(call.arguments, str) else dict(call.arguments)


def _result(result: ToolCallResponsePart) -> dict[str, Any]:
    failed = {"failed": True} if result.failed else {}
    return {"id": result.id, "name": result.name, "response": result.response, **failed}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def _call(call: CassetteCall, place: int) -> ToolCallPart:
    return ToolCallPart(call.id or f"call_{place}", call.name, call.arguments)


def _recorded_message(message: CassetteMessage) -> Message:
    parts: list[Part] = [TextPart(message.text)] if message.text else []
    parts += [_call(call, place) for place, call in enumerate(message.tool_calls)]
    parts += [ToolCallResponsePart(part.id, part.name, part.response, part.failed) for part in message.results]
    return Message(message.role, tuple(parts))
