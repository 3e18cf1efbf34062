"""A process that dies between a tool call and the answer to it, again and again: no call is made twice."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from chaos import Trial
from serving import Serve, free_port, post, rows, until

CRASHES = 50 if os.environ.get("CHAOS") else 2

MANIFEST = """
server: false
agents:
  clerk:
    model: demo:script.yml
    hooks: [rules:PowerCut]
    tools: [rules:charge]
    triggers: [{{type: webhook, name: orders, port: {port}, prompt: Charge it}}]
"""
SCRIPT = """
- {match: Charge it, tool_calls: [{name: charge, arguments: {order: it}}]}
- {reply: It is charged.}
"""
RULES = '''
import asyncio
import os
import signal
from pathlib import Path

class PowerCut:
    """Kills the process once for each order: with the tool's result in hand, before the model has seen it."""

    async def before_tool(self, call, run):
        return {"order": str(run.event.data["order"])}

    async def before_model(self, request, run):
        order = run.event.data["order"]
        died = Path(f"died-{order}")
        if request.messages[-1].role == "tool" and not died.exists():
            died.touch()
            # Every other time the result is on its way to the disk.
            await asyncio.sleep(0.3 if order % 2 else 0)
            os.kill(os.getpid(), signal.SIGKILL)

def charge(order: str) -> str:
    """Charge an order."""
    with open("charges.txt", "a") as file:
        file.write(order + "\\n")
        file.flush()
        os.fsync(file.fileno())
    return f"charged {order}"
'''


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_a_call_before_a_crash_is_never_made_again(tmp_path: Path) -> None:
    trial, port = Trial("crash between a tool call and its answer (Q4)"), free_port()
    for name, text in (("agents.yml", MANIFEST.format(port=port)), ("script.yml", SCRIPT), ("rules.py", RULES)):
        (tmp_path / name).write_text(text)
    database, known, unknown = tmp_path / ".llmling" / "pool.db", set[str](), set[str]()
    async with Serve(tmp_path) as serve, aiohttp.ClientSession() as session:
        for order in range(CRASHES):
            status, body = await post(session, f"http://127.0.0.1:{port}/webhook", {"order": order})
            assert status == 202
            event_id = body["event_id"]
            await until(lambda: not serve.running, "the crash")
            recorded = rows(database, f"select key from step where delivery_id = '{event_id}/clerk'")
            (known if ("0.0:result",) in recorded else unknown).add(event_id)
            await serve.start()
            state = f"select status from event where id = '{event_id}' and status in ('done', 'waiting')"
            await until(lambda state=state: rows(database, state), "the event to end, or to wait for a decision")
        assert await serve.stop() == 0
    assert Counter((tmp_path / "charges.txt").read_text().split()) == {str(order): 1 for order in range(CRASHES)}
    found = rows(database, "select id, status from event")
    # Whose result was recorded goes on with it; of the others nobody knows, so somebody is asked.
    assert {event_id for event_id, status in found if status == "done"} == known
    assert {event_id for event_id, status in found if status == "waiting"} == unknown
    assert len(known) >= CRASHES // 2 > 0
    assert rows(database, "pragma integrity_check") == [("ok",)]
    trial.holds(events=CRASHES, kills=CRASHES, measured=f"{len(known)} went on, {len(unknown)} wait for a decision")
