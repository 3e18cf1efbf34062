"""`llmling events`: what the engine recorded, and how to mend it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json as jsonlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import typer

from llmling.asks import Ask, ask_of, asked, decision_of, open_asks
from llmling.errors import EngineError
from llmling.firing import open_engine
from llmling.manifest import Manifest
from llmling.protocols import Decision, DeliveryRecord, EventRecord, Step
from llmling.shapes import wanted
from llmling.trace import trace_of
from llmling_cli import console
from llmling_cli.picking import Filter

_HEADERS = ("ID", "TRIGGER", "AGENT", "STATUS", "TRIES", "CREATED", "SECONDS", "COST", "REASON")


def facts(record: EventRecord) -> dict[str, Any]:
    """Return an event as `--json` shows a single one: with its answer, its way through the pool and what it asks."""
    hops = [
        {
            "agent": delivery.agent,
            "status": delivery.status,
            "attempts": delivery.attempts,
            "content": delivery.content,
            "error": delivery.error,
            **({} if delivery.waits_for is None else {"waits_for": delivery.waits_for}),
            **({} if delivery.host is None else {"host": delivery.host}),
        }
        for delivery in record.deliveries
    ]
    shown = {**record.to_dict(), "content": record.content, "hops": hops}
    return {**shown, "asks": asks} if (asks := asked(record)) else shown


def answer_of(record: EventRecord) -> str | None:
    """Return the last answer on the way of an event."""
    return next((delivery.content for delivery in reversed(record.deliveries) if delivery.content is not None), None)


def line(record: EventRecord) -> str:
    """Return one event as one line for people: id, trigger, agent, result, seconds, cost."""
    answer = answer_of(record)
    if record.status == "waiting":
        result = console.paint("waiting", "yellow") + f"  {console.short(console.masked(record.error or ''), 800)}"
    elif record.status == "dead":
        result = console.paint("dead", "red") + f"  {console.short(console.masked(record.error or 'no reason'), 90)}"
    elif record.status == "done" and record.outcome == "ran":
        result = console.paint("done", "green") + (f"  {console.short(answer)}" if answer else "")
    else:
        result = console.paint(record.outcome or record.status, "dim")
        if record.host and not record.waits_for:
            result += f"  at {console.short(record.host, 200)}"
        if record.waits_for:
            result += f"  waits for {console.short(record.waits_for, 200)}"
    took = f"{_seconds(record)} s" if record.finished else "-"
    return f"{record.id}  {record.trigger}  {record.agent}  {result}  {took}  {console.money(record.cost_usd)}"


def show_list(manifest: Manifest, only: Filter, *, limit: int, json: bool) -> None:
    """Print the events the engine recorded, newest first."""
    records = asyncio.run(_list(manifest, only, limit))
    if json:
        for record in records:
            console.say_json(record.to_dict())
    elif records:
        console.say_table([_row(record) for record in records], _HEADERS)
    else:
        status = f" of status {only.status}" if only.status else ""
        console.say(f"no events{status}" if only == Filter(only.status) else f"no such events{status}")


async def _list(manifest: Manifest, only: Filter, limit: int) -> Sequence[EventRecord]:
    records: list[EventRecord] = []
    async with open_engine(manifest) as engine:
        async for record in only.events(engine):
            records.append(record)
            if len(records) == limit:
                break
    return records


def show(manifest: Manifest, event_id: str, *, trace: bool = False, json: bool) -> None:
    """Print one event with its deliveries, or the trace of its runs.

    Raises:
        EngineError: There is no such event.
    """
    record = asyncio.run(_inspect(manifest, event_id))
    if trace:
        _show_trace(record, json=json)
        return
    if json:
        console.say_json(facts(record))
        return
    console.say(line(record))
    console.say(
        console.plain(f"{record.event.type} {record.event.subject}, {_time(record.created)}".replace(" ,", ","))
    )
    for delivery in record.deliveries:
        _show_delivery(delivery)


def _show_trace(record: EventRecord, *, json: bool) -> None:
    for event in trace_of(record):
        if json:
            console.say_json(event.to_dict())
        else:
            text = console.short(console.masked(event.message), 200)
            console.say(f"{_time(event.time.timestamp())}  {event.agent}  {event.type:<13}  {text}")


def _show_delivery(delivery: DeliveryRecord) -> None:
    console.say()
    tries = console.count(delivery.attempts, "try", "tries")
    heading = f"{delivery.agent}  {delivery.status}  {tries}  {console.money(delivery.cost_usd)}"
    console.say(console.paint(heading, "bold"))
    console.say(f"  in   {console.short(delivery.message.text, 200)}")
    if delivery.host:
        console.say(f"  at   {console.short(delivery.host, 200)}")
    if delivery.waits_for:
        console.say(console.paint(f"  waits for {console.short(delivery.waits_for, 200)}", "yellow"))
    for step in delivery.steps:
        _show_step(step)
    if delivery.content is not None:
        console.say(f"  out  {console.plain(delivery.content)}")
    if delivery.error:
        console.say(console.paint(f"  why  {console.plain(console.masked(delivery.error))}", "red"))


def _show_step(step: Step) -> None:
    match step.kind:
        case "choice":
            console.say(console.paint(f"  picked {console.short(str(step.data['member']))}", "dim"))
        case "call" | "result":
            console.say(console.paint(f"  {step.kind:<6} {console.short(str(step.data.get('tool', step.key)))}", "dim"))
        case "asked":
            _show_ask(ask_of(step))
        case "decision":
            said = decision_of(step)
            word = "approved" if said.approved else f"denied {said.reason}".rstrip()
            console.say(console.paint(f"  said   {console.short(said.answer or word, 200)}", "yellow"))
        case _:
            pass


def _show_ask(ask: Ask) -> None:
    lines = [("asked", ask.text), ("told", ask.about)]
    if ask.output_schema is not None:
        lines += [("wants", wanted(ask.output_schema)), ("schema", jsonlib.dumps(ask.output_schema))]
    for word, text in lines:
        if text:
            console.say(console.paint(f"  {word:<6} {console.plain(console.masked(text))}", "yellow"))


async def _inspect(manifest: Manifest, event_id: str) -> EventRecord:
    async with open_engine(manifest) as engine:
        record = await engine.inspect(event_id)
    if record is None:
        raise _unknown(event_id)
    return record


def change(
    manifest: Manifest,
    what: Literal["retry", "drop"],
    event_id: str | None,
    only: Filter,
    *,
    everything: bool,
    json: bool,
) -> int:
    """Retry or drop one event, or all that a filter lets through; print what was done and return the exit code.

    Without a status many events are dead ones: nobody means what runs, or what is done, without saying so.

    Raises:
        EngineError: There is no such event, or only an answer helps it.
    """
    many = only.narrows or everything
    if (event_id is None) != many:
        example = f"events {what} {manifest.named} --status dead"
        raise typer.BadParameter(f"name one event by its ID, or many by a filter or --all: {example}")
    changed = asyncio.run(_change(manifest, what, event_id, replace(only, status=only.status or "dead")))
    for name, number in changed:
        if json:
            console.say_json({"id": name, what: number})
        elif event_id is not None and not number:
            nothing = "has nothing that is dead or waiting" if what == "retry" else "has nothing to drop"
            console.say(f"{name} {nothing}")
    touched = sum(number > 0 for _, number in changed)
    if not json and (touched or many):
        done = "to be tried again" if what == "retry" else "dropped"
        console.say(f"{console.count(touched, 'event')} {done}")
    return 0 if touched or many else 1


async def _change(
    manifest: Manifest, what: Literal["retry", "drop"], event_id: str | None, only: Filter
) -> list[tuple[str, int]]:
    async with open_engine(manifest) as engine:
        if event_id is not None:
            record = await engine.inspect(event_id)
            if record is None:
                raise _unknown(event_id)
            if what == "retry" and _asks_questions_only(record):
                how = f"llmling events answer {manifest.named} {event_id} TEXT"
                raise EngineError(f"{event_id} waits for the answer to a question; use `{how}`")
            ids = [event_id]
        else:
            ids = [record.id async for record in only.events(engine)]
        act = engine.retry if what == "retry" else engine.drop
        # Who names one event has seen what it asks.
        approved = await engine.decide(event_id, Decision()) if event_id is not None and what == "retry" else 0
        return [(name, await act(name) or min(approved, 1)) for name in ids]


def _asks_questions_only(record: EventRecord) -> bool:
    stuck = [delivery for delivery in record.deliveries if delivery.status in {"waiting", "dead"}]
    asks = [open_asks(delivery.steps) if delivery.status == "waiting" else () for delivery in stuck]
    return bool(stuck) and all(any(ask.tool is None for ask in each) for each in asks)


def _unknown(event_id: str) -> EngineError:
    return EngineError(f"no event {event_id!r}; `llmling events list` shows those there are")


def _row(record: EventRecord) -> tuple[str, ...]:
    status = record.outcome if record.status == "done" and record.outcome not in {None, "ran"} else record.status
    return (
        record.id,
        record.trigger,
        record.agent,
        str(status),
        str(record.attempts),
        _time(record.created),
        _seconds(record),
        console.money(record.cost_usd),
        console.short(console.masked(_why(record))),
    )


def _why(record: EventRecord) -> str:
    if record.waits_for is None and record.host is not None:
        return f"runs at {record.host}"
    if record.waits_for is None or record.status == "waiting":
        return record.error or ""
    return f"waits for {record.waits_for}"


def _seconds(record: EventRecord) -> str:
    return "-" if record.finished is None else f"{record.finished - record.created:.1f}"


def _time(created: float) -> str:
    return dt.datetime.fromtimestamp(created, dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
