"""What happened in the runs of an event, read from the steps that were recorded, as the events of their streams."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmling.messages import ToolCallPart
from llmling.records import DeliveryRecord, EventRecord, ModelResponse, Step
from llmling.runtime.stream import RunEvent, RunEventType

_ENDS: frozenset[RunEventType] = frozenset({"run_completed", "run_failed", "run_waiting"})
_ANSWERS = frozenset({"reply", "final"})
# What of a step's key is its run's own; before it stands the run's place, such as "0.0/", "0:member/" or "<path>: ".
_OWN = re.compile(r"(?:\d+(?:\.\d+)?:[\w:]+|\w+:\d+)$")


def trace_of(record: EventRecord) -> list[RunEvent]:
    """Return the events of every run of an event: delivery by delivery, attempt by attempt.

    Each run starts with `run_started` and ends with `run_completed`, `run_failed` or, when a person must decide,
    `run_waiting`, unless it is still going on; one whose process was killed ends with a `run_failed` that says so.
    Pieces of text are not kept.
    """
    return [event for delivery in record.deliveries for event in _Reading(delivery).events()]


class _Reading:
    """The steps of one delivery on their way to events."""

    def __init__(self, delivery: DeliveryRecord) -> None:
        self._delivery = delivery
        self._agents: dict[str, str] = {}
        self._open: dict[str, str] = {}
        self._began: dict[str, float] = {}
        self._last: dict[str, ModelResponse] = {}

    def events(self) -> Iterator[RunEvent]:
        for step in self._delivery.steps:
            scope = _OWN.sub("", step.key)
            if "began" in step.data:
                yield from self._said(step.data["began"], scope)
            match step.kind:
                case "event":
                    yield from self._said(step.data, scope)
                case "reply":
                    yield from self._replied(step, scope)
                case "result" if "run" in step.data:
                    yield self._result(step)
                case _:
                    pass
        yield from self._unended()

    def _said(self, said: Mapping[str, Any], scope: str) -> Iterator[RunEvent]:
        type_, run, message = said["type"], said["run"], said["message"]
        self._agents[run] = said["agent"]
        if type_ == "run_started":
            # What was going on at this place before, or inside of it, cannot be going on any more.
            yield from self._killed([other for other, place in self._open.items() if place.startswith(scope)], said)
            self._open[run] = scope
            self._began[run] = said["time"]
        elif type_ in _ENDS:
            self._open.pop(run, None)
            if type_ == "run_completed" and not message and scope in self._last:
                message = self._last[scope].message.text
        yield self._event(type_, said, message, said["data"])

    def _replied(self, step: Step, scope: str) -> Iterator[RunEvent]:
        response = ModelResponse.from_dict(step.data)
        number, _, purpose = step.key.removeprefix(scope).partition(":")
        answers = purpose in _ANSWERS and not step.data.get("rejected")
        if answers:
            self._last[scope] = response
        if "run" not in step.data:
            return
        iteration = int(number)
        facts = {"iteration": iteration, "model": response.model, "cost_usd": response.cost_usd}
        usage = {"input_tokens": response.usage.input_tokens, "output_tokens": response.usage.output_tokens}
        what = f"request {iteration + 1}" if purpose in _ANSWERS else f"request for the {purpose.rpartition(':')[2]}"
        text = f"{what} to {response.model}"
        yield self._event("model_request", step.data, text, {**facts, **usage})
        for call in response.message.tool_calls:
            yield self._called(step, call)
        if not response.message.tool_calls and answers:
            # A reply that asks for nothing more is the answer.
            run, time = step.data["run"], step.data["time"]
            self._open.pop(run, None)
            took = {"latency_s": round(time - self._began.get(run, time), 3)}
            reason = "max_iterations" if purpose == "final" else response.finish_reason
            facts = {"model": response.model, "stop_reason": reason, **took}
            yield self._event("run_completed", step.data, response.message.text, facts)

    def _called(self, step: Step, call: ToolCallPart) -> RunEvent:
        text = f"{call.name}({call.arguments_json()})"
        return self._event("tool_called", step.data, text, {"tool": call.name, "call_id": call.id})

    def _result(self, step: Step) -> RunEvent:
        facts = {"tool": step.data["tool"], "call_id": step.data["call_id"]}
        type_: RunEventType = "tool_failed" if step.data["failed"] else "tool_result"
        return self._event(type_, step.data, step.data["response"], facts)

    def _unended(self) -> Iterator[RunEvent]:
        """End what has no end although the delivery has, and a delivery that died before any run began."""
        delivery = self._delivery
        if delivery.status == "running":
            return
        last = delivery.steps[-1] if delivery.steps else None
        if self._open and last is not None:
            yield from self._killed(list(self._open), last.data)
        if not self._agents and delivery.status == "dead":
            facts = {"time": delivery.finished or delivery.created, "run": delivery.id}
            self._agents[delivery.id] = delivery.agent
            yield self._event("run_failed", facts, delivery.error or "", {})

    def _killed(self, runs: list[str], after: Mapping[str, Any]) -> Iterator[RunEvent]:
        # The innermost first, as they would have ended by themselves.
        for run in reversed(runs):
            del self._open[run]
            facts = {"run": run, "time": after.get("time", self._delivery.created)}
            yield self._event("run_failed", facts, "the process ended during this run", {"error": "ProcessEnded"})

    def _event(self, type_: RunEventType, data: Mapping[str, Any], message: str, facts: Mapping[str, Any]) -> RunEvent:
        time = dt.datetime.fromtimestamp(data["time"], dt.UTC)
        agent = self._agents.get(data["run"], self._delivery.agent)
        return RunEvent(type_, data["run"], agent, message, {**facts, "delivery": self._delivery.id}, None, time)
