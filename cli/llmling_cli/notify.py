"""What systemd is told (`Type=notify`): ready, stopping, still alive."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Self

_EXTEND_S = 10.0


class Notifier:
    """Speaks to the socket in `NOTIFY_SOCKET`; without one it says nothing.

    While inside, and as long as the event loop runs, the watchdog hears of it at half of `WATCHDOG_USEC`.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        place = env.get("NOTIFY_SOCKET", "")
        self._place = f"\0{place[1:]}" if place.startswith("@") else place
        self._watchdog_s = 0.0
        if env.get("WATCHDOG_USEC", "").isdecimal() and env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self._watchdog_s = int(env["WATCHDOG_USEC"]) / 2_000_000
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self._place:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(0)
            if self._watchdog_s:
                self._repeat("WATCHDOG=1", self._watchdog_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._socket is not None:
            self._socket.close()

    def ready(self, status: str) -> None:
        """Say that the pool serves, or serves again after `reloading`."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a new manifest is being taken up; `ready` ends it."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self, status: str) -> None:
        """Say that the pool drains, and go on asking for time while the loop runs."""
        self._say("STOPPING=1", f"STATUS={status}")
        if self._socket is not None:
            self._repeat(f"EXTEND_TIMEOUT_USEC={int(_EXTEND_S * 1_000_000)}", _EXTEND_S / 2)

    def _repeat(self, line: str, every_s: float) -> None:
        async def repeat() -> None:
            while True:
                self._say(line)
                await asyncio.sleep(every_s)

        self._tasks.add(asyncio.create_task(repeat(), name=f"notify {line}"))

    def _say(self, *lines: str) -> None:
        if self._socket is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            self._socket.sendto(text.encode(), self._place)
        except OSError:
            # Nobody listens, or not fast enough: the pool serves all the same.
            return
