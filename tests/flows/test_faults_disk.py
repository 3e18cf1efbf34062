"""The engine's file on a bad day: no room, deleted, replaced, unreadable. Nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from serving import Serve, free_port, llmling, post, until

MANIFEST = """
agents:
  a:
    model: demo
    triggers:
      - {{type: webhook, name: hook, port: {port}}}
      - {{type: file, name: watch, paths: [inbox], settle_s: 0.1}}
"""


def project(folder: Path) -> str:
    """Write the manifest and return the address of its webhook."""
    port = free_port()
    (folder / "agents.yml").write_text(MANIFEST.format(port=port))
    (folder / "inbox").mkdir()
    return f"http://127.0.0.1:{port}/webhook"


def recorded(folder: Path) -> dict[str, str]:
    """Return the status of every event in the engine's file."""
    connection = sqlite3.connect(f"file:{folder}/.llmling/pool.db?mode=ro", uri=True)
    try:
        return dict(connection.execute("select id, status from event").fetchall())
    finally:
        connection.close()


async def readiness(session: aiohttp.ClientSession, serve: Serve) -> tuple[int, str]:
    """Return status and body of `/readyz`."""
    async with session.get(f"{serve.server_url}/readyz") as response:
        return response.status, await response.text()


async def test_without_room_nothing_is_acknowledged_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    url = project(tmp_path)
    async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
        accepted = {(await post(session, url, {"n": 0}))[1]["event_id"]}
        await until(lambda: serve.events, "the first event")
        process = psutil.Process(serve.pid)
        process.rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for number in range(20):
            async with session.post(url, json={"n": number}) as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) > 0
        (tmp_path / "inbox" / "a.md").write_text("a file")
        status, reasons = await readiness(session, serve)
        assert status == 503
        assert "pool.db cannot be written" in reasons
        await asyncio.sleep(0.5)
        assert len(serve.events) == 1
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until(lambda: len(serve.events) == 2, "the file that waited")
        accepted.add((await post(session, url, {"n": 1}))[1]["event_id"])
        await until(lambda: len(serve.events) == 3, "an event after it")
        assert (await readiness(session, serve))[0] == 200
    assert set(recorded(tmp_path).values()) == {"done"}
    assert len(recorded(tmp_path)) == 3
    assert accepted < set(recorded(tmp_path))


def delete_all(path: Path) -> None:
    """Delete the engine's file with its log."""
    for file in path.parent.glob("pool.db*"):
        file.unlink()


def replace(path: Path) -> None:
    """Put another SQLite file where the engine's was."""
    other = path.with_name("other")
    sqlite3.connect(other).close()
    other.replace(path)


@pytest.mark.parametrize("harm", [delete_all, Path.unlink, replace])
async def test_a_file_that_was_taken_away_acknowledges_nothing(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    url = project(tmp_path)
    async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
        harm(tmp_path / ".llmling" / "pool.db")
        assert (await post(session, url, {}))[0] == 503
        status, reasons = await readiness(session, serve)
        assert status == 503
        assert "pool.db" in reasons
        assert "put pool.db and its -wal and -shm files back, or restart" in reasons
        assert await serve.stop() == 0
        assert not any("Traceback" in line for line in serve.errors)
        await serve.start()
        assert (await post(session, url, {}))[0] == 202
        await until(lambda: serve.events, "the event after the restart")


async def test_a_file_that_was_moved_away_and_back_goes_on(tmp_path: Path) -> None:
    url = project(tmp_path)
    async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
        folder = tmp_path / ".llmling"
        folder.rename(tmp_path / "elsewhere")
        assert (await post(session, url, {}))[0] == 503
        (tmp_path / "elsewhere").rename(folder)
        assert (await post(session, url, {}))[0] == 202
        await until(lambda: serve.events, "the event")


def garbage(path: Path) -> None:
    """Write something that is no database."""
    path.write_bytes(b"no database at all" * 1000)


def torn(path: Path) -> None:
    """Write a database whose second half is garbage."""
    connection = sqlite3.connect(path)
    connection.executescript("create table t(a); insert into t select zeroblob(100000);")
    connection.close()
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"\xff" * 2000)


def folder_instead(path: Path) -> None:
    """Put a folder where the file should be."""
    path.mkdir()


@pytest.mark.parametrize("harm", [garbage, torn, folder_instead])
async def test_what_cannot_be_opened_is_one_actionable_line(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    project(tmp_path)
    (tmp_path / ".llmling").mkdir()
    harm(tmp_path / ".llmling" / "pool.db")
    code, out, err = await llmling(tmp_path, "serve", "agents.yml")
    assert code == 1
    errors = [line for line in err.splitlines() if line.strip()]
    assert len(errors) == 1
    assert "pool.db" in errors[0]
    assert "Traceback" not in out + err


async def test_a_folder_that_cannot_be_made_is_one_actionable_line(tmp_path: Path) -> None:
    project(tmp_path)
    manifest = tmp_path / "agents.yml"
    manifest.write_text(manifest.read_text() + "engine: {path: /proc/nowhere/pool.db}\n")
    code, _, err = await llmling(tmp_path, "serve", "agents.yml")
    assert code == 1
    assert "/proc/nowhere cannot be made" in err
    assert "change `engine.path`" in err
