"""One tool of an MCP server, and what is said about it; light, without the SDK."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from llmling.protocols import ToolSpec


class ConnectionLost(Exception):
    """The connection to a server ended; `sent` is False when the request surely never reached it."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@dataclass(slots=True)
class Attempt:
    """One request of ours; `refused` once it is certain that it could not be sent."""

    refused: bool = False


current_attempt: ContextVar[Attempt | None] = ContextVar("llmling_mcp_attempt", default=None)


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool as the server describes it.

    `repeatable` when it is marked read-only or idempotent, `destructive` unless it is marked read-only or harmless.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    repeatable: bool
    destructive: bool

    @property
    def digest(self) -> str:
        """What changes with all that a model reads about it and all that decides whether a person is asked."""
        said = [self.name, self.description, self.parameters, self.repeatable, self.destructive]
        text = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode(errors='replace')).hexdigest()}"


class Caller(Protocol):
    """The server behind a tool."""

    @property
    def name(self) -> str:
        """Name of the server."""
        ...

    @property
    def call_timeout_s(self) -> float:
        """Longest time for one call, in seconds."""
        ...

    async def call(self, tool: str, arguments: Mapping[str, Any], *, repeatable: bool) -> str:
        """Call a tool by the server's own name for it."""
        ...


class McpTool:
    """One tool of an MCP server, under a name that every model accepts."""

    approval = None

    def __init__(self, server: Caller, name: str, offer: Offer) -> None:
        self.spec = ToolSpec(name, offer.description, offer.parameters)
        self.repeatable = offer.repeatable
        self.destructive = offer.destructive
        self.original_name = offer.name
        self.digest = offer.digest
        self._server = server

    def __repr__(self) -> str:
        return f"McpTool({self.spec.name!r})"

    @property
    def origin(self) -> str:
        """Whose tool it is, whatever it is called here."""
        return f"{self.original_name} of MCP server {self._server.name}"

    @property
    def timeout_s(self) -> float | None:
        """The server's `call_timeout_s`."""
        return self._server.call_timeout_s

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Call it and return its result as text; cancelling tells the server to stop.

        Raises:
            ToolError: The tool failed, took too long, or its server is not available.
        """
        return await self._server.call(self.original_name, arguments, repeatable=self.repeatable)
