"""Start 30 MCP servers that each sleep 3 s, by bare `mcp.Client`s in owner tasks and by llmling, in one run.

    python benchmarks/mcp_start.py [COUNT] [SLEEP_S]

Prints seconds until all are ready, seconds to close, and the ratio of the two ways; 1.3 is the most we allow.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import mcp
import psutil

from llmling.manifest.tools import StdioServerConfig
from llmling.runtime.lifespan import Lifespans
from llmling.runtime.services import Services
from llmling.tools.mcp import McpServer

SERVER = """
import sys, time
time.sleep(float(sys.argv[1]))
from mcp.server import MCPServer
server = MCPServer("bench", log_level="WARNING")
@server.tool()
def hello(name: str) -> str:
    return "hello " + name
server.run()
"""


async def bare(count: int, sleep_s: float) -> tuple[float, float]:
    leave = asyncio.Event()
    ready = [asyncio.Event() for _ in range(count)]

    async def own(event: asyncio.Event) -> None:
        parameters = mcp.StdioServerParameters(command=sys.executable, args=["-c", SERVER, str(sleep_s)])
        async with mcp.Client(parameters) as client:
            await client.list_tools()
            event.set()
            await leave.wait()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for event in ready:
            group.create_task(own(event))
        for event in ready:
            await event.wait()
        ready_s = time.perf_counter() - began
        leave.set()
        began = time.perf_counter()
    return ready_s, time.perf_counter() - began


async def ours(count: int, sleep_s: float) -> tuple[float, float]:
    config = StdioServerConfig(command=sys.executable, args=["-c", SERVER, str(sleep_s)], start_timeout_s=120)
    servers = {f"s{number}": McpServer(config, Services(), f"s{number}") for number in range(count)}
    began = time.perf_counter()
    async with Lifespans(grace_s=30) as spans:
        await spans.enter_all(servers)
        for server in servers.values():
            assert await server.wait_ready(), server.reason
            assert len(server.tools()) == 1
        ready_s = time.perf_counter() - began
        began = time.perf_counter()
    return ready_s, time.perf_counter() - began


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    sleep_s = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    tasks = asyncio.all_tasks()
    bare_ready_s, bare_close_s = await bare(count, sleep_s)
    our_ready_s, our_close_s = await ours(count, sleep_s)
    left = [child.name() for child in psutil.Process().children(recursive=True)]
    result = {
        "servers": count,
        "sleep_s": sleep_s,
        "bare_ready_s": round(bare_ready_s, 2),
        "llmling_ready_s": round(our_ready_s, 2),
        "ratio": round(our_ready_s / bare_ready_s, 3),
        "bare_close_s": round(bare_close_s, 2),
        "llmling_close_s": round(our_close_s, 2),
        "children_left": len(left),
        "tasks_left": len(asyncio.all_tasks() - tasks),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
