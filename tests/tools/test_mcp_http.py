"""Real MCP servers over streamable HTTP, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving import free_port, until

from llmling.errors import ToolError
from llmling.manifest.tools import HttpServerConfig
from llmling.protocols import Tool
from llmling.runtime.services import Services
from llmling.tools.mcp import McpServer

SERVER = Path(__file__).parent / "servers" / "http_server.py"


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    tasks = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - tasks <= {asyncio.current_task()}


@pytest.fixture
def port() -> int:
    return free_port()


@contextlib.asynccontextmanager
async def prepared(port: int, *args: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """A server that has loaded and listens when told to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), str(port), *args, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"prepared\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def listen(process: asyncio.subprocess.Process, port: int) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    async with asyncio.timeout(20):
        while not await listens(port):  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(port: int, *args: str) -> AsyncGenerator[None, None]:
    async with prepared(port, *args) as process:
        await listen(process, port)
        yield


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def reach(port: int, **keys: Any) -> McpServer:
    config = HttpServerConfig(url=f"http://127.0.0.1:{port}/mcp", **keys)
    return McpServer(config, Services(), "web")


def named(server: McpServer, name: str) -> Tool:
    return next(tool for tool in server.tools() if tool.spec.name == f"web_{name}")


async def test_tools_headers_and_big_results(port: int) -> None:
    async with (
        running(port, "--token", "secret-token"),
        reach(port, headers={"Authorization": "Bearer secret-token"}) as server,
    ):
        assert await server.wait_ready(20)
        assert {tool.spec.name for tool in server.tools()} == {"web_hello", "web_big", "web_process", "web_grow"}
        assert (await named(server, "hello").call({"name": "you"})).startswith("hello you from ")
        text = await named(server, "big").call({"characters": 5_000_000})
        assert text.endswith("[cut after 199,940 of 5,000,000 characters]")


async def test_a_refusal_names_the_status_and_no_secret(port: int) -> None:
    async with (
        running(port, "--token", "secret-token"),
        reach(port, headers={"Authorization": "Bearer wrong-token"}) as server,
    ):
        await server.settled()
        assert server.reason == f"http://127.0.0.1:{port}: it answered HTTP 401 Unauthorized"


async def test_a_server_that_hangs_up_is_told_as_such(port: int) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", port), reach(port) as server:
        await server.settled()
        assert str(server.reason).startswith(f"the connection to http://127.0.0.1:{port} was lost: ")


async def test_a_server_that_starts_later_is_found(port: int) -> None:
    async with reach(port, call_timeout_s=0.4) as server:
        await server.settled()
        assert server.state == "broken"
        assert str(server.reason).startswith(f"cannot connect to http://127.0.0.1:{port}: ")
        with pytest.raises(ToolError, match=r"'web' is not available: cannot connect.*; it is being restarted"):
            await server.call("hello", {"name": "x"}, repeatable=False)
        async with running(port):
            assert await server.wait_ready(20)
            assert (await named(server, "hello").call({"name": "x"})).startswith("hello x")


@pytest.mark.parametrize("args", [(), ("--legacy",)])
async def test_a_restarted_server_answers_the_next_call(port: int, args: tuple[str, ...]) -> None:
    async with reach(port) as server, prepared(port, *args) as next_one, prepared(port, *args) as last_one:
        async with running(port, *args):
            assert await server.wait_ready(20)
            first = await named(server, "hello").call({"name": "x"})
        # It is down: this call surely never arrived, so it waits for the server to return although it is unmarked.
        call = asyncio.create_task(named(server, "hello").call({"name": "x"}))
        async with asyncio.timeout(30):
            while server.state == "ready":  # noqa: ASYNC110 - waits for the state, not for an event of the test
                await asyncio.sleep(0.01)
        await listen(next_one, port)
        second = await call
        assert re.sub(r"\d+", "", first) == re.sub(r"\d+", "", second)
        assert first != second
        next_one.kill()
        await next_one.wait()
        await listen(last_one, port)
        # Restarted between two calls: a session of before is forgotten, which the caller need not know.
        third = await named(server, "hello").call({"name": "x"})
        assert third not in {first, second}


@pytest.mark.parametrize("args", [(), ("--legacy",)])
async def test_new_tools_are_seen_while_it_runs(port: int, args: tuple[str, ...]) -> None:
    async with running(port, *args), reach(port) as server:
        assert await server.wait_ready(20)
        assert await named(server, "grow").call({}) == "ok"
        async with asyncio.timeout(10):
            while "web_grown" not in {tool.spec.name for tool in server.tools()}:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        assert await named(server, "grown").call({}) == "grown"


async def test_while_it_is_down_calls_end_with_the_reason(port: int) -> None:
    async with reach(port, call_timeout_s=1) as server:
        async with running(port):
            assert await server.wait_ready(20)
            tool = named(server, "process")
            await tool.call({})
        # What is told first is what was noticed first: that the connection is gone, or that there is none to be had.
        with pytest.raises(ToolError, match=r"'web' is not available: .*http://127.0.0.1:\d+.*; it is being restarted"):
            await tool.call({})
        await until(lambda: "cannot connect" in (server.reason or ""), "another try to connect")
        with pytest.raises(ToolError, match=r"'web' is not available: cannot connect to http://127.0.0.1:\d+"):
            await tool.call({})
        assert server.state in {"broken", "starting"}
        assert len(server.tools()) == 4
