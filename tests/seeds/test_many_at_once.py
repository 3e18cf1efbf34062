"""Hundreds of runs at once, and what is left when runs, streams, batches and pools are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from llm_server import LLMServer, Reply
from serving import free_port, post

from llmling import Agent, AgentPool, Context

MODEL = "openai/gpt-4o-mini"


async def test_two_hundred_contexts_without_async_with_are_in_flight_at_once(server: LLMServer) -> None:
    gate = asyncio.Event()
    server.answer = lambda request: Reply(request.last_text, gate=gate)
    contexts = [Context(directive=f"Say {number}.") for number in range(200)]
    asked = asyncio.gather(*[context.aexecute(provider="openai") for context in contexts])
    await server.wait_for_requests(200)
    assert server.in_flight == server.peak == 200
    gate.set()
    assert [result.response for result in await asked] == [f"Say {number}." for number in range(200)]


async def test_the_loop_turns_while_models_think(server: LLMServer) -> None:
    gate = asyncio.Event()
    server.answer = lambda request: Reply("slow", gate=gate, hang_after=0, resume=gate)
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while not gate.is_set():
            await asyncio.sleep(0)
            beats += 1

    beating = asyncio.create_task(heart())
    contexts = [Context(directive=f"Say {number}.") for number in range(4)]
    asked = [
        asyncio.create_task(context.aexecute(model=MODEL, stream=number % 2 == 0))
        for number, context in enumerate(contexts)
    ]
    await server.wait_for_requests(4)
    before = beats
    for _ in range(100):
        await asyncio.sleep(0)
    assert beats - before >= 99
    assert not any(task.done() for task in asked)
    gate.set()
    assert [(await task).response for task in asked] == ["slow"] * 4
    await beating


async def a_run(agent: Agent[None]) -> None:
    await agent.run("Hello")


async def a_stream(agent: Agent[None]) -> None:
    async with agent.run_stream("Hello") as stream:
        async for _ in stream:
            pass


async def a_batch(agent: Agent[None]) -> None:
    await agent.run_many([f"q{number}" for number in range(8)], max_concurrency=3)


async def a_batch_as_it_completes(agent: Agent[None]) -> None:
    async for _ in agent.as_completed([f"q{number}" for number in range(8)], max_concurrency=3):
        pass


async def a_conversation(agent: Agent[None]) -> None:
    chat = agent.session("chat")
    async with asyncio.TaskGroup() as group:  # `gather` would not wait for both to end
        group.create_task(chat.run("one"))
        group.create_task(chat.run("two"))


async def a_context(agent: Agent[None]) -> None:
    await Context(directive="Hello").aexecute(model=MODEL)


async def a_pool(agent: Agent[None]) -> None:
    manifest = {
        "defaults": {"model": MODEL, "retries": {"attempts": 1}},
        "limits": {"drain_timeout_s": 0.05},
        "agents": {"left": {"connections": ["right"]}, "right": {}, "third": {}},
    }
    async with AgentPool[None](manifest) as pool:
        # One waits behind a connection, one was queued, one is run.
        await pool.get_agent("left").submit("Hello")
        await pool.get_agent("third").run("Hello")


async def a_pool_with_events(agent: Agent[None]) -> None:
    port = free_port()
    manifest = {
        "engine": {"type": "memory"},
        "server": False,
        "limits": {"drain_timeout_s": 0.05},
        "agents": {"agent": {"model": MODEL, "triggers": [{"type": "webhook", "port": port}]}},
    }
    async with AgentPool[None](manifest), aiohttp.ClientSession() as session:
        status, _ = await post(session, f"http://127.0.0.1:{port}/webhook", {"text": "Hello"})
        assert status == 202
        await asyncio.Event().wait()


async def a_team(agent: Agent[None]) -> None:
    await (agent & Agent("other", model=MODEL, retries={"attempts": 1})).run("Hello")


@pytest.mark.parametrize(
    ("work", "requests"),
    [
        (a_run, 1),
        (a_stream, 1),
        (a_batch, 3),
        (a_batch_as_it_completes, 3),
        (a_conversation, 1),
        (a_context, 1),
        (a_pool, 2),
        (a_pool_with_events, 1),
        (a_team, 2),
    ],
)
async def test_cancelling_hangs_up_and_leaves_no_task(
    server: LLMServer,
    work: Callable[[Agent[None]], Coroutine[Any, Any, None]],
    requests: int,
) -> None:
    server.answer = lambda request: Reply("one two three", hang=not request.stream, hang_after=1)
    before = asyncio.all_tasks()
    task = asyncio.create_task(work(Agent("agent", model=MODEL, retries={"attempts": 1})))
    await server.wait_for_requests(requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        for request in server.requests:
            await request.hung_up.wait()
    assert len(server.requests) == requests, "nothing is asked after the end"
    assert [task for task in asyncio.all_tasks() - before if "llmling" in repr(task)] == []
