"""`llmling init`: a project that `serve` runs at once."""

from __future__ import annotations

import importlib.resources
import json
from importlib.resources.abc import Traversable
from pathlib import Path

from llmling.errors import LLMlingError
from llmling.manifest import json_schema
from llmling_cli import console

_GITIGNORE = ".llmling/\n.env\n__pycache__/\n"


def init(folder: Path, template: str) -> None:
    """Write the files of a template into a new or empty folder; nothing is written when it has anything in it.

    Raises:
        LLMlingError: The folder is not empty, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise LLMlingError(f"{folder} {what}; nothing was written. Name a new folder: llmling init my-pool")
        source = importlib.resources.files("llmling_cli") / "templates" / template
        written = _copy(source, folder)
        _write(folder / "llmling.schema.json", json.dumps(json_schema(), indent=2) + "\n")
        _write(folder / ".gitignore", _GITIGNORE)
    except OSError as error:
        raise LLMlingError(f"{error.filename or folder}: {error.strerror or error}") from error
    for path in sorted(written):
        console.say(f"  {path}")
    console.say(f"now: cd {folder} && llmling serve agents.yml")


def _copy(source: Traversable, target: Path) -> list[Path]:
    written: list[Path] = []
    for item in source.iterdir():
        path = target / item.name
        if item.is_dir():
            # Python leaves its cache beside a template's module when somebody imports it in place.
            written += _copy(item, path) if item.name != "__pycache__" else []
        else:
            _write(path, item.read_text(encoding="utf-8"))
            written.append(path)
    return written


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
