"""`llmling serve` and its manifest: a change or SIGHUP reloads it, and a line says what became of it."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from serving import Serve, free_port, post, until

MANIFEST = """
server: false
engine: {{type: memory}}
include: [more/*.yml]
agents:
  a:
    model: demo
    triggers: [{{type: webhook, name: hook, port: {port}}}]
"""


def project(folder: Path) -> int:
    port = free_port()
    (folder / "agents.yml").write_text(MANIFEST.format(port=port))
    (folder / "more").mkdir()
    return port


async def test_a_change_of_a_file_and_a_hangup_reload(tmp_path: Path) -> None:
    port = project(tmp_path)
    serve = Serve(tmp_path)
    async with serve, aiohttp.ClientSession() as session:

        async def reloads(count: int) -> dict[str, object]:
            await until(lambda: sum(line["type"] == "reload" for line in serve.lines) == count, "the reload", 60)
            return next(line for line in reversed(serve.lines) if line["type"] == "reload")

        (tmp_path / "more" / "b.yml").write_text("agents: {b: {model: demo}}\n")
        line = await reloads(1)
        assert (line["applied"], line["added"], line["problems"]) == (True, {"agents": ["b"]}, [])
        assert line["kept"] == {"agents": ["a"], "triggers": ["hook"]}
        (tmp_path / "more" / "b.yml").write_text("agents: {b: {modle: demo}}\n")
        line = await reloads(2)
        assert not line["applied"]
        assert 'more/b.yml:1:14: error LL201: unknown key "modle"' in str(line["problems"])
        os.kill(serve.pid, signal.SIGHUP)
        assert (await reloads(3))["problems"] == line["problems"]
        (tmp_path / "more" / "b.yml").unlink()
        assert (await reloads(4))["removed"] == {"agents": ["b"]}
        assert (await post(session, f"http://127.0.0.1:{port}/webhook", {"n": 1}))[0] == 202
        await until(lambda: serve.events, "the event")
        assert await serve.stop() == 0
    assert sum("not reloaded: more/b.yml:1:14" in error for error in serve.errors) == 2


async def test_without_following_only_a_hangup_reloads(tmp_path: Path) -> None:
    project(tmp_path)
    async with Serve(tmp_path, "agents.yml", "--no-reload") as serve:
        (tmp_path / "more" / "b.yml").write_text("agents: {b: {model: demo}}\n")
        os.kill(serve.pid, signal.SIGHUP)
        await until(lambda: serve.lines[-1]["type"] == "reload", "the reload", 60)
        assert serve.lines[-1]["added"] == {"agents": ["b"]}
        assert await serve.stop() == 0


@pytest.mark.parametrize("detached", [False, True])
async def test_a_hangup_of_the_terminal_stops_unless_it_was_to_be_ignored(tmp_path: Path, detached: bool) -> None:
    port = project(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        # Also where the tests themselves are detached.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if detached else signal.SIG_DFL)
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, "-m", "llmling_cli", "serve", "agents.yml"])
    shown = b""
    while b"ready in" not in shown:
        shown += await asyncio.to_thread(os.read, terminal, 4096)
    os.close(terminal)
    if detached:
        async with aiohttp.ClientSession() as session:
            for _ in range(5):
                assert (await post(session, f"http://127.0.0.1:{port}/webhook", {"n": 1}))[0] == 202
        os.kill(pid, signal.SIGTERM)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


async def test_the_lines_for_people(tmp_path: Path) -> None:
    project(tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmling_cli", "serve", "agents.yml",
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None

    async def line(start: str) -> str:
        assert process.stdout is not None
        while not (found := (await process.stdout.readline()).decode()).startswith(start):
            assert found, f"no line starts with {start!r}"
        return found.strip()

    async with asyncio.timeout(60):
        await line("ready")
        (tmp_path / "more" / "b.yml").write_text("agents: {b: {modle: demo}}\n")
        assert "not reloaded: more/b.yml:1:14: error LL201" in await line("not reloaded")
        assert await line("1 |") == "1 | agents: {b: {modle: demo}}"
        (tmp_path / "more" / "b.yml").write_text("agents: {b: {model: demo}}\n")
        assert await line("reloaded") == "reloaded: 1 agent added (b)"
        process.send_signal(signal.SIGTERM)
        rest = (await process.stdout.read()).decode()
        assert "reload" not in rest
        assert await process.wait() == 0
