"""The transport to an MCP server that runs as a child process.

Unlike the SDK's own, it bounds the length of a line, takes linear time for long ones, keeps noise on standard output
away from the console, and kills the whole process tree.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import anyio
import mcp_types
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from llmling.runtime.lifespan import leaf, reason
from llmling.runtime.threads import run_in_thread
from llmling.tools.mcp.process import MARK, kill_marked, kill_orphans_once
from llmling.tools.mcp.stderr import StderrLog, stderr_log
from llmling.tools.mcp.tool import current_attempt

LONGEST_LINE = 32 * 1024 * 1024

_POLITE_S = 2.0
_FIRM_S = 2.0
_POLL_S = 0.01
_NOISE_LINES = 20
_CLOSED_HERE = "the connection was closed"
_EOF = "it closed its standard output"


@dataclass(frozen=True, slots=True)
class Command:
    """What to start: program, arguments, working directory, what to add to the small default environment, and mark."""

    program: str
    args: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    mark: str


class _Lines:
    """Messages from the server; ends with its standard output."""

    def __init__(self, reader: asyncio.StreamReader, log: logging.Logger, ended: Callable[[str], None]) -> None:
        self._reader = reader
        self._log = log
        self._ended = ended
        self._noise = 0

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while True:
            line = await self._line()
            try:
                return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError:
                self._note(line)

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        self._ended(_CLOSED_HERE)

    async def __aenter__(self) -> _Lines:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            self._ended(_EOF)
        except asyncio.LimitOverrunError:
            self._ended(f"it sent a line longer than {LONGEST_LINE:,} bytes")
        except OSError as error:
            self._ended(f"reading from it failed: {error}")
        raise StopAsyncIteration

    def _note(self, line: bytes) -> None:
        if not line.strip():
            return
        self._noise += 1
        if self._noise <= _NOISE_LINES:
            self._log.debug("no MCP message on standard output: %s", line[:500].decode("utf-8", "replace").rstrip())
        if self._noise == 1:
            self._log.warning("the server writes to its standard output what is no MCP message; it is left out")


class _Writer:
    """Messages to the server."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, item: SessionMessage, /) -> None:
        text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        if self._writer.is_closing():
            if (attempt := current_attempt.get()) is not None:
                attempt.refused = True
            raise anyio.ClosedResourceError
        try:
            self._writer.write(text.encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Leave the pipe open: the transport closes it, and waits for the server then."""

    async def __aenter__(self) -> _Writer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class StdioTransport:
    """Starts the server when entered; when left, asks it to end, insists, and kills its tree, within about 5 s.

    Cancelling while leaving kills it at once.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(self, command: Command, log: logging.Logger) -> None:
        self._command = command
        self._log = log
        self._listener: Callable[[str], None] | None = None
        self._why = ""
        self._stack = AsyncExitStack()
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: StderrLog | None = None
        self._exit_status: int | None = None

    def on_end(self, ended: Callable[[str], None]) -> None:
        """Call `ended` with the reason as soon as the server's output ends."""
        self._listener = ended

    def kill(self) -> None:
        """Kill the server's process group at once."""
        if self._process is not None:
            _signal_group(self._process, signal.SIGKILL)

    def explain(self, error: BaseException) -> str:
        """Say in one line why the server ended: exit status and last words, once it has been left."""
        if self._process is None:
            return self._not_started(leaf(error))
        why = self._why or reason(error)
        if self._exit_status is not None:
            number = self._exit_status
            why = f"it was killed by signal {-number}" if number < 0 else f"it exited with status {number}"
        words = self._stderr.last_words if self._stderr is not None and self._why in {"", _EOF} else ""
        return f"{why}; its last words: {words}" if words else why

    def _not_started(self, error: BaseException) -> str:
        command = self._command
        if not command.cwd.is_dir():
            return f"its working directory {str(command.cwd)!r} does not exist"
        if isinstance(error, FileNotFoundError):
            return f"no such command: {command.program!r}; install it, or write its full path"
        return f"command {command.program!r} cannot be started: {reason(error)}"

    def _ended(self, why: str) -> None:
        if not self._why:
            self._why = why
            # Only a server that ended by itself has a telling status, not one that we end.
            if self._listener is not None:
                self._listener(why)

    async def __aenter__(self) -> tuple[_Lines, _Writer]:
        command = self._command
        async with AsyncExitStack() as stack:
            await run_in_thread(kill_orphans_once)
            stderr, self._stderr = await stack.enter_async_context(stderr_log(self._log))
            self._process = process = await asyncio.create_subprocess_exec(
                command.program,
                *command.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={**get_default_environment(), **_own_path(), **command.env, MARK: command.mark},
                cwd=command.cwd,
                limit=LONGEST_LINE,
                # A session of its own: Ctrl-C in the terminal is for us, and we end our servers in order.
                start_new_session=True,
            )
            stack.push_async_callback(self._stop, process)
            self._stack = stack.pop_all()
        assert process.stdout is not None  # noqa: S101 - asked for as a pipe above
        assert process.stdin is not None  # noqa: S101
        return _Lines(process.stdout, self._log, self._ended), _Writer(process.stdin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        try:
            if process.stdin is not None:
                process.stdin.close()
            # A server whose output ended is about to exit by itself: its status tells why.
            if await _exited(process, _POLITE_S):
                self._exit_status = process.returncode if self._why and self._why != _CLOSED_HERE else None
            else:
                _signal_group(process, signal.SIGTERM)
                await _exited(process, _FIRM_S)
        finally:
            # Also on the way of a polite exit: its children may have stayed.
            _signal_group(process, signal.SIGKILL)
            await run_in_thread(kill_marked, self._command.mark)
            await _exited(process, _FIRM_S)
            _close_pipes(process)


def _own_path() -> dict[str, str]:
    """In a virtual environment that is not activated, let `python` and its scripts be those of this one."""
    if sys.prefix == sys.base_prefix:
        return {}
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])}


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The leader's pid is the group's id, also once the leader is gone.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _exited(process: asyncio.subprocess.Process, timeout_s: float) -> bool:
    # Not `process.wait()`: it also waits for the pipes, which a grandchild may keep open.
    deadline = asyncio.get_running_loop().time() + timeout_s
    while process.returncode is None:
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def _close_pipes(process: asyncio.subprocess.Process) -> None:
    # asyncio offers no public way to let go of a process whose pipes others still hold.
    transport = getattr(process, "_transport", None)
    if isinstance(transport, asyncio.SubprocessTransport):
        transport.close()
