"""Every command but those of `events`; the work is in the module named beside it, imported when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from llmling import __version__, garbage
from llmling.errors import EngineBusy, LLMlingError, ManifestError, StartupError
from llmling_cli import console
from llmling_cli.arguments import (
    File,
    GraphFormat,
    Json,
    LogFormat,
    Model,
    ProblemFormat,
    Record,
    SpecFormat,
    Template,
    work,
)
from llmling_cli.events_app import events_app

app = typer.Typer(
    name="llmling",
    help="Run a pool of LLM agents described in a YAML manifest.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(events_app, name="events")
spec_app = typer.Typer(help="Documents of Oracle Agent Spec.", no_args_is_help=True)
app.add_typer(spec_app, name="spec")


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"llmling {__version__}")
        raise typer.Exit


def debugging() -> bool:
    """Return whether tracebacks are wanted."""
    return os.environ.get("LLMLING_DEBUG", "") not in {"", "0"}


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and log everything; also LLMLING_DEBUG=1.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run a pool of LLM agents described in a YAML manifest."""
    if debug:
        os.environ["LLMLING_DEBUG"] = "1"
    console.hide_environment()


@app.command()
def serve(
    file: File,
    model: Model = None,
    record: Record = None,
    json: Json = False,
    log_format: Annotated[LogFormat, typer.Option(help="Log records on standard error.")] = LogFormat.text,
    no_reload: Annotated[
        bool, typer.Option("--no-reload", help="Reload on SIGHUP only, not whenever the manifest changes.")
    ] = False,
) -> None:
    """Run the pool until Ctrl+C or SIGTERM.

    The first signal lets running work finish; a second one ends it at once. A changed manifest is reloaded while it
    runs, and on SIGHUP.
    """
    manifest = work("opening").announce(file, json=json)
    raise typer.Exit(
        work("serve").serve(
            manifest,
            model=model,
            record=record,
            json=json,
            log_format=log_format.value,
            debug=debugging(),
            follow=not no_reload,
        )
    )


@app.command()
def run(
    file: File,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="An agent or team.", show_default=False)],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Absent: standard input.", show_default=False)
    ] = None,
    model: Model = None,
    record: Record = None,
    json: Json = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
) -> None:
    """Run one agent once and print its answer."""
    text = work("opening").prompt(prompt)
    manifest = work("opening").open_manifest(file)
    raise typer.Exit(
        work("run").run(manifest, agent, text, model=model, record=record, json=json, stream=stream, debug=debugging())
    )


@app.command()
def validate(
    file: File,
    output: Annotated[ProblemFormat, typer.Option("--format", help="How to print problems.")] = ProblemFormat.text,
) -> None:
    """Show every problem of a manifest, with its place."""
    raise typer.Exit(work("validate").validate(file, output.value))


@app.command()
def plan(file: File, json: Json = False) -> None:
    """Show what would run, without running it."""
    manifest = work("opening").open_manifest(file)
    work("plan").show(manifest, json=json)


@app.command()
def graph(
    file: File,
    output: Annotated[GraphFormat, typer.Option("--format", help="How to draw.")] = GraphFormat.mermaid,
) -> None:
    """Draw triggers, agents, teams and sinks."""
    manifest = work("opening").open_manifest(file)
    work("graph").show(manifest, output.value)


@app.command()
def lock(
    file: File,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 when something differs.")] = False,
    json: Json = False,
) -> None:
    """Accept the tools of all MCP servers as they are now.

    They are written to FILE.lock; a tool that changes later, or is new, is then refused.
    """
    manifest = work("opening").open_manifest(file)
    raise typer.Exit(work("lock").lock(manifest, check=check, json=json, debug=debugging()))


@app.command()
def fire(
    file: File,
    trigger: Annotated[str, typer.Argument(metavar="TRIGGER", help="Name of a trigger.", show_default=False)],
    payload: Annotated[
        Path | None, typer.Option("--file", metavar="F", help="What a file trigger sees, or a webhook's body.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="The event's data.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
    model: Model = None,
    record: Record = None,
    json: Json = False,
) -> None:
    """Send one event through a trigger.

    It goes into the serving process when there is one, else it is run here.
    """
    event_data = work("opening").event_data(data)
    manifest = work("opening").open_manifest(file)
    raise typer.Exit(
        work("fire").fire(
            manifest,
            trigger,
            file=payload,
            given=event_data,
            dry_run=dry_run,
            model=model,
            record=record,
            json=json,
            debug=debugging(),
        )
    )


@spec_app.command("export")
def spec_export(
    file: File,
    agent: Annotated[
        str | None, typer.Argument(metavar="AGENT", help="An agent or team; absent: the pool.", show_default=False)
    ] = None,
    output: Annotated[SpecFormat, typer.Option("--format", help="How to write.")] = SpecFormat.json,
) -> None:
    """Print a pool, or one of its agents or teams, as a document of Agent Spec."""
    manifest = work("opening").open_manifest(file)
    work("spec").export(manifest, agent, output.value)


@spec_app.command("import")
def spec_import(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A document of Agent Spec, JSON or YAML.", show_default=False)
    ],
    tools: Annotated[
        str | None, typer.Option(metavar="MODULE", help="Python module that has the document's tools, by their names.")
    ] = None,
) -> None:
    """Print a document of Agent Spec as a manifest."""
    work("spec").take_in(file, tools)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    template: Annotated[Template, typer.Option(help="What to start from.")] = Template.watch,
) -> None:
    """Make a project that `serve` runs at once."""
    work("init").init(folder, template.value)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the manifest."""
    work("validate").schema()


@app.command()
def doctor(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A manifest.", show_default=False)] = None,
) -> None:
    """Check what a pool needs on this machine."""
    raise typer.Exit(work("doctor").doctor(file))


def main() -> None:
    """Run the command line; never a traceback for bad input."""
    garbage.own_process()
    try:
        get_command(app)(prog_name="llmling")
    except ManifestError as error:
        console.complain(str(error))
        sys.exit(2)
    except LLMlingError as error:
        console.fail(error, debug=debugging())
        sys.exit(2 if isinstance(error, EngineBusy) or (isinstance(error, StartupError) and error.usage) else 1)
    except Exception as error:  # noqa: BLE001 - the border: what nobody foresaw becomes one line
        if debugging():
            console.fail(error, debug=True)
        else:
            console.complain(f"error: {type(error).__name__}: {error}", "red")
            console.complain("This is a defect of llmling or of the code it was given; --debug shows where.")
        sys.exit(1)
