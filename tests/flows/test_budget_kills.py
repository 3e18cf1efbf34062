"""The bound of a budget under kill -9, measured at the model's server: never more than the limit and one call."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from chaos import Trial
from llm_server import LLMServer, Reply, Request
from serving import Serve, free_port, post, rows, until

FULL = bool(os.environ.get("CHAOS"))
KILLS = 5 if FULL else 2
EVENTS = 1_000 if FULL else 100
CONCURRENCY = 20 if FULL else 5
LIMIT = 0.10
IN_USD, OUT_USD = 1_000 / EVENTS, 10_000 / EVENTS
"""US dollars per million tokens: fewer events, dearer ones."""

MANIFEST = """
server: false
budget: {{usd_per_month: {limit}}}
agents:
  clerk:
    model: {{type: litellm, name: openai/mine, price: {{input_per_mtok: {read}, output_per_mtok: {written}}}}}
    model_settings: {{{settings}}}
    concurrency: {concurrency}
    inbox: {{size: 5000}}
    redelivery: {{attempts: 100}}  # none of these is poison, but the same ones can be in flight at every kill
    triggers:
      - {{type: webhook, name: orders, port: {port}, path: /orders, prompt: "order {{{{ event.data.order }}}}"}}
"""


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("settings", ["max_tokens: 40", ""] if FULL else ["max_tokens: 40"])
async def test_a_budget_holds_across_kills(tmp_path: Path, settings: str) -> None:
    trial = Trial(f"a budget across kills, {settings or 'no max_tokens'}")
    port, costs = free_port(), list[float]()

    def answer(request: Request) -> Reply:
        written = 1 + len(costs) * 7 % 40
        # Paid for as soon as it is asked: a provider bills what nobody is left to read.
        costs.append((30 * IN_USD + written * OUT_USD) / 1e6)
        return Reply("settled", delay_s=0.1, input_tokens=30, output_tokens=written)

    numbers = {"limit": LIMIT, "read": IN_USD, "written": OUT_USD, "concurrency": CONCURRENCY, "port": port}
    (tmp_path / "agents.yml").write_text(MANIFEST.format(settings=settings, **numbers))
    accepted: set[str] = set()
    month = dt.datetime.now(dt.UTC).month
    async with LLMServer(answer) as server:
        serve = Serve(tmp_path, env={"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": "test"})
        await serve.start()
        todo = iter(range(EVENTS))

        async def sender(session: aiohttp.ClientSession) -> None:
            for number in todo:
                while True:
                    headers = {"webhook-id": f"d{number}"}
                    status, body = await post(session, f"http://127.0.0.1:{port}/orders", {"order": number}, **headers)
                    if status in {200, 202}:
                        accepted.add(body["event_id"])
                        break
                    await asyncio.sleep(0.05)

        async def killer() -> None:
            for kill in range(1, KILLS + 1):
                # While money is being spent: this many calls are well within the limit.
                await server.wait_for_requests(kill * (30 if FULL else 8), 120)
                await serve.kill()
                await serve.start()

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            group.create_task(killer())
            for _ in range(10):
                group.create_task(sender(session))

        database = tmp_path / ".llmling" / "pool.db"
        open_events = "select count(*) from event where status not in ('done', 'dead')"
        await until(lambda: rows(database, open_events)[0][0] == 0, "every event to settle", 240)
        assert await serve.stop() == 0

    periods = 1 + (dt.datetime.now(dt.UTC).month != month)
    assert sum(costs) <= periods * (LIMIT + max(costs)), "at most the limit and one call"
    assert sum(costs) >= LIMIT / 2 or not settings, "what was in flight at a kill counts, and no more than that"
    assert len(accepted) == EVENTS
    found = rows(database, "select id, status, error from event")
    assert {event for event, _, _ in found} == accepted
    statuses = Counter(status for _, status, _ in found)
    assert statuses["done"] > 0
    assert statuses["dead"] > 0
    for _, status, error in found:
        if status == "dead":
            assert "the budget of the pool is spent: 0.1" in error
            assert "raise budget.usd_per_month of the pool" in error
    trial.holds(events=EVENTS, kills=KILLS)
