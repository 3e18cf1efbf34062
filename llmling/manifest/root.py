"""The manifest itself: what a whole file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, PrivateAttr, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from llmling.manifest.agents import AgentConfig, TeamConfig
from llmling.manifest.base import Config, Count, Named, Port, RelativePath, Seconds, plugged
from llmling.manifest.tools import McpServerConfig
from llmling.manifest.triggers import LOOPBACK

Loc: TypeAlias = tuple[str | int, ...]


class SqliteEngineConfig(Config):
    """Keeps events in one SQLite file; for one machine."""

    type: Literal["sqlite"] = "sqlite"
    path: RelativePath = ".llmling/pool.db"
    """The file."""
    keep_days: float = Field(default=30.0, gt=0)
    """How long settled events are kept, in days."""


class MemoryEngineConfig(Config):
    """Keeps events in memory: they are gone with the process."""

    type: Literal["memory"] = "memory"


def _single_machine(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "nats":  # pyright: ignore[reportUnknownMemberType]
        raise ValueError("engine 'nats' comes with a later release; use 'sqlite' or 'memory'")
    if isinstance(value, dict) and "type" not in value:
        return {"type": "sqlite", **value}
    return value  # pyright: ignore[reportUnknownVariableType]


EngineConfig = Annotated[
    Annotated[SqliteEngineConfig | MemoryEngineConfig, Discriminator("type")],
    plugged("engines"),
    BeforeValidator(_single_machine, json_schema_input_type=SqliteEngineConfig | MemoryEngineConfig),
]


class ServerConfig(Config):
    """The listener for health, metrics and the state of events."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; one that others can reach needs `token`."""
    port: Port | None = None
    """Port; absent: the first free one from 8765."""
    token: SecretStr | None = None
    """Token asked for by everything but the health pages."""

    @model_validator(mode="after")
    def _guarded(self) -> ServerConfig:
        if self.host not in LOOPBACK and not (self.token and self.token.get_secret_value()):
            raise PydanticCustomError(
                "unauthenticated",
                "the server on {host} can be reached by other machines: add `token:`",
                {"host": self.host, "at": "host"},
            )
        return self


class PoolLimitsConfig(Config):
    """Limits of the whole pool."""

    max_hops: Count = 10
    """Longest way of a message from agent to agent."""
    max_messages_per_event: Count = 200
    """Most messages one event may cause."""
    drain_timeout_s: Seconds = 8.0
    """How long running work may take when the pool stops, in seconds; the rest continues at the next start."""
    concurrency: Count = 100
    """Most deliveries of the whole pool at once."""


class Manifest(Config):
    """A pool of agents as written in YAML.

    Example:
        >>> manifest = Manifest.load("agents.yml")
        >>> list(manifest.agents)
        ['writer', 'editor']
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(title="llmling manifest")

    include: list[str] = []
    """Files or globs merged first; what is written here wins, lists replace."""
    defaults: dict[str, Any] = {}
    """Keys every agent starts from; an agent's own key wins."""
    engine: EngineConfig = SqliteEngineConfig()
    """What keeps events: `sqlite` (default) or `memory`."""
    server: ServerConfig | Literal[False] = ServerConfig()
    """Health and state over HTTP; false: none."""
    limits: PoolLimitsConfig = PoolLimitsConfig()
    """Limits of the whole pool."""
    mcp_servers: Named[McpServerConfig] = {}
    """MCP servers shared by name."""
    agents: Named[AgentConfig] = {}
    """Agents by name."""
    teams: Named[TeamConfig] = {}
    """Teams by name."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _path: Path | None = PrivateAttr(default=None)
    _locate: Callable[[Loc], str] | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """The folder relative paths start from: that of the manifest's file, or the working directory."""
        return self._folder

    @property
    def path(self) -> Path | None:
        """The manifest's file, or None when it was not read from one."""
        return self._path

    def locate(self, *loc: str | int) -> str:
        """Return `file:line:column` of a key, such as `locate("agents", "analyzer", "model")`, or the keys joined."""
        return self._locate(loc) if self._locate else ".".join(str(part) for part in loc)

    def placed(self, folder: Path, path: Path | None, locate: Callable[[Loc], str]) -> Manifest:
        """Return this manifest, told where it was read from."""
        self._folder, self._path, self._locate = folder, path, locate
        return self

    @property
    def nodes(self) -> dict[str, AgentConfig | TeamConfig]:
        """Agents and teams together, by name."""
        return {**self.agents, **self.teams}

    @property
    def triggered(self) -> bool:
        """Whether any trigger is enabled."""
        return any(trigger.enabled for node in self.nodes.values() for trigger in node.triggers)
