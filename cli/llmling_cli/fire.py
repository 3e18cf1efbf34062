"""`llmling fire`: one event by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmling.errors import StartupError
from llmling.firing import FireResult
from llmling.firing import fire as send
from llmling.manifest import Manifest
from llmling_cli import console, logs
from llmling_cli.events import answer_of, facts, line


def fire(
    manifest: Manifest,
    trigger: str,
    *,
    file: Path | None,
    given: Mapping[str, Any],
    dry_run: bool,
    model: str | None,
    record: str | None,
    json: bool,
    debug: bool,
) -> int:
    """Send one event through a trigger, print what became of it and return the exit code.

    `given` holds `data` when there is any.
    """
    logs.log_to_stderr("text", debug=debug)
    try:
        sent = send(manifest, trigger, file=file, dry_run=dry_run, model=model, record=record, **given)
        result = asyncio.run(sent)
    except LookupError as error:
        raise StartupError(str(error.args[0]), usage=True) from None
    if dry_run:
        _print_dry(result, json=json)
        return 0
    if json:
        console.say_json(
            {**(facts(result.record) if result.record else {"id": result.event.id}), "served": result.served}
        )
    elif result.record is not None:
        console.say(line(result.record))
        console.say("run by the serving process" if result.served else "run here: no process serves this manifest")
        if (answer := answer_of(result.record)) is not None:
            console.say()
            console.say(console.plain(answer))
        if result.record.error is not None:
            console.complain(result.record.error, "red")
    if result.why_not:
        console.complain(f"! the trigger itself would not have taken it: {result.why_not}", "yellow")
    return 0 if result.record is not None and result.record.status == "done" else 1


def _print_dry(result: FireResult, *, json: bool) -> None:
    if json:
        console.say_json(
            {
                "event": result.event.to_dict(),
                "agent": result.agent,
                "wanted": result.wanted,
                "prompt": result.prompt,
                "key": result.key,
                "why_not": result.why_not,
            }
        )
        return
    console.say(console.plain(f"event   {result.event.type} {result.event.subject}".rstrip()))
    console.say(f"agent   {result.agent}")
    console.say(f"match   {'no: ' + result.why_not if result.why_not else 'yes'}")
    console.say(f"filter  {'lets it through' if result.wanted else 'stops it: it would be recorded as filtered'}")
    if result.key is not None:
        console.say(console.plain(f"key     {result.key}"))
    if result.prompt is not None:
        console.say(console.plain(f"prompt\n\n{result.prompt}"))
