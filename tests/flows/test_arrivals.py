"""Thousands of posts at once, and a backlog of thousands at a crash: each is run once, and nobody waits long."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

import aiohttp
import psutil
import pytest
from chaos import Trial
from serving import Serve, free_port, post, rows, until

from llmling import AgentPool
from llmling.protocols import EventRecord

FULL = bool(os.environ.get("CHAOS"))
POSTS, PER_S = (10_000, 500) if FULL else (200, 300)
GROWTH = 100 * 2**20

MANIFEST = """
server: false
limits: {{concurrency: 200}}
agents:
  a:
    model: demo:slow.yml
    concurrency: 128
    inbox: {{size: 20000}}
    redelivery: {{attempts: 100}}
    triggers: [{{type: webhook, name: hook, port: {port}}}]
"""
POISONED = """
server: false
engine: {{path: {name}}}
agents:
  a:
    model: demo:script.yml
    concurrency: 20
    retries: {{attempts: 2, backoff_s: 0.1, max_backoff_s: 0.1}}
    redelivery: {{attempts: 5, backoff_s: 0.1, max_backoff_s: 0.1}}
    triggers: [{{type: webhook, name: hook, port: {port}}}]
"""


def project(folder: Path, delay_s: float) -> str:
    """Write the manifest of a pool with a slow model and return the address of its webhook."""
    port = free_port()
    (folder / "agents.yml").write_text(MANIFEST.format(port=port))
    answer_after(folder, delay_s)
    return f"http://127.0.0.1:{port}/webhook"


def answer_after(folder: Path, delay_s: float) -> None:
    (folder / "slow.yml").write_text(f"- {{reply: done, delay_s: {delay_s}}}\n")


async def arrive(url: str) -> tuple[list[str], list[float]]:
    """Post at a steady rate, whatever the answers take; return the events that were accepted and how long each took."""
    accepted, seconds, began = list[str](), list[float](), time.monotonic()
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:

        async def send(number: int) -> None:
            sent = time.monotonic()
            status, body = await post(session, url, {"n": number})
            seconds.append(time.monotonic() - sent)
            assert status == 202, body
            accepted.append(body["event_id"])

        for number in range(POSTS):
            group.create_task(send(number))
            await asyncio.sleep(began + number / PER_S - time.monotonic())
    return accepted, seconds


def check(folder: Path, accepted: list[str]) -> None:
    """See that each event that was accepted has been run to its end, and that there is no other."""
    found = rows(folder / ".llmling" / "pool.db", "select id, status from event")
    assert len(set(accepted)) == POSTS
    assert dict(found) == dict.fromkeys(accepted, "done")


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_posts_at_a_rate_are_all_run(tmp_path: Path) -> None:
    trial, url = Trial("posts at a rate (W5)"), project(tmp_path, 0.2)
    async with Serve(tmp_path) as serve:
        process = psutil.Process(serve.pid)
        before = process.memory_info().rss
        accepted, seconds = await arrive(url)
        await until(lambda: len(serve.events) >= POSTS, "every event to end", 300)
        grown = process.memory_info().rss - before
        assert await serve.stop() == 0
    check(tmp_path, accepted)
    assert sorted(event["id"] for event in serve.events) == sorted(accepted)
    assert {event["attempts"] for event in serve.events} == {1}
    assert grown < GROWTH
    p99 = statistics.quantiles(seconds, n=100)[98]
    measured = f"answered in {p99 * 1000:.0f} ms (p99) at {PER_S}/s, RSS +{grown / 2**20:.0f} MB"
    trial.holds(events=POSTS, measured=measured)


@pytest.mark.chaos
async def test_one_that_fails_holds_up_nobody(tmp_path: Path) -> None:
    trial, took = Trial("one event among many that always fails (Q2)"), list[float]()
    script = "- {match: poison, error: 500}\n- {reply: done, delay_s: 0.02}\n"
    (tmp_path / "script.yml").write_text(script)
    count = 1_000 if FULL else 100
    for poison in (-1, count // 3):
        ended: list[EventRecord] = []
        manifest = POISONED.format(port=(port := free_port()), name=f"pool{poison}.db")
        (tmp_path / "agents.yml").write_text(manifest)
        async with AgentPool[None](tmp_path / "agents.yml", on_event=ended.append), aiohttp.ClientSession() as session:
            began = time.monotonic()
            for number in range(count):
                text = "poison" if number == poison else "fine"
                assert (await post(session, f"http://127.0.0.1:{port}/webhook", text))[0] == 202
            await until(lambda ended=ended: sum(record.status == "done" for record in ended) >= count - 1, "the others")
            took.append(time.monotonic() - began)
            await until(lambda ended=ended: len(ended) == count, "every event", 60)
        dead = [record for record in ended if record.status != "done"]
        assert [(record.event.data, record.status, record.attempts) for record in dead] == [("poison", "dead", 5)] * (
            poison > 0
        )
    trial.holds(events=2 * count, measured=f"the others in {took[1]:.1f} s with it, in {took[0]:.1f} s without")


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_a_backlog_at_a_crash_is_run_after_it(tmp_path: Path) -> None:
    trial, url = Trial("kill -9 with a backlog (O3)"), project(tmp_path, 3600)
    async with Serve(tmp_path) as serve:
        accepted, _ = await arrive(url)
        await serve.kill()
    assert not serve.events
    answer_after(tmp_path, 0)
    began = time.monotonic()
    async with serve:
        ready_s = time.monotonic() - began
        await until(lambda: len(serve.events) >= POSTS, "every event to end", 300)
        assert await serve.stop() == 0
    check(tmp_path, accepted)
    again = sum(event["attempts"] - 1 for event in serve.events)
    assert again <= 128
    trial.holds(events=POSTS, kills=1, repeated=again, bound="128", measured=f"ready in {ready_s:.1f} s")
