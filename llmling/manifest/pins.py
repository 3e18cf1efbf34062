"""The lock file beside a manifest: what the tools of MCP servers were like when a person last accepted them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from llmling.manifest.base import Config
from llmling.manifest.interpolate import Values
from llmling.manifest.nodes import Entry, ScalarNode
from llmling.manifest.parse import MAX_BYTES, decode, parse
from llmling.manifest.problems import Place, Report, Source
from llmling.manifest.reading import read_file
from llmling.manifest.shape import Shapes

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class PinsConfig(Config):
    """What `llmling lock` writes."""

    version: Literal[1]
    """Format of the file."""
    mcp_servers: dict[str, dict[str, Digest]] = Field(default={})
    """The digest of each tool's definition, by server and tool."""


_PINS = TypeAdapter(PinsConfig)


@dataclass(frozen=True, slots=True)
class Pins:
    """The accepted tools by server; `accept` is the command that accepts those there are."""

    path: Path
    accept: str
    servers: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


def pins_path(manifest: Path) -> Path:
    """Return where the lock file of a manifest is: `agents.yml.lock` beside `agents.yml`."""
    return manifest.with_name(f"{manifest.name}.lock")


def read_pins(manifest: Path, source: Source, accept: str, report: Report) -> Pins | None:
    """Return what the lock file of a manifest says, None when there is none; its mistakes go to the report."""
    path = pins_path(manifest)
    try:
        data = read_file(path, MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        report.add(Place(source), "LL001", f"cannot be read: {(error.strerror or str(error)).lower()}")
        return None
    again = f"delete it, then write it anew with `{accept}`"
    if len(data) > MAX_BYTES:
        report.add(Place(source), "LL003", f"a lock file has at most {MAX_BYTES:,} bytes", hint=again)
        return None
    text = decode(data, source, report)
    root = None if text is None else parse(text, source, report, again)
    if root is None:
        return None
    key = ScalarNode(source, root.start, root.end, source.name, plain=False)
    part = Shapes(report, Values(None, report)).validate(_PINS, Entry(key, root), ())
    return None if part is None else Pins(path, accept, part.config.mcp_servers)
