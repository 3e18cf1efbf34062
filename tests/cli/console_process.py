"""A `llmling` process as a person sees it: lines on the terminal, signals, an exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from serving import until


class ConsoleProcess:
    """One command with its standard output and error as lists of lines; leaving kills what still runs."""

    def __init__(self, folder: Path, *args: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.args = args
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def __aenter__(self) -> ConsoleProcess:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "llmling_cli", *self.args,
            cwd=self.folder,
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(self._process.stdout, self.lines)),
            asyncio.create_task(self._read(self._process.stderr, self.errors)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.exit_code()

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))

    async def line(self, start: str) -> str:
        """Return the first line of standard output that starts so, once it is there."""

        def look() -> list[str]:
            return [line for line in self.lines if line.startswith(start)] or (
                ["ended"] if self.process.returncode is not None else []
            )

        found: list[str] = await until(look, f"a line {start!r}; printed: {self.lines} {self.errors}", 60)
        assert found[0].startswith(start), f"ended with {self.process.returncode}: {self.lines} {self.errors}"
        return found[0]

    async def exit_code(self) -> int:
        """Return the exit code once it is over and everything it printed is read."""
        async with asyncio.timeout(60):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code
