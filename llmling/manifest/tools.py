"""Configs of tools and MCP servers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field

from llmling.manifest.base import CallablePath, Config, PositiveSeconds, RelativePath, Truth, plugged
from llmling.manifest.wire import Headers, Url

ApprovalConfig: TypeAlias = Literal["always", "destructive", "never"]


class FunctionToolConfig(Config):
    """A Python callable, sync or async, as a tool; its schema comes from its annotations."""

    type: Literal["function"] = "function"
    function: CallablePath
    """The callable as `module:name`; the manifest's folder is first on the import path."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Name the model sees; absent: the callable's own."""
    description: str | None = None
    """What the model reads about it; absent: the callable's docstring."""
    idempotent: Truth = False
    """True when calling it twice does no harm: it is then repeated after a crash without asking."""
    timeout_s: PositiveSeconds | None = None
    """Longest time for one call, in seconds; absent: the run's own limit."""
    destructive: Truth = False
    """True when it destroys or sends something: `approval: destructive` asks a person before a call."""
    approval: ApprovalConfig | None = None
    """When a person must say yes to a call: `always`, `destructive` or `never`; absent: as the agent says."""


class AgentToolConfig(Config):
    """Another agent of the pool as a tool, with a history of its own."""

    type: Literal["agent"] = "agent"
    name: str
    """The agent or team that answers."""
    description: str | None = None
    """What the model reads about it; absent: the agent's description."""
    timeout_s: PositiveSeconds | None = None
    """Longest time for one call, in seconds; absent: the agent's own limit."""
    approval: ApprovalConfig | None = None
    """When a person must say yes to a call: `always`, `destructive` (never, for an agent) or `never`; absent: as the
    agent that asks says."""


def tool_shorthand(value: Any) -> Any:
    """Turn `module:function` into its mapping."""
    return {"type": "function", "function": value} if isinstance(value, str) else value


ToolMapping = Annotated[Annotated[FunctionToolConfig | AgentToolConfig, Discriminator("type")], plugged("tools")]
ToolConfig = Annotated[ToolMapping, BeforeValidator(tool_shorthand, json_schema_input_type=CallablePath | ToolMapping)]


class McpServerBase(Config):
    """What both kinds of MCP server share."""

    start_timeout_s: PositiveSeconds = 30.0
    """Longest time until the server has answered for the first time, in seconds."""
    call_timeout_s: PositiveSeconds = 60.0
    """Longest time for one tool call, in seconds."""
    required: Truth = False
    """True: the pool does not start without this server; false: its agents wait or run without its tools."""
    tools: list[str] | None = None
    """Names of the tools the agents may see; absent: all."""


class StdioServerConfig(McpServerBase):
    """An MCP server run as a child process, spoken to over its standard input and output."""

    type: Literal["stdio"] = "stdio"
    command: str = Field(min_length=1)
    """Program to start."""
    args: list[str] = Field(default=[])
    """Its arguments."""
    env: dict[str, str] = Field(default={})
    """Its environment, beside HOME, LOGNAME, PATH, SHELL, TERM and USER; nothing else is inherited."""
    cwd: RelativePath | None = None
    """Its working directory; absent: the manifest's folder."""


class HttpServerConfig(McpServerBase):
    """An MCP server reached over streamable HTTP."""

    type: Literal["http"] = "http"
    url: Url
    """Its address."""
    headers: Headers = Field(default={})
    """Headers sent with every request, such as Authorization."""


McpServerConfig = Annotated[
    Annotated[StdioServerConfig | HttpServerConfig, Discriminator("type")],
    plugged("mcp_servers"),
]
