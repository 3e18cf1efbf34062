"""What one message may set off: fan-out, slow consumers, the end of a root, an agent that fails every time."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import yaml
from chaos import Trial
from serving import post, until
from stage import Stage, eventually, prompt_of

from llmling import Agent, AgentPool
from llmling.engines.journal import JournalEngine
from llmling.errors import ModelError
from llmling.protocols import EventRecord, ModelRequest
from llmling.testing import ScriptedModel

FULL = bool(os.environ.get("CHAOS"))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def manifest(agents: dict[str, Any], **keys: Any) -> str:
    return yaml.safe_dump({"server": False, **keys, "agents": agents}, sort_keys=False)


def hook(name: str = "hook", path: str = "/webhook") -> list[dict[str, Any]]:
    return [{"type": "webhook", "name": name, "port": "PORT", "path": path, "prompt": "{{ event.data.n }}"}]


async def send(stage: Stage, count: int, path: str = "/webhook") -> list[str]:
    """Post so many events, a few at once, and return their ids."""
    ids: list[str] = []
    todo = iter(range(count))

    async def sender(session: aiohttp.ClientSession) -> None:
        for number in todo:
            status, body = await post(session, f"http://127.0.0.1:{stage.port}{path}", {"n": number})
            assert status == 202, body
            ids.append(body["event_id"])

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(sender(session))
    return ids


async def inspected(pool: AgentPool[None], event_id: str) -> EventRecord:
    assert pool.engine is not None
    record = await pool.engine.inspect(event_id)
    assert record is not None
    return record


# --- A2: one message that would become ten thousand ------------------------------------------------------------------


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_fan_out_stops_at_the_message_cap_and_its_siblings_finish(stage: Stage) -> None:
    wide, cap = (100, 200) if FULL else (12, 30)
    trial = Trial(f"fan-out 1 >> {wide} >> {wide} at a cap of {cap} messages (A2)")
    leaves, middle = [f"l{n}" for n in range(wide)], [f"m{n}" for n in range(wide)]
    agents: dict[str, Any] = {"root": {"model": "demo", "connections": middle, "triggers": hook()}}
    agents |= {name: {"model": "demo", "connections": leaves} for name in middle}
    agents |= {name: {"model": "demo"} for name in leaves}
    agents["beside"] = {"model": "demo", "triggers": hook("beside", "/beside")}
    text = manifest(agents, limits={"max_messages_per_event": cap})
    async with stage.pool(text) as pool:
        (event_id,) = await send(stage, 1)
        beside = await send(stage, 20, "/beside")
        await until(lambda: len(stage.done) == 21, "the events", 240)
        record = await inspected(pool, event_id)
    ended = Counter(delivery.status for delivery in record.deliveries)
    # What is over the cap is recorded with its reason, and does not run.
    assert ended == {"done": cap, "dead": 1 + wide + wide * wide - cap}
    assert {delivery.agent for delivery in record.deliveries if delivery.status == "done"} >= {"root", *middle}
    reason = f"raise limits.max_messages_per_event ({cap})"
    assert all(reason in (delivery.error or "") for delivery in record.deliveries if delivery.status == "dead")
    assert (record.status, reason in (record.error or "")) == ("dead", True)
    statuses = {record.id: record.status for record in stage.done}
    assert {statuses[each] for each in beside} == {"done"}
    trial.holds(events=21)


# --- A3: a slow consumer behind a fast producer ----------------------------------------------------------------------


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("overflow", ["block", "reject", "drop_oldest"])
async def test_a_slow_consumer_keeps_to_its_inbox_and_costs_no_memory(stage: Stage, overflow: str) -> None:
    events, size = (3_000, 50) if FULL else (120, 20)
    trial = Trial(f"slow consumer behind a fast producer, overflow: {overflow} (A3)")
    opened, seen = asyncio.Event(), list[str]()

    async def slow(request: ModelRequest) -> str:
        seen.append(prompt_of(request))
        await opened.wait()
        return "ok"

    text = manifest(
        {
            "fast": {"concurrency": 8, "inbox": {"size": events}, "connections": ["slow"], "triggers": hook()},
            "slow": {"concurrency": 1, "inbox": {"size": size, "overflow": overflow}},
        }
    )
    async with stage.pool(text, fast=prompt_of, slow=slow) as pool:
        engine = pool.engine
        assert isinstance(engine, JournalEngine)
        # As much memory as the first few take is what the others may take, too.
        first = await send(stage, 50)
        before = psutil.Process().memory_info().rss
        ids = first + await send(stage, events - 50)

        async def produced() -> bool:
            done = {"agent": "fast", "status": "done"}
            return any(s.value == events for s in pool.metrics() if (s.name, s.labels) == ("llmling_runs_total", done))

        await eventually(produced, "the producer to have run", 600)
        assert engine.loaded <= 2 * (2 * 8 + 64)
        grown = psutil.Process().memory_info().rss - before
        assert grown < 100_000_000
        opened.set()
        await until(lambda: len(stage.done) == events, "every event", 600)
        assert await pool.counts() == Counter(record.status for record in stage.done)
    assert {record.id for record in stage.done} == set(ids)
    ran, lost = (sum(record.status == status for record in stage.done) for status in ("done", "dead"))
    assert (len(seen), ran + lost) == (ran, events)
    if overflow == "block":
        # What follows an agent always goes in: a chain that had to wait for room could wait for itself.
        assert lost == 0
    else:
        # One is with the agent and the others fill its inbox; the first one may be taken out of it before or after.
        assert ran in {size, size + 1}
        said = "dropped: inbox of 'slow' is full" if overflow == "drop_oldest" else "rejected: inbox of 'slow' is full"
        assert all(said in (record.error or "") for record in stage.done if record.status == "dead")
    trial.holds(events=events)


# --- A5: the end of a root is the end of all it has set off ----------------------------------------------------------


class Hanging:
    """A model that answers nothing; `inside` are the requests that wait for it."""

    def __init__(self) -> None:
        self.inside = 0
        self.asked = 0

    async def __call__(self, request: ModelRequest) -> str:
        self.inside += 1
        self.asked += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.inside -= 1
        raise AssertionError


ASKING = "- tool_calls: [{name: ask_x, arguments: {prompt: hm}}, {name: ask_y, arguments: {prompt: hm}}]\n"


async def test_dropping_an_event_ends_every_run_below_it(stage: Stage) -> None:
    hanging = Hanging()
    middle = [f"m{n}" for n in range(4)]
    agents: dict[str, Any] = {"root": {"model": "demo", "connections": [*middle, "desk"], "triggers": hook()}}
    helpers = [{"type": "agent", "name": "x"}, {"type": "agent", "name": "y"}]
    agents |= {name: {"model": "demo:ask.yml", "tools": helpers} for name in middle}
    agents |= {"x": {}, "y": {}}
    teams = {"desk": {"mode": "parallel", "members": ["x", "y"]}}
    stage.write("ask.yml", ASKING)
    async with stage.pool(manifest(agents, teams=teams), x=hanging, y=hanging) as pool:
        assert pool.engine is not None
        (warm,) = await send(stage, 1)
        await until(lambda: hanging.inside == 10, "all of them at work")
        await pool.engine.drop(warm)
        await until(lambda: hanging.inside == 0, "the end of every run")
        await until(lambda: len(stage.done) == 1, "the event")
        before = asyncio.all_tasks()
        (event_id,) = await send(stage, 1)
        await until(lambda: hanging.inside == 10, "all of them at work again")
        assert await pool.engine.drop(event_id) == 5
        await until(lambda: hanging.inside == 0, "the end of every run")
        await until(lambda: asyncio.all_tasks() <= before, "no task to be left")
        record = await inspected(pool, event_id)
        assert Counter(delivery.status for delivery in record.deliveries) == {"done": 1, "dead": 5}
        # Nothing of it is tried again.
        (after,) = await send(stage, 1)
        await until(lambda: hanging.inside == 10, "the next event at work")
        assert hanging.asked == 30
        await pool.engine.drop(after)


async def test_cancelling_a_run_ends_the_agents_it_has_asked(stage: Stage) -> None:
    hanging = Hanging()
    stage.write("a.yml", "- tool_calls: [{name: ask_b, arguments: {prompt: hm}}]\n")
    stage.write("b.yml", ASKING)
    tools = [{"type": "agent", "name": "x"}, {"type": "agent", "name": "y"}]
    agents: dict[str, Any] = {
        "a": {"model": "demo:a.yml", "tools": [{"type": "agent", "name": "b"}]},
        "b": {"model": "demo:b.yml", "tools": tools},
        "x": {},
        "y": {},
    }
    async with stage.pool(manifest(agents), x=hanging, y=hanging) as pool:
        before = asyncio.all_tasks()
        run = asyncio.create_task(pool.get_agent("a").run("Well?"))
        await until(lambda: hanging.inside == 2, "the two at the end of the chain")
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert hanging.inside == 0
        await until(lambda: asyncio.all_tasks() <= before, "no task to be left")


# --- A6: one agent fails every time ----------------------------------------------------------------------------------


PAUSE_S = 0.3


class Provider:
    """A model that is down until it is `up`; `asked` is when it was asked while it was down."""

    def __init__(self) -> None:
        self.up = False
        self.asked: list[float] = []

    async def __call__(self, request: ModelRequest) -> str:
        if self.up:
            return "ok"
        self.asked.append(time.monotonic())
        raise ModelError("overloaded", status=503, retryable=True)


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_an_agent_that_fails_every_time_is_left_alone_and_harms_no_other(stage: Stage) -> None:
    good, bad = (2_000, 200) if FULL else (40, 10)
    trial = Trial("an agent that fails every time (A6)")
    provider = Provider()
    agents: dict[str, Any] = {
        "good": {"triggers": hook(), "inbox": {"size": good}},
        "bad": {
            "triggers": hook("bad", "/bad"),
            "inbox": {"size": bad},
            "redelivery": {"attempts": 100, "backoff_s": 0.05, "max_backoff_s": 0.05},
        },
    }
    limits = {"circuit_failures": 5, "circuit_s": PAUSE_S}
    path = stage.write("agents.yml", manifest(agents, limits=limits).replace("PORT", str(stage.port)))
    given = {
        "good": Agent[Any]("good", model=ScriptedModel(prompt_of, name="openai/good")),
        "bad": Agent[Any]("bad", model=ScriptedModel(provider, name="openai/bad"), retries={"attempts": 1}),
    }
    async with AgentPool[None](path, agents=given, on_event=stage.done.append) as pool:

        def counted(name: str) -> float:
            return sum(sample.value for sample in pool.metrics() if sample.name == name and "bad" in str(sample.labels))

        alone_s = await pace(stage, good)
        failing = await send(stage, bad, "/bad")
        await until(lambda: counted("llmling_circuit_open"), "the circuit to open")
        beside_s = await pace(stage, good)
        await until(lambda: len(provider.asked) >= 12, "the circuit to half-open again and again")
        assert counted("llmling_circuit_open") == 1
        provider.up = True
        await until(lambda: len(stage.done) == 2 * good + bad, "every event", 240)
        assert counted("llmling_circuit_open") == 0
        attempts = {record.id: record.attempts for record in stage.done}
    # Five runs have failed, and three were under way; from then on one request at a time finds out whether it is back.
    probes = provider.asked[7:]
    assert min(after - before for before, after in itertools.pairwise(probes)) >= PAUSE_S
    assert {record.status for record in stage.done} == {"done"}
    assert {attempts[record.id] for record in stage.done if record.id not in set(failing)} == {1}
    trial.holds(events=2 * good + bad, measured=f"the others at {alone_s / beside_s:.0%} of their pace")


async def pace(stage: Stage, count: int) -> float:
    """Run so many events of the good agent, and return the seconds it took; reported, and not judged."""
    began = time.monotonic()
    ids = set(await send(stage, count))
    await until(lambda: ids <= {record.id for record in stage.done}, "the events of the good agent", 240)
    return time.monotonic() - began
