"""The promise under kill -9: every acknowledged event ends exactly once, and no unmarked side effect happens twice."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from chaos import Trial
from llm_server import Call, LLMServer, Reply, Request
from serving import Serve, free_port, post, rows, until

FULL = bool(os.environ.get("CHAOS"))
KILLS = 20 if FULL else 3
EVENTS = 2_000 if FULL else 250

TOOLS = '''
import os

def _append(name, text):
    with open(name, "a") as file:
        file.write(text + "\\n")
        file.flush()
        os.fsync(file.fileno())

def charge(order: str) -> str:
    """Charge an order."""
    _append("charges.txt", order)
    return f"charged {order}"

def note(order: str) -> str:
    """Note an order."""
    _append("notes.txt", order)
    return f"noted {order}"
'''

MANIFEST = """
server: false
limits: {{concurrency: 200}}
agents:
  clerk:
    model: openai/test-model
    concurrency: 100
    inbox: {{size: 5000}}
    redelivery: {{attempts: 100}}  # none of these is poison, but the same ones can be in flight at every kill
    tools:
      - tools:charge
      - {{type: function, function: "tools:note", idempotent: true}}
    triggers:
      - {{type: webhook, name: orders, port: {port}, path: /orders, prompt: "order {{{{ event.data.order }}}}"}}
    connections: [reporter]
  reporter:
    model: openai/test-model
    concurrency: 100
    redelivery: {{attempts: 100}}
"""


def answer(request: Request) -> Reply:
    """Charge and note an order, then say so; a reporter repeats what it is told. Always after 200 ms."""
    messages = request.body["messages"]
    if not request.body.get("tools"):
        return Reply(f"reported: {request.last_text}", delay_s=0.2)
    done = sum(1 for message in messages if message["role"] == "tool")
    order = next(str(m["content"]) for m in messages if m["role"] == "user").removeprefix("order ")
    if done == 0:
        return Reply(calls=[Call("charge", {"order": order}), Call("note", {"order": order})], delay_s=0.2)
    return Reply(f"settled {order}", delay_s=0.2)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_kill_9_under_load_loses_nothing_and_repeats_no_unmarked_call(tmp_path: Path) -> None:
    trial, port = Trial("kill -9 under load of webhooks (W6, Q4)"), free_port()
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "agents.yml").write_text(MANIFEST.format(port=port))
    accepted: dict[str, str] = {}
    seed = random.Random(7)
    async with (
        LLMServer(answer) as server,
        Serve(tmp_path, env={"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": "test"}) as serve,
    ):
        todo = iter(range(EVENTS))

        async def sender(session: aiohttp.ClientSession) -> None:
            for number in todo:
                # A sender keeps its delivery id and tries again until it is told that the event is taken.
                while True:
                    headers = {"webhook-id": f"d{number}"}
                    status, body = await post(
                        session, f"http://127.0.0.1:{port}/orders", {"order": f"o{number}"}, **headers
                    )
                    if status in {200, 202}:
                        accepted[f"o{number}"] = body["event_id"]
                        break
                    await asyncio.sleep(0.05)
                await asyncio.sleep(seed.uniform(0, 0.05 if FULL else 0.2))

        async def killer() -> None:
            for _ in range(KILLS):
                await asyncio.sleep(seed.uniform(0.3, 2.5))
                await serve.kill()
                await serve.start()

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            group.create_task(killer())
            for _ in range(20):
                group.create_task(sender(session))

        database = tmp_path / ".llmling" / "pool.db"
        open_events = "select count(*) from event where status not in ('done', 'dead', 'waiting')"
        await until(lambda: rows(database, open_events)[0][0] == 0, "every event to settle", 240)
        assert await serve.stop() == 0

    assert len(accepted) == EVENTS
    assert len(set(accepted.values())) == EVENTS
    status = dict(rows(database, "select id, status from event"))
    assert set(status) == set(accepted.values()), "every acknowledged event is known, and no other"
    assert Counter(status.values())["dead"] == 0
    charges = Counter((tmp_path / "charges.txt").read_text().split())
    assert max(charges.values()) == 1, "an unmarked side effect happened twice"
    waiting = {order for order, event in accepted.items() if status[event] == "waiting"}
    assert set(charges) | waiting == set(accepted), "every order was charged, or waits for a decision"
    notes = Counter((tmp_path / "notes.txt").read_text().split())
    repeated = sum(notes.values()) - len(notes)
    assert repeated <= KILLS * 100, "repeats of idempotent calls <= kills x in flight"
    reported = rows(database, "select event_id, count(*) from delivery where agent = 'reporter' group by event_id")
    assert all(count == 1 for _, count in reported)
    assert {event for event, _ in reported} == {event for event, state in status.items() if state == "done"}
    assert rows(database, "pragma integrity_check") == [("ok",)]
    trial.holds(events=EVENTS, kills=KILLS, repeated=repeated, bound=str(KILLS * 100))
