"""`llmling spec`: a manifest as a document of Agent Spec, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from llmling.agentspec import dump, translate
from llmling.errors import StartupError
from llmling.manifest import Manifest
from llmling_cli import console


def export(manifest: Manifest, name: str | None, output: Literal["json", "yaml"]) -> None:
    """Print a pool, or one of its agents or teams, as a document of Agent Spec."""
    try:
        console.write(dump(manifest, output, name=name))
    except LookupError as error:
        raise StartupError(str(error.args[0]), usage=True) from None


def take_in(path: Path, tools: str | None) -> None:
    """Print a document of Agent Spec as a manifest; what a person should look at goes to standard error."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise StartupError(f"cannot read {path}: {reason}", usage=True) from None
    found = translate(text, name=str(path), tools=tools, folder=path.absolute().parent)
    console.write(found.text)
    for note in found.notes:
        console.complain(f"note: {note}", "yellow")
