"""MCP servers as tools: one supervised task per server owns its connection and builds a new one when it breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from llmling.errors import StartupError, ToolError
from llmling.manifest.tools import HttpServerConfig, StdioServerConfig
from llmling.protocols import Tool
from llmling.runtime.circuit import Circuits
from llmling.runtime.lifespan import leaf
from llmling.runtime.services import Services
from llmling.runtime.supervise import State, Supervisor
from llmling.runtime.threads import run_in_thread
from llmling.tools.mcp.guard import Guard
from llmling.tools.mcp.tool import ConnectionLost, McpTool, Offer
from llmling.tools.naming import safe_names

if TYPE_CHECKING:
    from llmling.tools.mcp.connection import Connection, Transport

RECOVERY_S = 5.0
"""Longest wait of a call for a broken server to come back, in seconds."""

PROBE_S = 5.0
"""Least time a server that left a call unanswered has to list its tools before it is replaced, in seconds."""

_HURRY_S = 0.5
_CLOSE_S = 6.0
_KILL_S = 3.0


class _NoAnswer(ToolError):
    """A call that got no answer, as from a server that is down."""


class _Failure(Exception):
    """Why one life of a server ended, in words for the operator."""


class McpServer:
    """One MCP server: a child process or a URL.

    Entering starts it and returns at once, unless `required`: then it returns when the server is ready. A server that
    breaks is started again with growing pauses; meanwhile its tools stay on offer, and their calls wait a moment, then
    answer with the reason. Leaving ends it and everything it started, within about 6 s.

    Raises:
        StartupError: On entering, when it is `required` and its first start fails.
    """

    def __init__(self, config: StdioServerConfig | HttpServerConfig, services: Services, name: str) -> None:
        self.name = name
        self.call_timeout_s = config.call_timeout_s
        self.ready_s: float | None = None
        self._config = config
        self._folder = services.folder
        self._log = logging.getLogger(f"llmling.mcp.{name}")
        self._guard = Guard(name, services.pins, self._log)
        circuits = Circuits(services.clock) if services.bounds is None else services.bounds.circuits
        self._circuit = circuits.of(f"MCP server {name!r}")
        self._supervisor = Supervisor(f"MCP server {name!r}", self._live, clock=services.clock)
        self._owner: asyncio.Task[None] | None = None
        self._transport: Transport | None = None
        self._connection: Connection | None = None
        self._tools: tuple[McpTool, ...] = ()
        self._up = asyncio.Event()
        self._began = 0.0

    async def __aenter__(self) -> McpServer:
        self._began = time.monotonic()
        self._owner = asyncio.create_task(self._supervisor.run(), name=f"mcp {self.name}")
        if self._config.required:
            try:
                state = await self._supervisor.settled()
            except asyncio.CancelledError:
                await self._stop(self._owner)
                raise
            if state != "ready":
                why = self.reason
                await self._stop(self._owner)
                raise StartupError(f"MCP server {self.name!r} is required and did not start: {why}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner is not None:
            await self._stop(self._owner)

    @property
    def state(self) -> State:
        """`starting`, `ready`, `broken` or `stopped`."""
        return self._supervisor.state

    @property
    def reason(self) -> str | None:
        """Why it is broken, or was before the start under way; None when it is ready."""
        return self._supervisor.reason

    @property
    def starts(self) -> int:
        """How often it was started."""
        return self._supervisor.lives

    @property
    def instructions(self) -> str:
        """What the server says about its use; empty when it says nothing or is not ready."""
        return self._connection.instructions if self._connection is not None else ""

    def tools(self) -> Sequence[Tool]:
        """Return the tools it listed last, also while it is broken; none before it was ready once."""
        return self._tools

    async def settled(self) -> None:
        """Return when the first start has succeeded or failed; later outages do not count."""
        await self._supervisor.settled()

    async def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Return True once it is ready, False after `timeout_s` seconds or when it has stopped."""
        return await self._supervisor.wait_ready(timeout_s)

    async def read_resource(self, uri: str) -> str:
        """Return the text of a resource.

        Raises:
            ToolError: The server answered with an error, took too long, is not available, or it is no text.
        """
        return await self._ask(lambda connection: connection.read(uri), f"resource {uri!r}", repeatable=True)

    async def call(self, tool: str, arguments: Mapping[str, Any], *, repeatable: bool) -> str:
        """Call a tool by the server's own name for it.

        A call that surely never reached the server, or is `repeatable`, is made once more on the next connection.

        Raises:
            ToolError: The tool failed, took longer than `call_timeout_s`, is refused, or the server is not available.
        """
        self._guard.check(tool)
        return await self._ask(lambda live: live.call(tool, arguments), f"tool {tool!r}", repeatable=repeatable)

    async def _ask(self, send: Callable[[Connection], Awaitable[str]], what: str, *, repeatable: bool) -> str:
        circuit, caller = self._circuit, object()
        if circuit is None:
            return await self._asked(send, what, repeatable=repeatable)
        if circuit.turn(caller) > 0:
            # The model that calls has other things to do than to wait for it.
            raise ToolError(circuit.why)
        try:
            answer = await self._asked(send, what, repeatable=repeatable)
        except _NoAnswer as error:
            circuit.failed(caller, caller, str(error))
            raise
        except ToolError:
            circuit.answered(caller)
            raise
        else:
            circuit.answered(caller)
            return answer
        finally:
            circuit.left(caller)

    async def _asked(self, send: Callable[[Connection], Awaitable[str]], what: str, *, repeatable: bool) -> str:
        limit = asyncio.timeout(self.call_timeout_s)
        try:
            async with limit:
                try:
                    return await send(await self._available())
                except ConnectionLost as error:
                    if error.sent and not repeatable:
                        raise _NoAnswer(
                            f"MCP server {self.name!r} broke during this call: {error}; whether it took effect is not"
                            " known; the server is being restarted"
                        ) from error
                try:
                    return await send(await self._available())
                except ConnectionLost as error:
                    raise _NoAnswer(
                        f"MCP server {self.name!r} broke again during this call: {error}; it is being restarted"
                    ) from error
        except TimeoutError:
            if limit.expired() and self._connection is None:
                self._unavailable()
            if limit.expired():
                if self._connection is not None:
                    self._connection.changed.set()
                raise _NoAnswer(
                    f"{what} of MCP server {self.name!r} took longer than {self.call_timeout_s:g} s (call_timeout_s)"
                ) from None
            raise

    async def _available(self) -> Connection:
        limit = asyncio.timeout(min(self.call_timeout_s, RECOVERY_S))
        try:
            async with limit:
                while (connection := self._connection) is None or not connection.alive:
                    if self.state == "stopped":
                        raise ToolError(f"MCP server {self.name!r} is not available: it was stopped")
                    self._supervisor.hurry()
                    self._up.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_HURRY_S):
                            await self._up.wait()
        except TimeoutError:
            self._unavailable()
        return connection

    def _unavailable(self) -> NoReturn:
        why = self.reason or "it is still starting"
        raise _NoAnswer(f"MCP server {self.name!r} is not available: {why}; it is being restarted") from None

    async def _live(self, ready: Callable[[], None]) -> None:
        """Connect, list the tools, and stay until the connection ends."""
        sdk = await run_in_thread(_load)
        self._transport = transport = sdk.open_transport(self._config, self._folder, self._log)
        limit = asyncio.timeout(self._config.start_timeout_s)
        # The polite end of a server takes seconds, which one that never answered has not earned.
        killer = asyncio.get_running_loop().call_later(self._config.start_timeout_s, transport.kill)
        try:
            async with AsyncExitStack() as stack:
                async with limit:
                    connecting = sdk.connect(transport, self._supervisor.broke)
                    connection: Connection = await stack.enter_async_context(connecting)
                    self._publish(await connection.list_tools())
                killer.cancel()
                self._connection = connection
                if self.ready_s is None:
                    self.ready_s = time.monotonic() - self._began
                ready()
                self._up.set()
                if self._circuit is not None:
                    self._circuit.hurry()
                await self._keep(connection, transport)
        except Exception as error:
            if limit.expired():
                raise _Failure(f"no answer within {self._config.start_timeout_s:g} s (start_timeout_s)") from error
            inner = leaf(error)
            raise _Failure(str(inner) if isinstance(inner, _Failure) else transport.explain(error)) from error
        finally:
            killer.cancel()
            self._connection = None

    async def _keep(self, connection: Connection, transport: Transport) -> NoReturn:
        while True:
            await connection.changed.wait()
            connection.changed.clear()
            if not connection.alive:
                raise ConnectionLost(connection.why, sent=True)
            # Reached after a call without an answer too: a server that does not even list its tools is stuck.
            limit_s = max(self.call_timeout_s, PROBE_S)
            try:
                async with asyncio.timeout(limit_s):
                    self._publish(await connection.list_tools())
                if self._circuit is not None:
                    # One tool is slow; the server is not down.
                    self._circuit.answered(connection)
            except ToolError as error:
                self._log.warning("listing the tools again failed: %s", error)
            except TimeoutError:
                transport.kill()
                why = f"it has not answered for {limit_s:g} s"
                self._supervisor.broke(why)
                raise _Failure(why) from None

    def _publish(self, offers: Sequence[Offer]) -> None:
        allowed = self._config.tools
        if allowed is not None:
            if missing := sorted(set(allowed) - {offer.name for offer in offers}):
                has = ", ".join(sorted(offer.name for offer in offers)) or "none"
                self._log.warning("MCP server %r has no tool %s; it has: %s", self.name, ", ".join(missing), has)
            offers = [offer for offer in offers if offer.name in allowed]
        offers = self._guard.admit(offers)
        names = safe_names(self.name, [offer.name for offer in offers])
        self._tools = tuple(McpTool(self, names[offer.name], offer) for offer in offers)

    async def _stop(self, owner: asyncio.Task[None]) -> None:
        if self._transport is not None and self.state != "ready":
            # Nothing was ever asked of it: no need to be polite.
            self._transport.kill()
        # Cancelled once only: a second cancellation would cut the orderly end of the child process short.
        owner.cancel()
        try:
            await asyncio.wait({owner}, timeout=_CLOSE_S)
        finally:
            if not owner.done():
                if self._transport is not None:
                    self._transport.kill()
                await asyncio.wait({owner}, timeout=_KILL_S)
            self._up.set()


def _load() -> ModuleType:
    """Import the SDK, which takes half a second; done in a thread, and only by pools that have an MCP server."""
    from llmling.tools.mcp import connection  # noqa: PLC0415 - the named heavy dependency

    return connection
