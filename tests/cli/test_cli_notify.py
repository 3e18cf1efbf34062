"""What systemd hears from `serve`, on a real socket: ready, alive while the loop runs, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from serving import Serve, free_port, post, until

from llmling_cli.notify import Notifier

MANIFEST = """
agents:
  a:
    model: demo:script.yml
    tools: [{{type: function, function: "tools:block", idempotent: true}}]
    triggers: [{{type: webhook, name: hook, port: {port}}}]
"""
SCRIPT = """
- {match: "^blocked$", reply: told}
- {match: block, tool_calls: [{name: block, arguments: {}}]}
- {reply: told}
"""
TOOLS = '''
import pathlib, time

async def block() -> str:
    """Block, as no tool should."""
    pathlib.Path("blocking").touch()
    while not pathlib.Path("release").exists():
        time.sleep(0.02)
    return "blocked"
'''


class Systemd:
    """The socket of the service manager, and what was said on it."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(place.replace("@", "\0", 1) if place.startswith("@") else place)
        self._socket.settimeout(0)

    def hear(self) -> list[str]:
        """Return all lines so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.lines += self._socket.recv(4096).decode().split("\n")
        return self.lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    place = str(tmp_path / "notify") if request.param == "file" else f"@llmling-{os.getpid()}-{time.monotonic_ns()}"
    heard = Systemd(place)
    yield heard
    heard.close()


async def test_every_word_is_said(systemd: Systemd) -> None:
    env = {"NOTIFY_SOCKET": systemd.place, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    async with Notifier(env) as notifier:
        notifier.ready("two\nlines")
        await until(lambda: systemd.hear().count("WATCHDOG=1") >= 3, "the watchdog to be fed")
        notifier.reloading()
        notifier.ready("again")
        notifier.stopping("draining")
        await until(lambda: "EXTEND_TIMEOUT_USEC=10000000" in systemd.hear(), "more time to be asked for")
    said = [line for line in systemd.hear() if not line.startswith(("WATCHDOG", "MONOTONIC"))]
    assert said == [
        "READY=1", "STATUS=two lines", "RELOADING=1", "STATUS=reloading", "READY=1", "STATUS=again",
        "STOPPING=1", "STATUS=draining", "EXTEND_TIMEOUT_USEC=10000000",
    ]  # fmt: skip
    assert any(line.startswith("MONOTONIC_USEC=") for line in systemd.lines)


@pytest.mark.parametrize("env", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"WATCHDOG_USEC": "1"}])
async def test_nobody_who_listens_is_no_error(env: dict[str, str]) -> None:
    async with Notifier(env) as notifier:
        notifier.ready("x")
        notifier.stopping("x")
        await asyncio.sleep(0)


async def test_the_watchdog_of_another_process_is_not_fed(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    async with Notifier({"NOTIFY_SOCKET": systemd.place, "WATCHDOG_USEC": "2", "WATCHDOG_PID": "1"}):
        await asyncio.sleep(0.01)
    assert systemd.hear() == []
    systemd.close()


@pytest.mark.timeout(120)
async def test_a_blocked_loop_starves_the_watchdog_and_is_named(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "agents.yml").write_text(MANIFEST.format(port=port))
    (tmp_path / "script.yml").write_text(SCRIPT)
    (tmp_path / "tools.py").write_text(TOOLS)
    systemd = Systemd(str(tmp_path / "notify"))
    env = {"NOTIFY_SOCKET": systemd.place, "WATCHDOG_USEC": "200000"}
    async with Serve(tmp_path, env=env) as serve, aiohttp.ClientSession() as session:
        await until(lambda: {"READY=1", "WATCHDOG=1"} <= set(systemd.hear()), "the word that it is ready")
        assert any(line.startswith("STATUS=ready in") for line in systemd.lines)
        status, _ = await post(session, f"http://127.0.0.1:{port}/webhook", "block")
        assert status == 202
        await until((tmp_path / "blocking").exists, "the tool to block")
        fed = len(systemd.hear())
        await until(lambda: any("is blocked for" in line for line in serve.errors), "the warning")
        assert len(systemd.hear()) == fed
        with pytest.raises(TimeoutError):
            await session.get(f"{serve.server_url}/healthz", timeout=aiohttp.ClientTimeout(total=0.5))
        await until(lambda: any("time.sleep(0.02)" in line for line in serve.errors), "the line that blocks")
        (tmp_path / "release").touch()
        await until(lambda: serve.events, "the event to end")
        await until(lambda: len(systemd.hear()) > fed, "the watchdog to be fed again")
        assert (await session.get(f"{serve.server_url}/healthz")).status == 200
        assert serve.events[0]["status"] == "done"
        os.kill(serve.pid, signal.SIGHUP)
        await until(lambda: systemd.hear().count("READY=1") == 2, "the word that it has reloaded")
        assert "RELOADING=1" in systemd.lines
        # What systemd does with a loop that stays blocked: it ends the process and starts it again.
        for name in ("blocking", "release"):
            (tmp_path / name).unlink()
        assert (await post(session, f"http://127.0.0.1:{port}/webhook", "block"))[0] == 202
        await until((tmp_path / "blocking").exists, "the tool to block")
        os.kill(serve.pid, signal.SIGABRT)
        await until(lambda: not serve.running, "the end")
        (tmp_path / "release").touch()
        await serve.start()
        await until(lambda: len(serve.events) == 2, "the event to go on")
        assert serve.events[1]["status"] == "done"
        assert await serve.stop() == 0
    assert {"STOPPING=1", "STATUS=draining, up to 8 s", "EXTEND_TIMEOUT_USEC=10000000"} <= set(systemd.hear())
    systemd.close()
