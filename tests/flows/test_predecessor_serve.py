"""What the predecessor's process did on signals and with MCP servers, and what its command line got wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from serving import Serve, free_port, until
from stage import Stage, eventually

SERVER = '''
import pathlib
import time

while not pathlib.Path("gate").exists():
    time.sleep(0.02)

from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("counter", log_level="WARNING")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())

server.run()
'''

MANIFEST = f"""
server: false
limits: {{drain_timeout_s: 0.3}}
mcp_servers:
  counter: {{type: stdio, command: "{sys.executable}", args: [counter.py]}}
agents:
  clerk:
    model: demo
    mcp_servers: [counter]
    triggers: [{{type: webhook, name: hook, port: PORT}}]
  slow:
    model: demo:script.yml
    triggers: [{{type: webhook, name: slow, port: PORT, path: /slow}}]
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    stage.write("counter.py", SERVER)
    stage.write("script.yml", '- {match: "", reply: finally, delay_s: 600}\n')
    stage.write("agents.yml", MANIFEST.replace("PORT", str(stage.port)))
    return stage


async def test_an_event_waits_for_the_mcp_server_of_its_agent(stage: Stage) -> None:
    async with stage.pool(MANIFEST) as pool:
        assert (await stage.post("Please count the words of this.", "/webhook"))[0] == 202

        async def running() -> bool:
            return await stage.count(pool, "running") == 1

        await eventually(running, "the event to run")
        assert stage.done == []
        stage.write("gate", "")
        (record,) = await stage.settled(1)
        assert "count_words answered: 6" in await stage.content(pool, record)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_order(stage: Stage, number: signal.Signals) -> None:
    stage.write("gate", "")
    serve = Serve(stage.folder)
    await serve.start()
    assert (await stage.post("Please count the words of this."))[0] == 202
    await until(lambda: len(serve.events) == 1, "the first event")
    children = serve.children()
    assert children, "the MCP server runs"
    assert (await stage.post({}, "/slow"))[0] == 202
    assert serve.process is not None
    os.kill(serve.pid, number)
    async with asyncio.timeout(60):
        code = await serve.process.wait()
    await serve.stop()
    assert code == 0
    assert not any("Traceback" in line for line in serve.errors), serve.errors
    await until(lambda: not any(child.is_running() for child in children), "the MCP server to be gone")


async def test_what_a_signal_cut_off_is_finished_by_the_next_process(stage: Stage) -> None:
    stage.write("gate", "")
    async with Serve(stage.folder) as serve:
        _, body = await stage.post({}, "/slow")
        assert await serve.stop() == 0
        assert serve.events == []
    stage.write("script.yml", '- {match: "", reply: finally}\n')
    async with Serve(stage.folder) as serve:
        await until(lambda: serve.events, "the event of the earlier process")
        (event,) = serve.events
    assert (event["id"], event["status"]) == (body["event_id"], "done")


async def test_a_trigger_that_breaks_is_armed_again_and_harms_no_other(stage: Stage) -> None:
    """A trigger of another package fails after it was armed: the pool says so and goes on."""
    info = stage.folder / "site" / "fragile-1.0.dist-info"
    stage.write(f"site/{info.name}/METADATA", "Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    stage.write(f"site/{info.name}/entry_points.txt", "[llmling.triggers]\nfragile = fragile:Fragile\n")
    stage.write("site/fragile.py", FRAGILE)
    health = free_port()
    stage.write("agents.yml", BREAKING.replace("PORT", str(stage.port)).replace("HEALTH", str(health)))
    search = os.pathsep.join(filter(None, [str(stage.folder / "site"), os.environ.get("PYTHONPATH")]))
    async with Serve(stage.folder, env={"PYTHONPATH": search}) as serve:
        stage.write("break", "")

        async def told() -> bool:
            status, page = await stage.get(f"{serve.server_url}/readyz")
            return status == 503 and "the bus is gone" in str(page["reasons"])

        await eventually(told, "the pool to tell that the trigger is broken")
        assert (await stage.post({"say": "hello"}))[0] == 202
        (stage.folder / "break").unlink()
        await until(lambda: len(serve.events) >= 2, "the POST, and the event of the trigger armed again")
        assert (await stage.get(f"{serve.server_url}/readyz"))[0] == 200
    assert {event["trigger"] for event in serve.events} == {"hook", "fragile"}
    assert any("fragile" in line and "armed again" in line for line in serve.errors)


BREAKING = """
server: {port: HEALTH}
agents:
  clerk: {model: demo, triggers: [{type: webhook, name: hook, port: PORT}]}
  other: {model: demo, triggers: [{type: fragile, name: fragile}]}
"""

FRAGILE = """
import asyncio
from pathlib import Path
from typing import Literal

from llmling.events import Event
from llmling.manifest.triggers import TriggerBase


class FragileConfig(TriggerBase):
    type: Literal["fragile"] = "fragile"


class Fragile:
    config = FragileConfig

    def __init__(self, config, services, agent):
        self.name, self.place = config.name, "a bus"
        self._break = Path(services.folder) / "break"
        self._lives = 0

    async def run(self, emit, started):
        self._lives += 1
        started()
        if self._lives > 1 and not self._break.exists():
            await emit(Event(source=self.name, type="test", data=f"life {self._lives}"))
            await asyncio.Event().wait()
        while not self._break.exists():
            await asyncio.sleep(0.02)
        raise OSError("the bus is gone")

    async def settled(self, event, status, error):
        pass
"""
