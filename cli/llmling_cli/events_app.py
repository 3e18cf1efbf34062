"""The commands of `llmling events`; the work is in the module named beside it, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from llmling_cli.arguments import (
    All,
    AnyEventId,
    EventId,
    File,
    Json,
    OnlyAgent,
    OnlyError,
    OnlySince,
    OnlyStatus,
    OnlyTrigger,
    work,
)

events_app = typer.Typer(help="Events the engine recorded, also while `serve` runs.", no_args_is_help=True)


@events_app.command("list")
def events_list(
    file: File,
    status: OnlyStatus = None,
    trigger: OnlyTrigger = None,
    agent: OnlyAgent = None,
    since: OnlySince = None,
    error: OnlyError = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest first.")] = 100,
    json: Json = False,
) -> None:
    """List events, newest first."""
    only = work("picking").Filter.of(status and status.value, trigger, agent, since, error)
    manifest = work("opening").open_events(file)
    work("events").show_list(manifest, only, limit=limit, json=json)


@events_app.command("show")
def events_show(
    file: File,
    event_id: EventId,
    trace: Annotated[bool, typer.Option("--trace", help="Show every step of its runs instead.")] = False,
    json: Json = False,
) -> None:
    """Show one event: what came in, every delivery, every answer."""
    manifest = work("opening").open_events(file)
    work("events").show(manifest, event_id, trace=trace, json=json)


@events_app.command("retry")
def events_retry(
    file: File,
    event_id: AnyEventId = None,
    status: OnlyStatus = None,
    trigger: OnlyTrigger = None,
    agent: OnlyAgent = None,
    since: OnlySince = None,
    error: OnlyError = None,
    everything: All = False,
    json: Json = False,
) -> None:
    """Run events again: one by its ID, which also approves its tool calls, or many: dead ones unless --status says."""
    only = work("picking").Filter.of(status and status.value, trigger, agent, since, error)
    manifest = work("opening").open_events(file)
    raise typer.Exit(work("events").change(manifest, "retry", event_id, only, everything=everything, json=json))


@events_app.command("drop")
def events_drop(
    file: File,
    event_id: AnyEventId = None,
    status: OnlyStatus = None,
    trigger: OnlyTrigger = None,
    agent: OnlyAgent = None,
    since: OnlySince = None,
    error: OnlyError = None,
    everything: All = False,
    json: Json = False,
) -> None:
    """Give up open events or forget settled ones: one by its ID, or many: dead ones unless --status says."""
    only = work("picking").Filter.of(status and status.value, trigger, agent, since, error)
    manifest = work("opening").open_events(file)
    raise typer.Exit(work("events").change(manifest, "drop", event_id, only, everything=everything, json=json))


@events_app.command("approve")
def events_approve(file: File, event_id: EventId, json: Json = False) -> None:
    """Allow the tool calls an event waits with."""
    manifest = work("opening").open_events(file)
    raise typer.Exit(work("decisions").settle(manifest, "approve", event_id, "", json=json))


@events_app.command("deny")
def events_deny(
    file: File,
    event_id: EventId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What the model reads about it.")] = "",
    json: Json = False,
) -> None:
    """Refuse the tool calls an event waits with; its run goes on without them."""
    manifest = work("opening").open_events(file)
    raise typer.Exit(work("decisions").settle(manifest, "deny", event_id, reason, json=json))


@events_app.command("answer")
def events_answer(
    file: File,
    event_id: EventId,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Absent: standard input.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Answer the question an event waits with."""
    answer = work("opening").prompt(text, what="answer")
    manifest = work("opening").open_events(file)
    raise typer.Exit(work("decisions").settle(manifest, "answer", event_id, answer, json=json))
