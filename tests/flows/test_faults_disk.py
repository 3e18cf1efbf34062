"""The engine's file on a bad day: no room, deleted, replaced, unreadable. Nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from chaos import Trial
from serving import Serve, free_port, llmling, post, rows, until

LOCKED_S = 5 if os.environ.get("CHAOS") else 0.3

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


@pytest.mark.chaos
async def test_a_lock_that_somebody_else_holds_delays_and_loses_nothing(tmp_path: Path) -> None:
    trial, url = Trial("engine's file locked by somebody else (Q7)"), project(tmp_path)
    async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
        other = sqlite3.connect(tmp_path / ".llmling" / "pool.db", isolation_level=None)
        other.execute("begin immediate")
        posting = [asyncio.create_task(post(session, url, {"n": number})) for number in range(20)]
        # How long it is locked is the matter of this trial.
        done, _ = await asyncio.wait(posting, timeout=LOCKED_S)
        assert not done, "nothing can have been recorded"
        other.execute("rollback")
        other.close()
        answers = await asyncio.gather(*posting)
        assert {status for status, _ in answers} == {202}
        await until(lambda: len(serve.events) == 20, "every event")
        assert await serve.stop() == 0
    assert recorded(tmp_path) == dict.fromkeys((body["event_id"] for _, body in answers), "done")
    trial.holds(events=20, measured=f"locked for {LOCKED_S:g} s")


async def test_a_log_that_is_torn_leaves_no_half_of_an_event(tmp_path: Path) -> None:
    url, accepted = project(tmp_path), set[str]()
    serve = Serve(tmp_path)
    await serve.start()
    async with aiohttp.ClientSession() as session:
        for number in range(20):
            accepted.add((await post(session, url, {"n": number}))[1]["event_id"])
    await serve.kill()
    log = tmp_path / ".llmling" / "pool.db-wal"
    with log.open("r+b") as file:
        file.seek(log.stat().st_size // 2)
        file.write(b"\xff" * 5000)
    async with serve:
        assert await serve.stop() == 0
    left = recorded(tmp_path)
    assert left.keys() < accepted, "what lay behind the tear is gone; that is what disks are for"
    assert rows(tmp_path / ".llmling" / "pool.db", "pragma integrity_check") == [("ok",)]
    whole = "select count(*) from event e join delivery d on d.event_id = e.id where e.status = d.status"
    assert rows(tmp_path / ".llmling" / "pool.db", whole) == [(len(left),)]
