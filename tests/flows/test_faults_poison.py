"""One event that kills the process whenever it runs: it dies of it, and none of its neighbours does."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from chaos import Trial
from llm_server import Call, LLMServer, Reply, Request
from serving import Serve, free_port, post, until

FULL = bool(os.environ.get("CHAOS"))
EVENTS = 1_000 if FULL else 12
POISON = {"3", "17", "18", "120"} if FULL else {"7"}
SLOW_S = 0.5 if FULL else 0.2

TOOLS = f'''
import os

def check(number: str) -> str:
    """Check a number."""
    if number in {POISON!r}:
        os._exit(9)
    return "fine"
'''

MANIFEST = """
server: false
agents:
  a:
    model: openai/test-model
    concurrency: 20
    inbox: {{size: 1000}}
    redelivery: {{attempts: {attempts}}}
    tools: [{{type: function, function: "tools:check", idempotent: true}}]
    triggers: [{{type: webhook, name: hook, port: {port}, prompt: "number {{{{ event.data.number }}}}"}}]
"""


def answer(request: Request) -> Reply:
    """Have a number checked and say so; slow enough for all neighbours to be in flight when one kills the process."""
    messages = request.body["messages"]
    number = next(str(m["content"]) for m in messages if m["role"] == "user").removeprefix("number ")
    if messages[-1]["role"] != "tool":
        return Reply(calls=[Call("check", {"number": number})], delay_s=0.02 if number in POISON else SLOW_S)
    return Reply(f"checked {number}", delay_s=SLOW_S)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("attempts", [5, 2] if FULL else [2])
async def test_a_poison_event_dies_and_its_neighbours_do_not(tmp_path: Path, attempts: int) -> None:
    trial, port = Trial(f"poison that kills the process, {attempts} tries (Q2)"), free_port()
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "agents.yml").write_text(MANIFEST.format(port=port, attempts=attempts))
    events: dict[str, str] = {}
    async with LLMServer(answer) as server, aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        serve = Serve(tmp_path, env={"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": "test"})
        stack.push_async_exit(serve)
        starts = 0
        while True:
            await serve.start()
            starts += 1
            for number in (str(n) for n in range(EVENTS) if str(n) not in events):
                url, delivery_id = f"http://127.0.0.1:{port}/webhook", {"webhook-id": number}
                status, body = await post(session, url, {"number": number}, **delivery_id)
                if status in {200, 202}:
                    events[number] = body["event_id"]

            def settled() -> bool:
                return len(events) == EVENTS and not set(records(tmp_path)) - {"done", "dead"}

            await until(lambda: not serve.running or settled(), "a crash, or the end", 240)
            if serve.running:
                break
        assert await serve.stop() == 0
    # A crash counts for everybody it met in flight: two that are poison need fewer together.
    assert attempts < starts <= attempts * len(POISON) + 1
    found = records(tmp_path, "dead")
    assert {event: reason for event, reason in found.items() if event not in {events[n] for n in POISON}} == {}
    assert set(found) == {events[number] for number in POISON}
    assert set(found.values()) == {f"the process died {attempts} times while running this delivery"}
    trial.holds(events=EVENTS, kills=starts - 1)


def records(folder: Path, status: str | None = None) -> dict[str, str | None]:
    """Return the statuses there are, or the reasons of the events of one status."""
    connection = sqlite3.connect(f"file:{folder}/.llmling/pool.db?mode=ro", uri=True)
    try:
        if status is None:
            return dict.fromkeys(row[0] for row in connection.execute("select distinct status from event"))
        return dict(connection.execute("select id, error from event where status = ?", (status,)).fetchall())
    finally:
        connection.close()
