"""Reading what a command was given: the manifest, a prompt, the data of an event."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Any

import typer

from llmling import __version__
from llmling.manifest import Manifest, load, load_engine
from llmling_cli import console


def open_manifest(path: Path) -> Manifest:
    """Return the manifest of a file.

    Raises:
        ManifestError: It has problems; all of them are in it.
    """
    manifest = load(path)
    console.hide(manifest.secrets)
    return manifest


def open_events(path: Path) -> Manifest:
    """Return what a file says of where its events are; whoever mends them needs no manifest that is whole.

    Raises:
        ManifestError: Its `engine:` cannot be read.
    """
    return load_engine(path)


def announce(path: Path, *, json: bool) -> Manifest:
    """Open a manifest and say so, before anything slow is imported."""
    manifest = open_manifest(path)
    if not json:
        console.say(f"llmling {__version__} · {path} · {console.count(len(manifest.agents), 'agent')}")
    return manifest


def prompt(argument: str | None, *, what: str = "prompt") -> str:
    """Return the prompt of `run`, or what a person says: the argument, else standard input."""
    if argument is None and sys.stdin.isatty():
        console.complain(f"reading the {what} from standard input; end it with Ctrl+D")
    text = sys.stdin.read() if argument is None else argument
    if not text.strip():
        raise typer.BadParameter(f"the {what} is empty: pass it as an argument or on standard input")
    return text


def event_data(text: str | None) -> dict[str, Any]:
    """Return `fire --data` as the argument it is, a JSON value that may be null; without it, none."""
    if text is None:
        return {}
    try:
        return {"data": jsonlib.loads(text)}
    except ValueError as error:
        raise typer.BadParameter(f"--data is not valid JSON: {error}") from None
