"""Reading a trace from steps: attempts that have no end, because their process had one."""

from __future__ import annotations

from typing import Any

from llmling.events import Event
from llmling.messages import Message, ToolCallPart
from llmling.protocols import DeliveryRecord, EventRecord, EventStatus, ModelResponse, Step
from llmling.trace import trace_of


def said(run: str, type_: str, time: float, scope: str = "", agent: str = "a") -> Step:
    data: dict[str, Any] = {"type": type_, "agent": agent, "message": "", "data": {}, "run": run, "time": time}
    return Step(f"{scope}{run}:0", "event", data)


def reply(run: str, time: float, text: str, scope: str = "", number: int = 0, purpose: str = "reply") -> Step:
    response = ModelResponse(Message.assistant(text), model="demo").to_dict()
    return Step(f"{scope}{number}:{purpose}", "reply", {**response, "run": run, "time": time})


def told(steps: list[Step], status: EventStatus = "done", error: str | None = None) -> list[tuple[str, str, str]]:
    settled: dict[str, Any] = {"content": None, "error": error, "cost_usd": None, "created": 1.0, "finished": 9.0}
    delivery = DeliveryRecord("e/a", "a", status, 2, 0, Message.user("x"), steps=tuple(steps), **settled)
    event = Event("hook", "test", id="e")
    record = EventRecord("e", "hook", "a", status, None, 2, 1.0, 9.0, None, error, event, (delivery,))
    return [(event.run_id, event.type, event.message) for event in trace_of(record)]


def test_an_attempt_whose_process_was_killed_ends_when_the_next_one_starts() -> None:
    call = ModelResponse(Message("assistant", (ToolCallPart("c", "look", {}),)), model="demo").to_dict()
    asked = Step("0:reply", "reply", {**call, "run": "1", "time": 2.0, "began": said("1", "run_started", 1).data})
    steps = [asked, said("2", "run_started", 3), reply("2", 4, "done", number=1)]
    assert told(steps) == [
        ("1", "run_started", ""),
        ("1", "model_request", "request 1 to demo"),
        ("1", "tool_called", "look({})"),
        ("1", "run_failed", "the process ended during this run"),
        ("2", "run_started", ""),
        ("2", "model_request", "request 2 to demo"),
        ("2", "run_completed", "done"),
    ]


def test_a_run_whose_answer_was_recorded_before_says_so_itself() -> None:
    steps = [said("1", "run_started", 1), reply("1", 2, "done"), said("2", "run_started", 3)]
    steps.append(said("2", "run_completed", 4))
    assert told(steps)[2:] == [("1", "run_completed", "done"), ("2", "run_started", ""), ("2", "run_completed", "done")]


def test_plans_and_summaries_are_no_answers_and_the_last_turn_is_one() -> None:
    steps = [said("1", "run_started", 1), reply("1", 2, "first look", purpose="plan")]
    steps += [reply("1", 3, "so far", purpose="reply:fit:summary"), reply("1", 4, "done", number=1, purpose="final")]
    assert told(steps)[1:] == [
        ("1", "model_request", "request for the plan to demo"),
        ("1", "model_request", "request for the summary to demo"),
        ("1", "model_request", "request 2 to demo"),
        ("1", "run_completed", "done"),
    ]


def test_runs_inside_a_killed_one_end_before_it() -> None:
    steps = [said("1", "run_started", 1), said("2", "run_started", 2, "0.0/", "b")]
    assert told([*steps, said("3", "run_started", 3)], "pending")[2:] == [
        ("2", "run_failed", "the process ended during this run"),
        ("1", "run_failed", "the process ended during this run"),
        ("3", "run_started", ""),
        ("3", "run_failed", "the process ended during this run"),
    ]
    assert told(steps, "running") == [("1", "run_started", ""), ("2", "run_started", "")]


def test_members_of_a_team_run_side_by_side() -> None:
    steps = [said("1", "run_started", 1, "0:a/"), said("2", "run_started", 2, "1:b/")]
    steps += [reply("2", 3, "B", "1:b/"), reply("1", 3, "A", "0:a/")]
    assert [event for event in told(steps) if event[1] == "run_completed"] == [
        ("2", "run_completed", "B"),
        ("1", "run_completed", "A"),
    ]


def test_agents_from_outside_the_manifest_run_behind_the_one_before() -> None:
    steps = [said("1", "run_started", 1), reply("1", 2, "A")]
    for run, place in (("2", "e/a/b: "), ("3", "e/a/c: ")):
        steps += [said(run, "run_started", 3, place, place[-3]), reply(run, 4, place[-3].upper(), place)]
    assert [event for event in told(steps) if event[1] == "run_completed"] == [
        ("1", "run_completed", "A"),
        ("2", "run_completed", "B"),
        ("3", "run_completed", "C"),
    ]


def test_what_died_before_any_run_has_its_reason() -> None:
    assert told([], "dead", "agent 'a', session: it is null") == [
        ("e/a", "run_failed", "agent 'a', session: it is null")
    ]
    assert told([]) == []


def test_steps_of_an_earlier_release_are_left_out() -> None:
    old = Step("0:reply", "reply", ModelResponse(Message.assistant("x")).to_dict())
    assert told([old, Step("0.0:result", "result", {"response": "x", "failed": False})]) == []
