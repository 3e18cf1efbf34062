"""Configs of what the whole pool shares: engine, server and limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    SecretStr,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from llmling.manifest.base import (
    Amount,
    Config,
    Count,
    Host,
    InMapping,
    LocatedMapping,
    Port,
    PositiveSeconds,
    RelativePath,
    Seconds,
    plugged,
)
from llmling.manifest.triggers import LOOPBACK


def _names_a_file(value: str) -> str:
    if value.endswith("/") or os.path.basename(value) in {"", ".", "..", "~"}:  # noqa: PTH119
        raise PydanticCustomError("path", "this is a folder; name the file in it, such as .llmling/pool.db")
    return value


class SqliteEngineConfig(Config):
    """Keeps events in one SQLite file; for one machine."""

    type: Literal["sqlite"] = "sqlite"
    path: Annotated[RelativePath, AfterValidator(_names_a_file)] = ".llmling/pool.db"
    """The file."""
    keep_days: Amount = 30.0
    """How long settled events are kept, in days."""


class MemoryEngineConfig(Config):
    """Keeps events in memory: they are gone with the process."""

    type: Literal["memory"] = "memory"


def _names_a_server(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"nats", "tls"} or not parts.hostname:
        raise PydanticCustomError("address", "this is no address of NATS; write it like nats://127.0.0.1:4222")
    return value


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise PydanticCustomError("address", "should name at least one server")
    return value


class NatsEngineConfig(Config):
    """Keeps events in NATS JetStream; for several machines that share one set of events."""

    type: Literal["nats"] = "nats"
    servers: Annotated[tuple[Annotated[str, AfterValidator(_names_a_server)], ...], AfterValidator(_some)] = (
        "nats://127.0.0.1:4222",
    )
    """Addresses of the servers of one cluster; the first that answers is used."""
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "llmling"
    """Under which name the events lie on the servers; pools with different names share nothing."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """On how many servers each event lies."""
    lease_s: Annotated[Seconds, Field(ge=1)] = 15.0
    """After how long the work of a process that is not heard of any more goes to another one, in seconds."""
    keep_days: Amount = 30.0
    """How long settled events are kept, in days."""


def _typed(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    engine = cast("Mapping[str, Any]", value)
    if "type" not in engine:
        return engine.plus("type", "sqlite") if isinstance(engine, LocatedMapping) else {"type": "sqlite", **engine}
    return engine


EngineMapping = Annotated[
    Annotated[SqliteEngineConfig | MemoryEngineConfig | NatsEngineConfig, Discriminator("type")], plugged("engines")
]
EngineConfig = Annotated[EngineMapping, BeforeValidator(_typed, json_schema_input_type=EngineMapping)]


class ServerConfig(Config):
    """The listener for health, metrics and the state of events."""

    host: Host = "127.0.0.1"
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
    requests_at_once: Count | None = None
    """Most model requests of the whole pool at once; further ones wait."""
    requests_per_minute: Count | None = None
    """Most model requests of the whole pool in any 60 seconds, tries included; further ones wait."""
    circuit_failures: Count | None = 5
    """Runs in a row that fail on it after which a model or an MCP server counts as down; null: never."""
    circuit_s: PositiveSeconds = 30.0
    """How long it is left alone before one request probes it, in seconds."""


def _server_branch(value: Any) -> str | None:
    if value is False:
        return "<false>"
    return "<mapping>" if isinstance(value, Mapping | BaseModel) else None


ServerEntry = Annotated[
    Annotated[ServerConfig, InMapping] | Annotated[Literal[False], Tag("<false>")],
    Discriminator(_server_branch, "server", "should be a mapping, or false for no server"),
]
