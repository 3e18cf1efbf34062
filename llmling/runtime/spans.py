"""The spans llmling makes: of a run, a team, a try of a model request, a tool call and an event."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmling.events import Event
from llmling.messages import RunResult
from llmling.protocols import EventRecord, ModelRequest, ModelResponse
from llmling.runtime import semconv
from llmling.runtime.tracing import OpenSpan, Place, Span, current_span, new_trace, tracer

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?")

# --- runs and teams -------------------------------------------------------------------------------------------------


def run_span(agent: str, model: str, run_id: str, event: Event) -> OpenSpan:
    """Begin the span of one run of an agent: below what runs here, else at the top of its event's trace."""
    name, same = _run(agent, model)
    attributes = {
        **same,
        semconv.RUN_ID: run_id,
        semconv.EVENT_ID: event.id,
        semconv.EVENT_SOURCE: event.source,
    }
    return OpenSpan(name, current_span() or _sender(event), attributes, _add_up)


def run_completed(span: OpenSpan, model: str, finish_reason: str) -> tuple[Span, ...]:
    """End the span of a run that answered; returns the run's tries and tool calls and, last, itself."""
    provider, name = semconv.provider_and_model(model)
    if provider is not None:
        span.attributes[semconv.PROVIDER] = provider
    span.attributes[semconv.RESPONSE_MODEL] = name
    span.attributes[semconv.FINISH_REASONS] = (finish_reason,)
    return (*span.children, span.end())


def team_span(team: str, event: Event) -> OpenSpan:
    """Begin the span of one answer of a team."""
    attributes = {
        semconv.OPERATION: "invoke_workflow",
        semconv.WORKFLOW_NAME: team,
        semconv.EVENT_ID: event.id,
        semconv.EVENT_SOURCE: event.source,
    }
    return OpenSpan(f"invoke_workflow {team}", current_span() or _sender(event), attributes, _add_up)


def team_completed(span: OpenSpan, results: Sequence[RunResult]) -> tuple[Span, ...]:
    """End the span of a team that answered; returns the spans of its members' runs and, last, itself."""
    return (*(inner for result in results for inner in result.spans), span.end())


def _add_up(span: OpenSpan) -> None:
    # What was spent counts also when the run failed; an agent asked by a tool is a run of its own.
    read = written = retries = 0
    cost_usd: float | None = None
    for child in tuple(span.children):
        found = child.attributes.get
        read += found(semconv.INPUT_TOKENS, 0)
        written += found(semconv.OUTPUT_TOKENS, 0)
        retries += found(semconv.RETRIES, 1 if semconv.RESEND_COUNT in child.attributes else 0)
        if (cost := found(semconv.COST_USD)) is not None:
            cost_usd = (cost_usd or 0.0) + cost
    attributes = span.attributes
    attributes[semconv.INPUT_TOKENS], attributes[semconv.OUTPUT_TOKENS] = read, written
    attributes[semconv.RETRIES] = retries
    if cost_usd is not None:
        attributes[semconv.COST_USD] = cost_usd


# --- tries and tool calls -------------------------------------------------------------------------------------------


def chat_span(model: str, request: ModelRequest, tries_before: int) -> OpenSpan:
    """Begin the span of one try of a model request: one request to a provider, one span."""
    parent = current_span()
    name, same = _chat(model)
    attributes = dict(same)
    if isinstance(parent, OpenSpan) and (agent := parent.attributes.get(semconv.AGENT_NAME)) is not None:
        attributes[semconv.AGENT_NAME] = agent
    if tries_before:
        attributes[semconv.RESEND_COUNT] = tries_before
    if request.output_schema is not None:
        attributes[semconv.OUTPUT_TYPE] = "json"
    for setting, value in request.settings.items():
        if setting in semconv.SETTINGS:
            attributes[semconv.SETTINGS[setting]] = value
    place = parent or new_trace()
    return OpenSpan(name, place, attributes)


def chat_answered(span: OpenSpan, response: ModelResponse) -> None:
    """End the span of a try that brought an answer."""
    attributes = span.attributes
    if response.model:
        attributes[semconv.RESPONSE_MODEL] = semconv.provider_and_model(response.model)[1]
    attributes[semconv.FINISH_REASONS] = (response.finish_reason,)
    attributes[semconv.INPUT_TOKENS] = response.usage.input_tokens
    attributes[semconv.OUTPUT_TOKENS] = response.usage.output_tokens
    if response.cost_usd is not None:
        attributes[semconv.COST_USD] = response.cost_usd
    if response.demo:
        attributes[semconv.DEMO] = True
    span.end()


def tool_span(agent: str, tool: str, call_id: str, *, known: bool = True) -> OpenSpan:
    """Begin the span of one tool call, inside the run that makes it; a model may also make up a tool."""
    attributes = {
        semconv.OPERATION: "execute_tool",
        semconv.TOOL_NAME: tool,
        semconv.TOOL_CALL_ID: call_id,
        semconv.AGENT_NAME: agent,
    }
    if not known:
        attributes[semconv.ERROR_TYPE] = semconv.UNKNOWN_TOOL
    return OpenSpan(f"execute_tool {tool}", current_span() or new_trace(), attributes)


# --- events ---------------------------------------------------------------------------------------------------------


def event_place(event: Event) -> Place:
    """Return the place of an event's own span: the same in every process and after every restart."""
    return _places(event)[1]


def event_settled(record: EventRecord) -> None:
    """Add the span of an event that is done or dead: from its commit to its end, all its hops below it."""
    if record.finished is None or not (record.outcome == "ran" or record.status == "dead"):
        return
    sender, place = _places(record.event)
    attributes: dict[str, Any] = {
        semconv.OPERATION: "process",
        semconv.EVENT_ID: record.id,
        semconv.EVENT_SOURCE: record.event.source,
        semconv.EVENT_TYPE: record.event.type,
    }
    if record.cost_usd is not None:
        attributes[semconv.COST_USD] = record.cost_usd
    dead = record.status == "dead"
    if dead:
        attributes[semconv.ERROR_TYPE] = "dead"
    tracer().add(
        Span(
            f"process {record.trigger}",
            place.trace_id,
            place.span_id or "",
            sender.span_id,
            record.created,
            (record.finished - record.created) * 1000,
            "error" if dead else "ok",
            (record.error or "dead") if dead else None,
            attributes,
        )
    )


def _sender(event: Event) -> Place:
    """Return where the sender of an event was in its trace, by the W3C header `traceparent`; else a trace of its own.

    The trace of an event without that header follows from its id, so that every hop of its chain, in any process and
    on any attempt, has the same.
    """
    return _told(event) or _made(event.id)[0]


def _places(event: Event) -> tuple[Place, Place]:
    """Return the place of the sender of an event and the event's own; asked for by each of its hops, and at its end."""
    own, told = _kept(event.id), _told(event)
    return own if told is None else (told, Place(told.trace_id, own[1].span_id))


def _told(event: Event) -> Place | None:
    for name, value in event.headers.items():
        if name.lower() != "traceparent":
            continue
        found = _TRACEPARENT.fullmatch(value.strip())
        if found is not None and found["trace"].strip("0") and found["span"].strip("0"):
            return Place(found["trace"], found["span"])
    return None


def _made(event_id: str) -> tuple[Place, Place]:
    found = hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
    return Place(found[:32]), Place(found[:32], found[32:])


# For as many events as a busy pool has under way.
_kept = functools.lru_cache(maxsize=1024)(_made)

# Names and attributes that are the same in every run of an agent, and in every try of a model.


@functools.lru_cache(maxsize=256)
def _run(agent: str, model: str) -> tuple[str, Mapping[str, Any]]:
    return f"invoke_agent {agent}", {semconv.OPERATION: "invoke_agent", semconv.AGENT_NAME: agent, **_model(model)}


@functools.lru_cache(maxsize=256)
def _chat(model: str) -> tuple[str, Mapping[str, Any]]:
    named = _model(model)
    return f"chat {named[semconv.REQUEST_MODEL]}", {semconv.OPERATION: "chat", **named}


def _model(name: str) -> Mapping[str, str]:
    provider, model = semconv.provider_and_model(name)
    named = {} if provider is None else {semconv.PROVIDER: provider}
    return {**named, semconv.REQUEST_MODEL: model}
