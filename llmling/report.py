"""What a pool is made of and how its parts are, for people and for `--json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class AgentState:
    """An agent: `ready`, `starting` (an MCP server is not up yet) or `degraded` (works without a part)."""

    name: str
    model: str
    state: Literal["ready", "starting", "degraded"]
    reason: str = ""
    tools: int = 0


@dataclass(frozen=True, slots=True)
class TriggerState:
    """A trigger that is armed, and the URL, folder or times it listens to."""

    name: str
    type: str
    agent: str
    place: str


@dataclass(frozen=True, slots=True)
class ServerState:
    """An MCP server; `seconds` is the time its last start took, None before."""

    name: str
    state: str
    reason: str = ""
    tools: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StartReport:
    """Everything at once; `notices` are lines a person should read, such as that a demo model answers."""

    agents: tuple[AgentState, ...] = ()
    triggers: tuple[TriggerState, ...] = ()
    servers: tuple[ServerState, ...] = ()
    server_url: str | None = None
    notices: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data JSON can hold."""
        return asdict(self)
