"""A real `llmling serve` in a process of its own, for stories that need signals and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import psutil

START_S = 60.0
T = TypeVar("T")


def free_port() -> int:
    """Return a port nobody listens on right now.

    It lies below those the system gives to sockets that ask for any, so no test that runs beside this one takes it.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Return the first truthy value of `condition`, looking again every 20 ms.

    Raises:
        AssertionError: It did not become true in time.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, f"waited {timeout_s:g} s in vain for: {what}"
        await asyncio.sleep(0.02)
    return value


async def eventually(look: Callable[[], Awaitable[T | None]], what: str, timeout_s: float = 30.0) -> T:
    """Return the first result of `look` that is not None, looking again every 20 ms.

    Raises:
        AssertionError: There was none in time.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while (value := await look()) is None:
        assert asyncio.get_running_loop().time() < deadline, f"waited {timeout_s:g} s in vain for: {what}"
        await asyncio.sleep(0.02)
    return value


class Serve:
    """`llmling serve --json` on a manifest; entering returns when it is ready, leaving stops it with SIGTERM."""

    def __init__(
        self,
        folder: Path,
        manifest: str = "agents.yml",
        *args: str,
        env: dict[str, str] | None = None,
        run: Sequence[str] = (),
        program: Sequence[str] = ("-m", "llmling_cli"),
    ) -> None:
        self.run = run
        """What the command begins with, to run it elsewhere."""
        self.folder = folder
        self.program = program
        self.manifest = manifest
        self.args = args
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **(env or {})}
        self.process: asyncio.subprocess.Process | None = None
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Serve:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.running:
            await self.stop()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def server_url(self) -> str:
        url: str = next(line["server_url"] for line in reversed(self.lines) if line["type"] == "ready")
        return url

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events it printed, over all starts."""
        return [line for line in self.lines if line["type"] == "event"]

    async def start(self) -> None:
        """Start it and return when it is ready."""
        self.process = await asyncio.create_subprocess_exec(
            *self.run, sys.executable, *self.program, "serve", self.manifest, "--json", *self.args,
            cwd=self.folder,
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**24,
        )  # fmt: skip
        ready = asyncio.Event()
        self._readers = [
            asyncio.create_task(self._read_lines(self.process, ready)),
            asyncio.create_task(self._read_errors(self.process)),
        ]
        waiting = asyncio.create_task(ready.wait())
        done, _ = await asyncio.wait({waiting, self._readers[0]}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert ready.is_set(), f"serve did not become ready ({len(done)} ended):\n" + "\n".join(self.errors[-30:])

    async def _read_lines(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.lines.append(json.loads(line))
            if self.lines[-1]["type"] == "ready":
                ready.set()

    async def _read_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.errors.append(line.decode(errors="replace").rstrip())

    async def kill(self) -> None:
        """End it with SIGKILL, as a power cut would, and return when it is gone."""
        await self._signal(signal.SIGKILL)

    async def stop(self, timeout_s: float = 60.0) -> int:
        """End it with SIGTERM and return its exit code."""
        return await self._signal(signal.SIGTERM, timeout_s)

    async def _signal(self, number: signal.Signals, timeout_s: float = 60.0) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        try:
            async with asyncio.timeout(timeout_s):
                code = await self.process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            # Its last words say where its threads stand.
            self.process.send_signal(signal.SIGABRT)
            await asyncio.wait(self._readers, timeout=10)
            raise AssertionError("serve does not end:\n" + "\n".join(self.errors[-80:])) from None
        return code

    def children(self) -> list[psutil.Process]:
        """Return every process it has started that is still there."""
        return psutil.Process(self.pid).children(recursive=True)


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Read the engine's file as an operator with sqlite3 would."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def llmling(folder: Path, *args: str, env: dict[str, str] | None = None, stdin: str = "") -> tuple[int, str, str]:
    """Run one command and return its exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmling_cli", *args,
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def post(session: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """POST a JSON body and return status and answer; 0 when the connection failed."""
    try:
        async with session.post(url, json=body, headers=headers) as response:
            return response.status, await response.json()
    except (aiohttp.ClientError, ConnectionError, TimeoutError, json.JSONDecodeError):
        return 0, {}
