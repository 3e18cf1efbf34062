"""Tools of an agent as components: Python functions as ServerTool, MCP servers as MCPToolBox."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from llmling.agentspec.component import Component
from llmling.agentspec.secrets import Fragments, holds_secret, sounds_secret
from llmling.agentspec.shapes import Unspeakable, properties_of
from llmling.manifest.nodes import Loc
from llmling.manifest.tools import FunctionToolConfig, HttpServerConfig, StdioServerConfig
from llmling.protocols import Tool, ToolSpec
from llmling.tools.function import FunctionTool
from llmling.tools.schema import plain_function

REGISTRY = "registry:"
"""How paths begin that stand for a callable some program has, in no module."""
_HERE = ("type", "command", "args", "env", "cwd", "url", "headers", "call_timeout_s", "tools")


def server_tool(tool: Tool, config: FunctionToolConfig, fragments: Fragments, loc: Loc) -> Component:
    """Return a Python function as a tool; where it is imported from travels with it.

    Raises:
        Unspeakable: Its schema cannot be written.
    """
    extras = fragments.of(config, loc, leave=("type", "name", "description"))
    if config.function.startswith(REGISTRY):
        del extras["function"]
    spec: ToolSpec = tool.spec
    fields: dict[str, Any] = {"inputs": properties_of(spec.parameters), "outputs": [_output(tool)]}
    part = Component("ServerTool", spec.name, fields, spec.description, extras)
    if config.approval == "always":
        del extras["approval"]
        part.fields["requires_confirmation"], part.since = True, "25.4.2"
    return part


def _output(tool: Tool) -> dict[str, Any]:
    shape: Mapping[str, Any] = {"type": "string"}
    if isinstance(tool, FunctionTool):
        try:
            kind = typing.get_type_hints(plain_function(tool.function)).get("return", inspect.Parameter.empty)
            if kind not in {inspect.Parameter.empty, typing.Any}:
                found = properties_of({"properties": {"result": TypeAdapter(kind).json_schema()}, "type": "object"})
                return found[0]
        except (NameError, TypeError, Unspeakable, PydanticSchemaGenerationError, PydanticUserError):
            # A model reads text, whatever a function returns; its exact type is a courtesy to other runtimes.
            pass
    return {"title": "result", **shape}


def tool_box(name: str, config: Any, fragments: Fragments, loc: Loc) -> Component:
    """Return an MCP server as a box of tools.

    Raises:
        Unspeakable: It is of a type that another package brought.
    """
    seconds = {"read_timeout_seconds": config.call_timeout_s}
    if isinstance(config, StdioServerConfig):
        transport = Component("StdioTransport", name, {"session_parameters": seconds, "command": config.command})
        transport.fields |= {"args": list(config.args), "env": dict(config.env) or None, "cwd": config.cwd}
        names = ("command", "args", "env")
    elif isinstance(config, HttpServerConfig):
        transport = Component("StreamableHTTPTransport", name, {"session_parameters": seconds, "url": config.url})
        names = ("url",)
        _headers(transport, config.headers, fragments, (*loc, "headers"))
    else:
        raise Unspeakable(f"there is no transport for MCP servers of type {config.type!r}")
    for part in names:
        _hide(transport, part, getattr(config, part), fragments, (*loc, part))
    box = Component("MCPToolBox", name, {"client_transport": transport, "tool_filter": config.tools}, since="25.4.2")
    box.extras = fragments.of(config, loc, leave=_HERE)
    return box


def _headers(transport: Component, headers: Mapping[str, str], fragments: Fragments, loc: Loc) -> None:
    secret = {name for name in headers if sounds_secret(name) or fragments.hidden((*loc, name))}
    plain = {name: value for name, value in headers.items() if name not in secret}
    transport.fields["headers"] = plain or None
    if secret:
        texts = {name: fragments.secret(headers[name], (*loc, name)) for name in headers if name in secret}
        transport.hide("sensitive_headers", texts)
        transport.since = "25.4.2"


def _hide(transport: Component, name: str, value: Any, fragments: Fragments, loc: Loc) -> None:
    """Put a reference where a field holds a secret anywhere."""
    if holds_secret(written := fragments.of(value, loc)):
        transport.hide(name, written)
