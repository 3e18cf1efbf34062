"""The arguments commands share, and where their work is."""

from __future__ import annotations

import importlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from llmling import garbage


class LogFormat(StrEnum):
    """How log records look on standard error."""

    text = "text"
    json = "json"


class ProblemFormat(StrEnum):
    """How `validate` prints problems; `github`: annotations of a workflow run."""

    text = "text"
    json = "json"
    github = "github"


class GraphFormat(StrEnum):
    """How `graph` draws."""

    mermaid = "mermaid"
    svg = "svg"


class SpecFormat(StrEnum):
    """How `spec export` writes."""

    json = "json"
    yaml = "yaml"


class Template(StrEnum):
    """What `init` starts from."""

    watch = "watch"
    webhook = "webhook"
    team = "team"
    mcp = "mcp"
    schedule = "schedule"


class Status(StrEnum):
    """Where an event stands."""

    pending = "pending"
    running = "running"
    waiting = "waiting"
    done = "done"
    dead = "dead"


File: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="The manifest.", show_default=False)]
Model: TypeAlias = Annotated[
    str | None, typer.Option(metavar="M", help="Model of every agent, such as ollama/llama3.2 or demo.")
]
Record: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="F", help="Keep every model request and its answer in a cassette beside the manifest."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
EventId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="An event's id.", show_default=False)]
AnyEventId: TypeAlias = Annotated[str | None, typer.Argument(metavar="ID", help="An event's id.", show_default=False)]
OnlyStatus: TypeAlias = Annotated[Status | None, typer.Option("--status", help="Only events of this status.")]
OnlyTrigger: TypeAlias = Annotated[str | None, typer.Option("--trigger", help="Only events of this trigger.")]
OnlyAgent: TypeAlias = Annotated[str | None, typer.Option("--agent", help="Only events of this agent.")]
OnlySince: TypeAlias = Annotated[
    str | None, typer.Option("--since", metavar="AGE", help="Only events that came in the last 30s, 15m, 2h or 7d.")
]
OnlyError: TypeAlias = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="Only events whose reason has this text.")
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="Every dead event.")]


def work(module: str) -> Any:
    """Return a module of the command line, imported now."""
    # The one place that imports late: --help and validate must not pay for aiohttp, litellm or mcp.
    with garbage.held(imports=True):
        return importlib.import_module(f"llmling_cli.{module}")
