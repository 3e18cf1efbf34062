"""Entries of a demo script: what `demo:script.yml` answers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from llmling.manifest.base import Config, Count, Seconds


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
