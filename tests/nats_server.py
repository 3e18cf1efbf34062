"""A real nats-server with JetStream: one for all tests of a process, and others that a test may kill."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from serving import free_port

_START_S = 30.0
# Debian puts it where only root looks.
_PROGRAM = shutil.which("nats-server", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


class NatsServer:
    """A server whose files outlive it; `start` again is a restart.

    `run` is what its command begins with, to run it elsewhere, and `address` where it is reached then; `options` come
    on top of those it needs.
    """

    def __init__(
        self, folder: Path, address: str = "127.0.0.1", *, run: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.address = address
        self.port = free_port()
        self._run = run
        self._options = options
        self.process: psutil.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.port}"

    def start(self) -> None:
        """Start it and return when it takes connections."""
        place = self.folder / "pid"
        place.unlink(missing_ok=True)
        program, listen = _PROGRAM or "nats-server", "0.0.0.0" if self._run else self.address
        command = [*self._run, program, "-a", listen, "-p", str(self.port), "-js", "-sd", self.folder, *self._options]
        # Not as a child: some tests count those of their process.
        subprocess.run(
            ["sh", "-c", '"$0" "$@" &', *command, "-l", self.log, "-P", place],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + _START_S
        while not (place.exists() and place.read_text().strip() and self._answers()):
            assert time.monotonic() < end, self.log.read_text() if self.log.exists() else "nats-server does not start"
            time.sleep(0.02)
        self.process = psutil.Process(int(place.read_text()))

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), 1) as connection:
                return connection.recv(5) == b"INFO "
        except OSError:
            return False

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it; by default as a power cut of the process would."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    async def restart(self) -> None:
        """Kill it and start it again."""
        await asyncio.to_thread(self.end)
        await asyncio.to_thread(self.start)


def need_nats() -> None:
    """Skip a test where the server is not installed; under CI it has to be."""
    if _PROGRAM is None:
        assert os.environ.get("CI") != "true", "nats-server is missing: apt-get install nats-server"
        pytest.skip("nats-server is not installed (Debian: apt-get install nats-server)")


@functools.cache
def _shared() -> NatsServer:
    folder = tempfile.mkdtemp(prefix="llmling-nats-")
    server = NatsServer(Path(folder))
    server.start()

    def end() -> None:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return server


def nats_url() -> str:
    """Return the address of the server that all tests of this process share."""
    need_nats()
    return _shared().url
