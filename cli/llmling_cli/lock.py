"""`llmling lock`: accept the tools of MCP servers as they are."""

from __future__ import annotations

import asyncio
import dataclasses

from llmling.locking import lock as accept
from llmling.manifest import Manifest
from llmling_cli import console, logs

_MARKS = {"new": "+", "changed": "~", "gone": "-"}


def lock(manifest: Manifest, *, check: bool, json: bool, debug: bool) -> int:
    """Write the lock file, or with `check` only compare; print what differs and return the exit code."""
    logs.log_to_stderr("text", debug=debug)
    changes = asyncio.run(accept(manifest, write=not check))
    for change in changes:
        if json:
            console.say_json(dataclasses.asdict(change))
            continue
        told = (change.server, change.tool, change.what, change.description)
        console.say(f"{_MARKS[change.what]} " + "  ".join(_whole(text) for text in told).rstrip())
    if not json:
        difference = console.count(len(changes), "difference")
        console.say(f"{difference}, nothing written" if check else f"{manifest.path}.lock: {difference} accepted")
    return 1 if check and changes else 0


def _whole(text: str) -> str:
    # A person accepts what there is to be seen: all of it, and on one line, so that no name makes a line of its own.
    return console.short(console.masked(text), 10 * len(text))
