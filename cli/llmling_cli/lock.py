"""`llmling lock`: accept the tools of MCP servers as they are."""

from __future__ import annotations

import asyncio
import dataclasses

from llmling.locking import lock as accept
from llmling.manifest import Manifest
from llmling_cli import console

_MARKS = {"new": "+", "changed": "~", "gone": "-"}


def lock(manifest: Manifest, *, check: bool, json: bool, debug: bool) -> int:
    """Write the lock file, or with `check` only compare; print what differs and return the exit code."""
    console.log_to_stderr("text", debug=debug)
    changes = asyncio.run(accept(manifest, write=not check))
    for change in changes:
        if json:
            console.say_json(dataclasses.asdict(change))
            continue
        told = f"  {console.short(console.masked(change.description), 100)}" if change.description else ""
        console.say(console.plain(f"{_MARKS[change.what]} {change.server}  {change.tool}  {change.what}") + told)
    if not json:
        difference = console.count(len(changes), "difference")
        console.say(f"{difference}, nothing written" if check else f"{manifest.path}.lock: {difference} accepted")
    return 1 if check and changes else 0
