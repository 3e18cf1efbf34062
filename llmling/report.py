"""What a pool is made of and how its parts are, for people and for `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias


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


Parts: TypeAlias = Mapping[str, tuple[str, ...]]
_WORDS = {"agents": "agent", "teams": "team", "mcp_servers": "MCP server", "triggers": "trigger", "pool": "key"}


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of a manifest that was read anew.

    `added`, `changed`, `removed` and `kept` are names by section: `agents`, `teams`, `mcp_servers`, `triggers`, and in
    `changed` also `pool` for `limits` and `budget`. `changed` are those that were built anew, or joined to others. When
    it was not `applied`, `problems` say why and everything runs as before. `restart` are keys that stay as they were
    until the next start.
    """

    applied: bool
    added: Parts = field(default_factory=dict[str, tuple[str, ...]])
    changed: Parts = field(default_factory=dict[str, tuple[str, ...]])
    removed: Parts = field(default_factory=dict[str, tuple[str, ...]])
    kept: Parts = field(default_factory=dict[str, tuple[str, ...]])
    restart: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.applied:
            first = self.problems[0].splitlines()[0] if self.problems else "no reason is known"
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            return f"not reloaded: {first}{more}"
        told = [
            _told(section, names, how)
            for section in _WORDS
            for how, parts in (("changed", self.changed), ("added", self.added), ("removed", self.removed))
            if (names := parts.get(section))
        ]
        restart = f"; restart to apply: {', '.join(self.restart)}" if self.restart else ""
        return f"reloaded: {', '.join(told) or 'nothing changed'}{restart}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data JSON can hold."""
        return asdict(self)


def _told(section: str, names: tuple[str, ...], how: str) -> str:
    plural = "" if len(names) == 1 else "s"
    return f"{len(names)} {_WORDS[section]}{plural} {how} ({', '.join(names)})"
