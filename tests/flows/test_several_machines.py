"""Two `serve` on one set of events in NATS: the same manifest, each with a port of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest
from nats_server import nats_url
from serving import Serve, eventually, free_port, llmling, post

from llmling import Agent, AgentPool
from llmling.errors import BudgetExceeded, RunError
from llmling.messages import Message, Usage
from llmling.protocols import ModelRequest, ModelResponse
from llmling.testing import ScriptedModel

MANIFEST = """
engine: {{type: nats, servers: ["{url}"], name: {name}, lease_s: 5}}
server: {{port: "${{SERVER_PORT}}"}}
agents:
  greeter:
    model: demo
    triggers:
      - {{type: webhook, name: hello, port: "${{HOOK_PORT}}", path: /hello}}
      - {{type: schedule, name: beat, every_s: 1, prompt: "tick {{{{ event.subject }}}}"}}
      - {{type: file, name: inbox, paths: [inbox/], poll_s: 0.5, settle_s: 0}}
"""


async def hosts(serve: Serve, *states: str) -> bool | None:
    """Return True once `/readyz` lists processes in these states."""
    async with aiohttp.ClientSession() as session, session.get(f"{serve.server_url}/readyz") as response:
        page = await response.json()
    return sorted(host["state"] for host in page.get("hosts", ())) == list(states) or None


@pytest.mark.timeout(180)
async def test_two_processes_serve_one_set_of_events(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "agents.yml").write_text(MANIFEST.format(url=nats_url(), name=f"flow{free_port()}"))
    ports = [free_port(), free_port()]
    serves = [Serve(tmp_path, env={"HOOK_PORT": str(port), "SERVER_PORT": str(free_port())}) for port in ports]
    for serve in serves:
        await serve.start()
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(
            *(post(session, f"http://127.0.0.1:{port}/hello", {"n": 1}, **{"webhook-id": "one"}) for port in ports * 5)
        )
    assert len({answer["event_id"] for _, answer in answers}) == 1
    assert Counter(status for status, _ in answers)[202] == 1
    await eventually(lambda: hosts(serves[1], "serving", "serving"), "both to be listed", 60)
    (tmp_path / "inbox" / "first.txt").write_text("first")

    async def listed(trigger: str, least: int) -> list[str] | None:
        code, out, err = await llmling(
            tmp_path, "events", "list", "agents.yml", "--json", env={"HOOK_PORT": "1", "SERVER_PORT": "2"}
        )
        assert code == 0, err
        found = [line for line in out.splitlines() if f'"trigger": "{trigger}"' in line and '"status": "done"' in line]
        return found if len(found) >= least else None

    await eventually(lambda: listed("inbox", 1), "the file to be run", 60)
    await eventually(lambda: listed("beat", 2), "the schedule to tick", 60)
    await serves[0].kill()
    (tmp_path / "inbox" / "second.txt").write_text("second")
    files = await eventually(lambda: listed("inbox", 2), "the other one to watch the folder", 60)
    assert len(files) == 2
    await eventually(lambda: hosts(serves[1], "serving", "silent"), "the dead one to be listed as silent", 60)
    assert await serves[1].stop() == 0


Answering: TypeAlias = Callable[[ModelRequest], ModelResponse | Awaitable[ModelResponse]]


@asynccontextmanager
async def two_pools(
    manifest: dict[str, Any], answer: Answering, **options: Any
) -> AsyncGenerator[list[AgentPool[None]]]:
    """Enter two pools on one set of events, as two processes would."""
    async with AsyncExitStack() as stack:
        pools: list[AgentPool[None]] = []
        for _ in range(2):
            agent = Agent("a", model=ScriptedModel(answer), **options)
            pools.append(await stack.enter_async_context(AgentPool(manifest, agents={"a": agent}, triggers=False)))
        yield pools


async def test_two_pools_on_one_server_keep_one_limit_of_requests_at_once() -> None:
    inside = most = 0

    async def answer(request: ModelRequest) -> ModelResponse:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return ModelResponse(Message.assistant("ok"))

    manifest = {
        "engine": {"type": "nats", "servers": [nats_url()], "name": f"places{free_port()}"},
        "limits": {"requests_at_once": 2},
        "agents": {"a": {"triggers": [{"type": "webhook", "name": "hook"}]}},
    }
    async with two_pools(manifest, answer) as pools:
        runs = [pools[number % 2].get_agent("a").run(str(number)) for number in range(12)]
        assert {result.content for result in await asyncio.gather(*runs)} == {"ok"}
    assert most == 2


async def test_two_pools_on_one_server_keep_one_rate_of_requests() -> None:
    asked: list[str] = []

    def answer(request: ModelRequest) -> ModelResponse:
        asked.append(request.messages[-1].text)
        return ModelResponse(Message.assistant("ok"))

    manifest = {
        "engine": {"type": "nats", "servers": [nats_url()], "name": f"rate{free_port()}"},
        "limits": {"requests_per_minute": 5},
        "agents": {"a": {"triggers": [{"type": "webhook", "name": "hook"}]}},
    }
    async with two_pools(manifest, answer, limits={"timeout_s": 3}) as pools:
        runs = [pools[number % 2].get_agent("a").run(str(number)) for number in range(8)]
        results = await asyncio.gather(*runs, return_exceptions=True)
    assert len(asked) == 5
    late = [result for result in results if isinstance(result, RunError)]
    assert len(late) == 3
    assert all("a limit on requests" in str(error) for error in late)


async def test_two_pools_on_one_server_keep_one_budget() -> None:
    asked: list[str] = []

    def answer(request: ModelRequest) -> ModelResponse:
        asked.append(request.messages[-1].text)
        return ModelResponse(Message.assistant("ok"), Usage(10, 0, 1), "m", cost_usd=0.01)

    manifest = {
        "engine": {"type": "nats", "servers": [nats_url()], "name": f"budget{free_port()}"},
        "budget": {"requests_per_day": 20},
        "agents": {"a": {"triggers": [{"type": "webhook", "name": "hook"}]}},
    }
    outcomes: Counter[str] = Counter()

    async def run(pool: AgentPool[None], number: int) -> None:
        try:
            await pool.get_agent("a").run(str(number))
            outcomes["ran"] += 1
        except BudgetExceeded:
            outcomes["refused"] += 1

    async with two_pools(manifest, answer) as pools:
        await asyncio.gather(*(run(pools[number % 2], number) for number in range(30)))
        # Both know by now that it is spent, whoever spent it.
        for pool in pools:
            with pytest.raises(BudgetExceeded, match="budget of the pool is spent"):
                await pool.get_agent("a").run("one more")
    assert outcomes == {"ran": 20, "refused": 10}
    assert len(asked) == 20
