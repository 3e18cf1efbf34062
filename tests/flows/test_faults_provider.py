"""A provider on a bad day: every event ends, with its reason, after exactly the requests its settings allow."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from chaos import Trial
from llm_server import Call, LLMServer, Reply, Request
from serving import Serve, free_port, post, until

TRIES, REDELIVERIES = 2, 3
MANIFEST = """
server: false
limits: {{circuit_failures: null}}
agents:
  a:
    model: openai/test-model
    model_settings: {{timeout_s: 2}}
    concurrency: 30
    retries: {{attempts: 2, backoff_s: 0.01, max_backoff_s: 0.05}}
    redelivery: {{attempts: 3, backoff_s: 0.01, max_backoff_s: 0.05}}
    tools: ["tools:act"]
    triggers: [{{type: webhook, name: hook, port: {port}, prompt: "mode {{{{ event.data.mode }}}}"}}]
  patient:
    model: openai/test-model
    triggers: [{{type: webhook, name: large, path: /large, port: {port}, prompt: "mode {{{{ event.data.mode }}}}"}}]
"""
TOOLS = '''
def act(order: str) -> str:
    """Act on an order."""
    with open("acts.txt", "a") as file:
        file.write(order + "\\n")
    return "acted"
'''
FAILING = {
    "storm": Reply(status=429, retry_after="0"),
    "storm of nonsense": Reply(status=429, retry_after="soon"),
    "500": Reply(status=500),
    "page of a proxy": Reply(status=502, raw="<html>"),
    "hang": Reply(hang=True),
    "reset": Reply("x " * 1000, cut=True),
    "half an object": Reply(raw='{"choices": [{"message": '),
    "a page": Reply(raw="<html>"),
    "an empty object": Reply(raw="{}"),
    "null": Reply(raw="null"),
    "no choice": Reply(raw='{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}'),
}
ANSWERED = {
    "5 MB": Reply("y" * 5_000_000),
    "control characters": Reply("\x00\x1b[31m"),
    "a lone surrogate": Reply("\ud800"),
}
TOLD = {
    "arguments that are no JSON": Reply(calls=[Call("act", "{no")]),
    "arguments that are a list": Reply(calls=[Call("act", "[1]")]),
    "a tool nobody has": Reply(calls=[Call("nope", {})]),
}


@pytest.mark.chaos
@pytest.mark.timeout(120)
async def test_every_event_ends_after_the_requests_it_may_make(tmp_path: Path) -> None:
    trial, requests, freed = Trial("a provider on a bad day (Q3)"), Counter[str](), list[asyncio.Task[float]]()

    async def hold(request: Request) -> float:
        began = time.monotonic()
        await request.hung_up.wait()
        return time.monotonic() - began

    def answer(request: Request) -> Reply:
        messages = request.body["messages"]
        mode = next(str(m["content"]) for m in messages if m["role"] == "user").removeprefix("mode ")
        requests[mode] += 1
        if mode == "hang":
            freed.append(asyncio.create_task(hold(request)))
        called = messages[-1]["role"] == "tool"
        if mode == "500 after a step":
            return Reply(status=500) if called else Reply(calls=[Call("act", {"order": "7"})])
        return Reply("told") if called else {**FAILING, **ANSWERED, **TOLD, "refused": Reply(status=400)}[mode]

    port = free_port()
    (tmp_path / "agents.yml").write_text(MANIFEST.format(port=port))
    (tmp_path / "tools.py").write_text(TOOLS)
    modes = {*FAILING, *ANSWERED, *TOLD, "refused", "500 after a step"}
    ids: dict[str, str] = {}
    async with LLMServer(answer) as server:
        env = {"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": "test"}
        async with Serve(tmp_path, env=env) as serve, aiohttp.ClientSession() as session:
            for mode in modes:
                # Two seconds can be too short to read 5 MB on a busy machine; that is not the point here.
                path = "large" if mode == "5 MB" else "webhook"
                status, body = await post(session, f"http://127.0.0.1:{port}/{path}", {"mode": mode})
                assert status == 202
                ids[body["event_id"]] = mode
            await until(lambda: len(serve.events) == len(modes), "every event to settle", 90)
        # The server never answers; each request to it is given up, and none of the others waits for that.
        held = await asyncio.wait_for(asyncio.gather(*freed), 30)
        assert len(held) == TRIES * REDELIVERIES
        assert not any("Traceback" in line for line in serve.errors), "\n".join(serve.errors)
    ended = {ids[event["id"]]: event for event in serve.events}
    assert {mode: requests[mode] for mode in FAILING} == dict.fromkeys(FAILING, TRIES * REDELIVERIES)
    assert {mode: (ended[mode]["status"], ended[mode]["attempts"]) for mode in FAILING} == dict.fromkeys(
        FAILING, ("dead", REDELIVERIES)
    )
    counted = f"[{TRIES * REDELIVERIES} model requests in {REDELIVERIES} tries of the delivery]"
    assert all(ended[mode]["error"].endswith(counted) for mode in FAILING)
    assert {mode: (ended[mode]["status"], requests[mode]) for mode in ANSWERED} == dict.fromkeys(ANSWERED, ("done", 1))
    assert {mode: (ended[mode]["status"], requests[mode]) for mode in TOLD} == dict.fromkeys(TOLD, ("done", 2))
    assert (ended["refused"]["status"], ended["refused"]["attempts"], requests["refused"]) == ("dead", 1, 1)
    assert ended["refused"]["error"].endswith("[1 model request in 1 try of the delivery]")
    assert ended["500 after a step"]["error"].endswith("[7 model requests in 3 tries of the delivery]")
    assert requests["500 after a step"] == 1 + TRIES * REDELIVERIES
    assert (tmp_path / "acts.txt").read_text() == "7\n"
    trial.holds(events=len(modes), measured=f"given up after {min(held):.1f} to {max(held):.1f} s, 2 s are set")
