"""One connection to an MCP server; with `stdio.py`, the only place that knows the SDK."""

from __future__ import annotations

import asyncio
import base64
import functools
import importlib.metadata
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import mcp
import mcp_types
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from pydantic_core import to_json

from llmling.errors import ToolError
from llmling.manifest.tools import HttpServerConfig, StdioServerConfig
from llmling.runtime.limits import shortened
from llmling.tools.mcp.http import HttpTransport
from llmling.tools.mcp.process import new_mark
from llmling.tools.mcp.stdio import Command, StdioTransport
from llmling.tools.mcp.tool import Attempt, ConnectionLost, Offer, current_attempt

T = TypeVar("T")

_MOST_PAGES = 100
_RELISTEN_S = (1.0, 60.0)


class Transport(Protocol):
    """A way to reach a server; `connect` enters and leaves it."""

    async def __aenter__(self) -> tuple[Any, Any]:
        """Return the streams of messages from and to the server."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End it."""
        ...

    def on_end(self, ended: Callable[[str], None]) -> None:
        """Call `ended` with the reason as soon as no more messages can come."""
        ...

    def explain(self, error: BaseException) -> str:
        """Say in one line why a connection that ended with `error` ended."""
        ...

    def kill(self) -> None:
        """End it at once; blocks for no time."""
        ...


def open_transport(
    config: StdioServerConfig | HttpServerConfig, folder: Path, log: logging.Logger
) -> StdioTransport | HttpTransport:
    """Return the transport a config asks for; nothing is started yet."""
    if isinstance(config, StdioServerConfig):
        cwd = folder / (config.cwd or ".")
        return StdioTransport(Command(config.command, tuple(config.args), cwd, config.env, new_mark()), log)
    return HttpTransport(config.url, config.headers, read_s=config.call_timeout_s + 10)


class Connection:
    """An entered client: `alive` until the connection ends, which sets `changed`, as a new list of tools does."""

    def __init__(self, client: mcp.Client, state: _State) -> None:
        self._client = client
        self._state = state

    @property
    def alive(self) -> bool:
        """Whether requests can be made."""
        return self._state.why is None

    @property
    def why(self) -> str:
        """Why the connection ended; empty while it is alive."""
        return self._state.why or ""

    @property
    def changed(self) -> asyncio.Event:
        """Set when the connection ended or the server said that its tools changed."""
        return self._state.changed

    @property
    def instructions(self) -> str:
        """What the server says about its use; empty when it says nothing."""
        return self._client.instructions or ""

    async def list_tools(self) -> list[Offer]:
        """Return the tools of all pages.

        Raises:
            ToolError: The server answered with an error.
            ConnectionLost: The connection ended before the answer.
        """
        offers: list[Offer] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._guarded(functools.partial(self._client.list_tools, cursor=cursor, cache_mode="refresh"))
            offers.extend(_offer(tool) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        return offers

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool and return its result as text, cut to 200,000 characters with a note.

        Raises:
            ToolError: The server answered with an error.
            ConnectionLost: The connection ended before the answer.
        """
        result = await self._guarded(lambda: self._client.call_tool(name, dict(arguments)))
        text = shortened(_result_text(result))
        if result.is_error:
            raise ToolError(text or f"tool {name!r} failed and gave no reason")
        return text

    async def read(self, uri: str) -> str:
        """Return the text of a resource; binary parts must be UTF-8.

        Raises:
            ToolError: The server answered with an error, or the resource is no text.
            ConnectionLost: The connection ended before the answer.
        """
        result = await self._guarded(lambda: self._client.read_resource(uri))
        try:
            return "\n".join(
                part.text if isinstance(part, mcp_types.TextResourceContents) else base64.b64decode(part.blob).decode()
                for part in result.contents
            )
        except ValueError:
            raise ToolError(f"resource {uri!r} is no text") from None

    async def _guarded(self, send: Callable[[], Awaitable[T]]) -> T:
        attempt = Attempt()
        token = current_attempt.set(attempt)
        try:
            if not self.alive:
                raise ConnectionLost(self.why, sent=False)
            return await send()
        except mcp.MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                self._state.end("the connection closed")
                raise ConnectionLost(self.why, sent=not attempt.refused) from error
            if error.code == mcp_types.INVALID_REQUEST and "session" in error.message.lower():
                # The server was restarted and has forgotten the session; it did not look at the request.
                self._state.end("the server has forgotten the session")
                raise ConnectionLost(self.why, sent=False) from error
            raise ToolError(f"{error.message} (MCP error {error.code})") from error
        except (RuntimeError, ValueError) as error:
            # Results that break the protocol or the tool's own output schema; pydantic's errors are ValueErrors.
            raise ToolError(f"the MCP server's answer is not valid: {str(error).splitlines()[0]}") from error
        finally:
            current_attempt.reset(token)

    async def listen(self) -> None:
        """Hear of changed tools until cancelled, where the server offers it."""
        tools = self._client.server_capabilities.tools
        pause_s, longest_s = _RELISTEN_S
        while tools is not None and tools.list_changed and self.alive:
            try:
                async with self._client.listen(tools_list_changed=True) as changes:
                    pause_s = _RELISTEN_S[0]
                    # What happened while nobody listened is not told again.
                    self.changed.set()
                    async for _ in changes:
                        self.changed.set()
            except (ListenNotSupportedError, mcp.MCPError):
                # Older servers tell by a notification instead; the others do not want to.
                return
            except (SubscriptionLost, TimeoutError):
                pass
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, pause_s * 2)


class _State:
    def __init__(self, ended: Callable[[str], None]) -> None:
        self.why: str | None = None
        self.changed = asyncio.Event()
        self._ended = ended

    def end(self, why: str) -> None:
        if self.why is None:
            self.why = why
            self.changed.set()
            self._ended(why)


@asynccontextmanager
async def connect(transport: Transport, ended: Callable[[str], None]) -> AsyncGenerator[Connection, None]:
    """Enter a client over a transport; entered and left by one task. `ended` hears at once why it ended.

    Raises:
        Exception: It cannot be reached; `transport.explain` says why.
    """
    state = _State(ended)
    transport.on_end(state.end)

    async def heard(message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            state.changed.set()

    client = mcp.Client(transport, message_handler=heard, client_info=_about_us(), cache=None)
    async with client, asyncio.TaskGroup() as group:
        connection = Connection(client, state)
        listener = group.create_task(connection.listen(), name="mcp listen")
        try:
            yield connection
        finally:
            state.end("the connection was closed")
            listener.cancel()


def _about_us() -> mcp_types.Implementation:
    try:
        version = importlib.metadata.version("llmling")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return mcp_types.Implementation(name="llmling", version=version)


def _offer(tool: mcp_types.Tool) -> Offer:
    hints = tool.annotations
    parameters: dict[str, Any] = {"type": "object", "properties": {}, **tool.input_schema}
    return Offer(
        tool.name,
        tool.description or tool.title or "",
        parameters,
        hints is not None and bool(hints.read_only_hint or hints.idempotent_hint),
        hints is None or (not hints.read_only_hint and hints.destructive_hint is not False),
    )


def _result_text(result: mcp_types.CallToolResult) -> str:
    parts = [_part_text(part) for part in result.content]
    if not parts and result.structured_content is not None:
        return to_json(result.structured_content).decode()
    return "\n".join(parts)


def _part_text(part: mcp_types.ContentBlock) -> str:
    match part:
        case mcp_types.TextContent():
            return part.text
        case mcp_types.ImageContent() | mcp_types.AudioContent():
            return f"[{part.type} of type {part.mime_type}, {len(part.data) * 3 // 4:,} bytes, left out]"
        case mcp_types.ResourceLink():
            return f"[resource {part.uri}: {part.name}]"
        case mcp_types.EmbeddedResource():
            inside = part.resource
            if isinstance(inside, mcp_types.TextResourceContents):
                return inside.text
            return f"[resource {inside.uri}, binary, left out]"
