"""`llmling serve` as a person sees it: the console, signals, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import aiohttp
import psutil
from console_process import ConsoleProcess
from serving import eventually, llmling, post, until

from llmling import Manifest
from llmling.firing import open_engine

POOL = """\
mcp_servers:
  gone: {type: stdio, command: no-such-command}
limits: {drain_timeout_s: 30}
agents:
  reader:
    model: demo:script.yml
    mcp_servers: [gone]
    retries: {attempts: 1}
    redelivery: {attempts: 1}
    triggers: [{type: webhook, name: hook, port: PORT, filter: "event.data.text"}]
    connections: [editor]
  editor:
    model: demo:script.yml
"""
SCRIPT = """\
- {match: "fail", error: 500}
- {match: "slow", reply: "at last", delay_s: 2}
- {match: "points", reply: "one paragraph"}
- {match: ".", reply: "points"}
"""


def write(folder: Path, port: int, text: str = POOL) -> None:
    (folder / "agents.yml").write_text(text.replace("PORT", str(port)))
    (folder / "script.yml").write_text(SCRIPT)


async def send(port: int, *texts: str | None) -> list[str]:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/webhook"
        return [(await post(session, url, {"text": text}))[1]["event_id"] for text in texts]


async def test_the_console_tells_what_runs_and_what_happened(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port)
    async with ConsoleProcess(tmp_path, "serve", "agents.yml") as serve:
        ready = await serve.line("ready in ")
        good, bad, filtered = await send(free_tcp_port, "hello", "fail", None)
        lines = [await serve.line(event_id) for event_id in (good, bad, filtered)]
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.exit_code() == 0
    assert serve.lines[0] == "llmling 0.1.0 · agents.yml · 2 agents"
    shown = [line.split() for line in serve.lines]
    assert ["editor", "demo:script.yml", "0", "ready"] in shown
    assert ["hook", "webhook", "reader", f"http://127.0.0.1:{free_tcp_port}/webhook"] in shown
    assert any(cells[:1] == ["gone"] for cells in shown)
    assert " · 2 agents · 1 trigger · http://127.0.0.1:" in ready
    assert lines[0].startswith(f"{good}  hook  reader  done  one paragraph  ")
    assert lines[0].endswith(" s  $0")
    assert lines[1].startswith(f"{bad}  hook  reader  dead  ")
    assert "500" in lines[1]
    assert lines[2].startswith(f"{filtered}  hook  reader  filtered  ")
    assert serve.lines[-1] == "draining: nothing is running (again to force)"
    assert not any("\x1b" in line for line in serve.lines)


async def test_an_event_that_waits_for_a_person_is_told_once(tmp_path: Path, free_tcp_port: int) -> None:
    trigger = "{type: webhook, name: hook, port: PORT}"
    write(tmp_path, free_tcp_port, f"server: false\nagents: {{boss: {{model: human, triggers: [{trigger}]}}}}\n")
    async with ConsoleProcess(tmp_path, "serve", "agents.yml") as serve:
        await serve.line("ready")
        (event_id,) = await send(free_tcp_port, "Shall we?")
        assert "waiting  question to 'boss'" in await serve.line(event_id)
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.exit_code() == 0
    assert [line for line in serve.errors if event_id in line] == []


async def test_the_first_line_comes_within_a_second_on_an_idle_machine(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port)
    begun = time.monotonic()
    async with ConsoleProcess(tmp_path, "serve", "agents.yml") as serve:
        await serve.line("llmling ")
        took_s = time.monotonic() - begun
        busy = psutil.Process(serve.process.pid).cpu_times()
        # A machine that is busy with other tests counts by what this process itself has used.
        assert took_s < 1 or busy.user + busy.system < 1


async def test_the_first_signal_drains_what_runs(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port)
    async with ConsoleProcess(tmp_path, "serve", "agents.yml") as serve:
        await serve.line("ready")
        # Once one is done its agent is ready; before that an event that is started waits for it, and is put back.
        (first,) = await send(free_tcp_port, "good")
        await _becomes("done", tmp_path, first)
        (event_id,) = await send(free_tcp_port, "slow")
        await _becomes("running", tmp_path, event_id)
        serve.process.send_signal(signal.SIGINT)
        assert await serve.line("draining") == "draining: 1 event running, up to 30 s (again to force)"
        assert await serve.exit_code() == 0
    _, out, _ = await llmling(tmp_path, "events", "show", "agents.yml", event_id, "--json")
    assert json.loads(out)["content"] == "at last"


async def test_the_second_signal_ends_it_now(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port, POOL.replace("no-such-command", "sleep, args: ['600']"))
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        async with ConsoleProcess(tmp_path, "serve", "agents.yml") as serve:
            await serve.line("ready")
            child = await until(lambda: psutil.Process(serve.process.pid).children(), "the MCP server's process")
            (event_id,) = await send(free_tcp_port, "slow")
            await _becomes("running", tmp_path, event_id)
            serve.process.send_signal(number)
            await serve.line("draining")
            serve.process.send_signal(number)
            assert await serve.exit_code() == code
            assert not child[0].is_running() or child[0].status() == psutil.STATUS_ZOMBIE
    _, out, _ = await llmling(tmp_path, "events", "list", "agents.yml", "--json")
    assert event_id in out


async def test_a_signal_while_it_starts_ends_it(tmp_path: Path, free_tcp_port: int) -> None:
    slow = POOL.replace("no-such-command", "sleep, args: ['600'], required: true")
    write(tmp_path, free_tcp_port, slow)
    async with ConsoleProcess(tmp_path, "serve", "agents.yml") as serve:
        await serve.line("llmling ")
        await until(lambda: psutil.Process(serve.process.pid).children(), "the MCP server's process")
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.exit_code() == 0
    assert not any(line.startswith("ready") for line in serve.lines)


async def test_json_prints_objects_only_and_logs_go_to_standard_error(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port)
    async with ConsoleProcess(tmp_path, "serve", "agents.yml", "--json", "--log-format", "json") as serve:
        await serve.line('{"type": "ready"')
        (event_id,) = await send(free_tcp_port, "hello")
        await serve.line(f'{{"type": "event", "id": "{event_id}"')
        await until(lambda: serve.errors, "the log record about the MCP server that is gone")
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.exit_code() == 0
    ready, event = (json.loads(line) for line in serve.lines)
    assert ready["server_url"].startswith("http://127.0.0.1:")
    assert (event["id"], event["status"], event["outcome"]) == (event_id, "done", "ran")
    records = [json.loads(line) for line in serve.errors]
    assert {"time", "level", "logger", "message"} <= set(records[0])


async def test_what_the_user_can_mend_is_exit_code_2(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port)
    with socket.create_server(("127.0.0.1", free_tcp_port)):
        status, _, err = await llmling(tmp_path, "serve", "agents.yml")
    assert status == 2
    assert str(free_tcp_port) in err
    write(tmp_path, free_tcp_port, POOL.replace("demo:script.yml", "openai/gpt-4o-mini"))
    status, _, err = await llmling(tmp_path, "serve", "agents.yml")
    assert status == 2
    assert "OPENAI_API_KEY" in err
    assert "agents.yml:6:" in err
    write(tmp_path, free_tcp_port, POOL.replace("no-such-command", "no-such-command, required: true"))
    status, _, err = await llmling(tmp_path, "serve", "agents.yml")
    assert status in {1, 2}
    assert "no-such-command" in err
    assert "Traceback" not in err


async def test_a_second_serve_on_the_same_file_is_refused(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port)
    async with ConsoleProcess(tmp_path, "serve", "agents.yml") as serve:
        await serve.line("ready")
        status, _, err = await llmling(tmp_path, "serve", "agents.yml")
        assert status == 2
        assert str(serve.process.pid) in err


async def test_serve_goes_on_when_its_reader_goes_away(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, free_tcp_port)
    read, out = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmling_cli", "serve", "agents.yml", cwd=tmp_path, stdout=out,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(out)
    printed = b""
    while b"\nready" not in printed:
        printed += await asyncio.to_thread(os.read, read, 65536)
    os.close(read)
    events = await send(free_tcp_port, "hello", "hello again")
    for event_id in events:
        await _becomes("done", tmp_path, event_id)
    process.terminate()
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    assert "Traceback" not in err.decode()


async def _becomes(status: str, folder: Path, event_id: str) -> None:
    """Return once an event has a status; looked at without a process for each look, which would miss short ones."""

    async def look() -> bool | None:
        record = await engine.inspect(event_id)
        return True if record is not None and record.status == status else None

    async with open_engine(Manifest.load(folder / "agents.yml")) as engine:
        await eventually(look, f"the event to be {status}", 60)
