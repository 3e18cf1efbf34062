"""Real MCP servers over standard input and output, well and badly behaved."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos import Trial

from llmling.errors import StartupError, ToolError
from llmling.manifest.tools import StdioServerConfig
from llmling.protocols import Tool
from llmling.runtime.lifespan import Lifespans
from llmling.runtime.services import Services
from llmling.tools.mcp import McpServer

FULL = bool(os.environ.get("CHAOS"))
SERVER = Path(__file__).parent / "servers" / "misbehaving.py"
TINY = Path(__file__).parent / "servers" / "tiny.py"
LIBRARY = Path(__file__).parents[2] / "examples" / "library_server.py"


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    tasks, children = asyncio.all_tasks(), {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    assert asyncio.all_tasks() - tasks <= {asyncio.current_task()}
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children


def serve(behaviour: str = "", **keys: Any) -> McpServer:
    config = StdioServerConfig(command=sys.executable, args=[str(SERVER), behaviour], **keys)
    return McpServer(config, Services(folder=SERVER.parent), "files")


async def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - other processes set no events
            await asyncio.sleep(0.01)


def command_line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def named(server: McpServer, name: str) -> Tool:
    return next(tool for tool in server.tools() if tool.spec.name == f"files_{name}")


async def test_the_example_server_end_to_end() -> None:
    config = StdioServerConfig(command="python", args=["library_server.py"])
    async with McpServer(config, Services(folder=LIBRARY.parent), "library") as server:
        assert server.state == "starting"
        assert server.tools() == ()
        assert await server.wait_ready(20)
        assert server.reason is None
        assert server.ready_s is not None
        assert server.ready_s > 0
        tools = {tool.spec.name: tool for tool in server.tools()}
        assert set(tools) == {"library_text_statistics", "library_search_notes", "library_read_note"}
        assert all(tool.repeatable and tool.timeout_s == 60 for tool in tools.values())
        statistics = tools["library_text_statistics"]
        assert statistics.spec.description.startswith("Count words")
        assert statistics.spec.parameters["required"] == ["text"]
        counted = json.loads(await statistics.call({"text": "One two. Three sentences? No: two sentences!"}))
        assert (counted["words"], counted["sentences"], counted["frequent"][0]) == (7, 3, "sentences")
        found = json.loads(await tools["library_search_notes"].call({"query": "restore backups", "limit": 1}))
        assert found == {
            "title": "backups.md",
            "line": "A restore takes about forty minutes; practise it every quarter.",
        }
        assert "tape safe" in await tools["library_read_note"].call({"title": "backups.md"})
        with pytest.raises(ToolError, match=r"no note 'x'; there are: backups\.md"):
            await tools["library_read_note"].call({"title": "x"})
        assert await server.read_resource("notes://index") == "backups.md\nincidents.md\nstyle.txt"
    assert server.state == "stopped"
    with pytest.raises(ToolError, match="it was stopped"):
        await statistics.call({"text": ""})


async def test_names_results_limits_and_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "do not pass on")
    async with serve(call_timeout_s=10, env={"GREETING": "hello"}) as server:
        assert await server.wait_ready(20)
        read = named(server, "files_read_text")
        assert read.repeatable
        assert not named(server, "slow").repeatable
        assert await read.call({"name": "x"}) == "text of x"
        with pytest.raises(ToolError, match="no: way"):
            await named(server, "fails").call({"text": "way"})
        with pytest.raises(ToolError, match="name"):
            await read.call({"nam": "x"})
        text = await named(server, "big").call({"characters": 200_001})
        assert text.endswith("x\n[cut after 199,940 of 200,001 characters]")
        assert await named(server, "big").call({"characters": 200_000}) == "x" * 200_000
        environment = json.loads(await named(server, "environment").call({}))
        allowed = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "GREETING", "LLMLING_MCP_ID", "LC_CTYPE"}
        assert set(environment) <= allowed
        assert environment["GREETING"] == "hello"
        assert await server.read_resource("notes://one") == "a note"
        with pytest.raises(ToolError, match="'notes://binary' is no text"):
            await server.read_resource("notes://binary")
        with pytest.raises(ToolError, match="MCP error"):
            await server.read_resource("notes://nothing")
        calls = [asyncio.create_task(named(server, "slow").call({"seconds": 0.3})) for _ in range(20)]
        began = time.monotonic()
        assert await asyncio.gather(*calls) == ["done"] * 20
        assert time.monotonic() - began < 20 * 0.3


async def test_a_call_that_takes_too_long_leaves_the_server_usable() -> None:
    async with serve(call_timeout_s=0.5) as server:
        assert await server.wait_ready(20)
        with pytest.raises(
            ToolError, match=r"tool 'slow' of MCP server 'files' took longer than 0.5 s \(call_timeout_s\)"
        ):
            await named(server, "slow").call({"seconds": 30})
        assert await named(server, "files_read_text").call({"name": "x"}) == "text of x"
        call = asyncio.create_task(named(server, "slow").call({"seconds": 30}))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await named(server, "files_read_text").call({"name": "x"}) == "text of x"
        assert server.starts == 1


async def test_a_stuck_server_is_replaced() -> None:
    async with serve(call_timeout_s=0.2) as server:
        assert await server.wait_ready(20)
        with pytest.raises(ToolError, match="took longer than"):
            await named(server, "wedge").call({})
        await until(lambda: server.state != "ready")
        assert server.reason == "it has not answered for 5 s"
        assert await server.wait_ready(20)
        assert server.starts == 2


async def test_only_allowed_tools_are_on_offer(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(tools=["files/read.text", "slwo"]) as server:
        assert await server.wait_ready(20)
        assert [tool.spec.name for tool in server.tools()] == ["files_files_read_text"]
    assert "MCP server 'files' has no tool slwo; it has: big, die" in caplog.text


async def test_new_tools_are_seen_while_it_runs() -> None:
    async with serve() as server:
        assert await server.wait_ready(20)
        before = len(server.tools())
        assert await named(server, "grow").call({}) == "ok"
        await until(lambda: len(server.tools()) == before + 1)
        assert await named(server, "grown").call({}) == "grown"
        assert server.starts == 1


async def test_a_killed_server_comes_back_for_the_next_call() -> None:
    async with serve() as server:
        assert await server.wait_ready(20)
        read = named(server, "files_read_text")
        [child] = psutil.Process().children()
        child.kill()
        await until(lambda: server.state != "ready")
        assert read.spec in [tool.spec for tool in server.tools()]
        assert await read.call({"name": "x"}) == "text of x"
        assert (server.starts, server.state) == (2, "ready")


async def test_dying_in_a_call_is_an_error_the_model_reads_unless_it_may_be_repeated(tmp_path: Path) -> None:
    async with serve() as server:
        assert await server.wait_ready(20)
        with pytest.raises(ToolError, match=r"broke during this call.*whether it took effect is not known"):
            await named(server, "die").call({"marker": str(tmp_path / "plain")})
        assert await server.wait_ready(20)
        assert server.starts == 2
        answer = await named(server, "die_repeatable").call({"marker": str(tmp_path / "repeatable")})
        assert answer == "survived"
        assert server.starts == 3


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("exits", "it exited with status 7; its last words: ModuleNotFoundError: No module named 'nope'"),
        ("long_line", "it sent a line longer than 33,554,432 bytes"),
    ],
)
async def test_a_start_that_fails_says_why(behaviour: str, reason: str) -> None:
    async with serve(behaviour) as server:
        await server.settled()
        assert (server.state, server.reason) == ("broken", reason)
        assert server.tools() == ()


async def test_a_missing_command_or_folder_is_named_and_found_later(tmp_path: Path) -> None:
    config = StdioServerConfig(command=str(tmp_path / "nope-cmd"), args=[str(SERVER)])
    async with McpServer(config, Services(), "files") as server:
        await server.settled()
        assert server.reason == f"no such command: {str(tmp_path / 'nope-cmd')!r}; install it, or write its full path"
        command = tmp_path / "nope-cmd"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        command.chmod(0o755)
        assert await server.wait_ready(20)
    config = StdioServerConfig(command="python", cwd="nowhere")
    async with McpServer(config, Services(folder=tmp_path), "files") as server:
        await server.settled()
        assert server.reason == f"its working directory {str(tmp_path / 'nowhere')!r} does not exist"


@pytest.mark.parametrize("behaviour", ["silent", "ignores_all"])
async def test_a_silent_server_costs_its_start_timeout_and_no_more(behaviour: str) -> None:
    began = time.monotonic()
    async with serve(behaviour, start_timeout_s=1) as server:
        await server.settled()
        assert time.monotonic() - began < 1 + 30
        assert server.reason == "no answer within 1 s (start_timeout_s)"


async def test_a_required_server_that_fails_stops_the_start() -> None:
    with pytest.raises(StartupError, match="MCP server 'files' is required and did not start: it exited with status 7"):
        async with serve("exits", required=True):
            raise AssertionError
    async with serve(required=True) as server:
        assert server.state == "ready"


async def test_a_call_while_it_is_broken_says_so_in_time() -> None:
    async with serve("exits", call_timeout_s=0.3) as server:
        await server.settled()
        with pytest.raises(
            ToolError, match=r"MCP server 'files' is not available: it exited with.*; it is being restarted"
        ):
            await server.call("anything", {}, repeatable=True)


async def test_a_server_that_stays_down_is_left_alone_after_five_calls() -> None:
    async with serve("exits", call_timeout_s=0.05) as server:
        await server.settled()
        for _ in range(5):
            with pytest.raises(ToolError, match="is not available"):
                await server.call("anything", {}, repeatable=True)
        with pytest.raises(ToolError, match=r"MCP server 'files' is not asked \(5 requests in a row .* next try is in"):
            await server.call("anything", {}, repeatable=True)


async def test_noise_on_standard_output_is_left_out() -> None:
    async with serve("junk") as server:
        assert await server.wait_ready(20)
        assert await named(server, "files_read_text").call({"name": "x"}) == "text of x"


async def test_standard_error_goes_to_the_log_at_a_bounded_rate(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, "llmling.mcp.files"):
        async with serve("noisy") as server:
            assert await server.wait_ready(20)
    lines = [record for record in caplog.records if record.name == "llmling.mcp.files"]
    assert 200 <= len(lines) < 400
    assert "line 0 of noise" in [record.getMessage() for record in lines]
    assert capfd.readouterr().err.count("of noise") == 0


async def test_a_stubborn_server_and_all_its_descendants_end() -> None:
    async with serve("ignores_eof") as server:
        assert await server.wait_ready(20)
        began = time.monotonic()
    assert time.monotonic() - began < 30
    async with serve("grandchildren") as server:
        assert await server.wait_ready(20)
        # Of this process: others test the same at the same time.
        descendants = psutil.Process().children(recursive=True)
        naps = [each for each in descendants if "time.sleep(600)" in command_line(each.pid)]
        assert len(naps) == 2
    assert not any(nap.is_running() and nap.status() != psutil.STATUS_ZOMBIE for nap in naps)


async def test_cancelling_during_the_start_leaves_nothing() -> None:
    async def hold() -> None:
        async with serve("silent", required=True):
            raise AssertionError

    task = asyncio.create_task(hold())
    await until(lambda: bool(psutil.Process().children()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_many_start_side_by_side_and_a_dead_one_harms_only_itself(tmp_path: Path) -> None:
    with_sdk, without = (10, 20) if FULL else (2, 8)
    trial, services = Trial(f"{with_sdk + without} MCP servers at once (P1)"), Services(folder=tmp_path)
    servers = {f"s{number}": serve() for number in range(with_sdk)} | {"dead": serve("exits")}
    for number in range(without):
        config = StdioServerConfig(command=sys.executable, args=[str(TINY), f"t{number}", "files/read.text"])
        servers[f"t{number}"] = McpServer(config, services, "files")
    async with Lifespans() as spans:
        began = time.monotonic()
        started = await spans.enter_all(servers)
        assert all(item.error is None for item in started.values())
        # All are entered before the first is ready: nothing waits for its neighbour.
        assert {server.state for server in servers.values()} == {"starting"}
        await asyncio.gather(*(server.settled() for server in servers.values()))
        up_s = time.monotonic() - began
        states = {name: server.state for name, server in servers.items()}
        assert states == {name: "broken" if name == "dead" else "ready" for name in servers}
        up = {name: server for name, server in servers.items() if name != "dead"}
        answers = await asyncio.gather(
            *(named(server, "files_read_text").call({"name": name}) for name, server in up.items())
        )
        assert answers == [f"text of {name}" if name[0] == "s" else f"files/read.text of {name}" for name in up]
        began = time.monotonic()
    closed_s = time.monotonic() - began
    assert psutil.Process().children(recursive=True) == []
    if FULL:
        # Scopes left by another task than the one that entered them are said to spin for ever.
        busy_s = time.process_time()
        await asyncio.sleep(5)
        assert time.process_time() - busy_s < 1
    trial.holds(events=len(up), measured=f"up in {up_s:.1f} s, gone in {closed_s:.1f} s")


def test_importing_the_provider_does_not_load_the_sdk() -> None:
    program = "import sys, llmling.tools.mcp; sys.exit(bool({'mcp', 'mcp_types', 'httpx2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
