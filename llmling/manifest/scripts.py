"""A demo script: what `demo:script.yml` answers, entry by entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from llmling.manifest.base import Config, Count, Seconds
from llmling.manifest.interpolate import Values
from llmling.manifest.nodes import Entry, ScalarNode, SequenceNode
from llmling.manifest.parse import MAX_BYTES, decode, parse
from llmling.manifest.problems import Place, Report, Source
from llmling.manifest.reading import read_file
from llmling.manifest.shape import Shapes


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _error(value: Any) -> Any:
    return value if not isinstance(value, str) or not value.isdigit() else int(value)


class ScriptCall(Config):
    """A tool call of a scripted reply."""

    name: str
    """The tool."""
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What it is called with."""


class ScriptUsage(Config):
    """Tokens a scripted reply says it used."""

    input_tokens: int = Field(default=0, ge=0)
    """Tokens of the request."""
    output_tokens: int = Field(default=0, ge=0)
    """Tokens of the answer."""


class ScriptEntry(Config):
    """One entry of a script."""

    match: Annotated[str, AfterValidator(_pattern)] = ""
    """Regular expression searched for in the last message; absent: it fits every one."""
    reply: str = ""
    """The answer."""
    tool_calls: list[ScriptCall] = Field(default_factory=list[ScriptCall])
    """Tools it asks for."""
    delay_s: Seconds = 0.0
    """How long it takes, in seconds."""
    error: Annotated[Literal[429, 500, "timeout"] | None, BeforeValidator(_error)] = None
    """How it fails instead."""
    usage: ScriptUsage | None = None
    """Tokens it says it used; absent: counted."""
    times: Count | None = None
    """How often it answers; absent: always."""


_ENTRY = TypeAdapter(ScriptEntry)
_START = "write entries such as - {match: ..., reply: ...}"


def read_script(path: Path, source: Source, report: Report) -> list[ScriptEntry]:
    """Return the entries of a script; every mistake in it goes to the report, at its place in `source`.

    The text follows the rules of the manifest, except that `${...}` in it means itself.

    Raises:
        OSError: The file cannot be read.
    """
    data = read_file(path, MAX_BYTES)
    if len(data) > MAX_BYTES:
        report.add(Place(source), "LL003", f"a demo script has at most {MAX_BYTES:,} bytes", hint="shorten it")
        return []
    text = decode(data, source, report)
    root = None if text is None else parse(text, source, report, _START)
    if root is not None and not isinstance(root, SequenceNode):
        report.add(root.place, "LL311", "a demo script is a list", hint=_START)
    if not isinstance(root, SequenceNode):
        return []
    entries: list[ScriptEntry] = []
    shapes = Shapes(report, Values(None, report))
    for index, item in enumerate(root.items):
        key = ScalarNode(source, item.start, item.end, str(index), plain=False)
        part = shapes.validate(_ENTRY, Entry(key, item), ("script", index))
        if part is not None:
            entries.append(part.config)
    return entries
