"""What the predecessor did to events, whatever made them: dropped them, forgot them, ran them all at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest
from serving import free_port, until
from stage import Stage, eventually, prompt_of

from llmling.errors import ManifestError, StartupError
from llmling.protocols import ModelRequest

FLAKY = """
server: false
agents:
  clerk:
    model: demo:script.yml
    retries: {attempts: 1}
    redelivery: {attempts: 3, backoff_s: 0.01, max_backoff_s: 0.02}
    triggers: [{type: webhook, name: hook, port: PORT}]
"""

SCRIPT = """
- {match: flaky, error: 500, times: 2}
- {match: broken, error: 500}
- {reply: fine}
"""

ONE = """
server: false
agents:
  clerk:
    model: demo
    triggers: [{type: webhook, name: hook, port: PORT}]
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_failed_run_is_tried_again_and_then_kept_as_dead(stage: Stage) -> None:
    stage.write("script.yml", SCRIPT)
    async with stage.pool(FLAKY):
        _, flaky = await stage.post({"say": "flaky"})
        _, broken = await stage.post({"say": "broken"})
        await stage.settled(2)
    records = {record.id: record for record in stage.done}
    assert (records[flaky["event_id"]].status, records[flaky["event_id"]].attempts) == ("done", 3)
    assert (records[broken["event_id"]].status, records[broken["event_id"]].attempts) == ("dead", 3)
    # The next process still knows it, with the reason, and runs it again on request.
    stage.write("script.yml", "- {reply: fine}")
    async with stage.pool(FLAKY) as pool:
        assert pool.engine is not None
        kept = await pool.engine.inspect(broken["event_id"])
        assert kept is not None
        assert kept.error is not None
        assert "500" in kept.error
        assert kept.event.data == {"say": "broken"}
        assert await pool.engine.retry(broken["event_id"]) == 1
        again = await pool.engine.wait(broken["event_id"], 30)
    assert again is not None
    assert (again.status, again.content) == ("done", "fine")


async def test_every_event_has_an_id_and_a_record_and_is_taken_once(stage: Stage) -> None:
    async with stage.pool(ONE):
        first = await stage.post({"n": 1}, **{"Idempotency-Key": "order-1"})
        assert first[0] == 202
    # Known also to the next process.
    async with stage.pool(ONE) as pool:
        again = await stage.post({"n": 1}, **{"Idempotency-Key": "order-1"})
        assert (again[0], again[1]["event_id"]) == (200, first[1]["event_id"])
        assert pool.engine is not None
        record = await pool.engine.wait(first[1]["event_id"], 30)
        assert record is not None
        assert (record.status, record.trigger, record.agent) == ("done", "hook", "clerk")
        assert [record.id async for record in pool.engine.runs()] == [first[1]["event_id"]]


async def test_a_broken_mcp_server_leaves_the_pool_alone(stage: Stage) -> None:
    manifest = ONE + "  helped:\n    model: demo\n    mcp_servers: [gone]\n"
    manifest += "mcp_servers:\n  gone: {type: stdio, command: no-such-command-anywhere}\n"
    async with stage.pool(manifest) as pool:
        assert (await stage.post({"say": "hello"}))[0] == 202
        (record,) = await stage.settled(1)
        reason = await until(lambda: pool.report.servers[0].reason, "the reason why the server is not there")
    assert record.status == "done"
    assert "no-such-command-anywhere" in reason


async def test_every_trigger_that_cannot_be_armed_is_named_at_the_start(stage: Stage) -> None:
    """The predecessor aborted with the first traceback; the contract is to refuse, with every trigger and reason."""
    ports = free_port(), free_port()
    squatters = [await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port) for port in ports]
    manifest = "server: false\nagents:\n" + "".join(
        f"  a{n}:\n    model: demo\n    triggers: [{{type: webhook, name: hook{n}, port: {port}}}]\n"
        for n, port in enumerate(ports)
    )
    try:
        with pytest.raises(StartupError) as caught:
            async with stage.pool(manifest):
                pass
    finally:
        for server in squatters:
            server.close()
            await server.wait_closed()
    assert caught.value.usage
    for n, port in enumerate(ports):
        assert f"hook{n}" in str(caught.value)
        assert str(port) in str(caught.value)


async def test_runs_have_limits_of_number_and_time(stage: Stage) -> None:
    together = peak = 0

    async def slow(request: ModelRequest) -> str:
        nonlocal together, peak
        together += 1
        peak = max(peak, together)
        await asyncio.sleep(0.05)
        together -= 1
        return "done"

    manifest = ONE.replace("model: demo", "model: demo\n    concurrency: 2")
    async with stage.pool(manifest, clerk=slow):
        for number in range(8):
            assert (await stage.post({"n": number}))[0] == 202
        await stage.settled(8)
    assert peak == 2
    for limit, words in (("timeout_s: 0.05", "timeout_s"), ("max_iterations: 1", "max_iterations")):
        last = Stage(stage.folder / words)
        last.folder.mkdir()
        call = "tool_calls: [{name: no}]"
        last.write("script.yml", f"- {{match: hello, delay_s: 0.5, {call}}}\n- {{match: '', {call}}}\n")
        options = f"model: demo:script.yml\n    redelivery: {{attempts: 1}}\n    limits: {{{limit}}}"
        async with last.pool(ONE.replace("model: demo", options)):
            await last.post({"say": "hello"})
            (record,) = await last.settled(1)
        assert record.status == "dead"
        assert words in str(record.error)


def test_an_agent_that_writes_where_it_watches_is_refused(stage: Stage) -> None:
    manifest = """
agents:
  writer:
    model: demo
    triggers: [{type: file, paths: [notes]}]
    sinks: [{type: file, path: "notes/{{ event.id }}.md"}]
"""
    with pytest.raises(ManifestError) as caught:
        stage.pool(manifest)
    (problem,) = caught.value.problems
    assert (problem.code, problem.line, problem.column) == ("LL401", 6, 32)


async def test_a_message_that_goes_round_in_a_circle_ends_as_dead(stage: Stage) -> None:
    manifest = ONE + "    connections: [other]\n  other: {model: demo, connections: [clerk]}\n"
    async with stage.pool(manifest + "limits: {max_hops: 3}\n"):
        await stage.post({"say": "round"})
        (record,) = await stage.settled(1)
    assert record.status == "dead"
    assert "max_hops" in str(record.error)


async def test_the_prompt_is_a_template(stage: Stage) -> None:
    manifest = ONE.replace("port: PORT", "port: PORT, prompt: 'Greet {{ event.data.name }} from {{ event.source }}'")
    prompts: list[str] = []

    async def answer(request: ModelRequest) -> str:
        prompts.append(prompt_of(request))
        return "hello"

    async with stage.pool(manifest, clerk=answer):
        await stage.post({"name": "Ada"})
        await stage.settled(1)
    assert prompts == ["Greet Ada from hook"]


async def test_the_content_decides_which_agent_runs(stage: Stage) -> None:
    manifest = """
server: false
agents:
  sales:
    model: demo
    triggers: [{type: webhook, name: orders, port: PORT, path: /a, filter: "event.data.kind == 'order'"}]
  desk:
    model: demo
    triggers: [{type: webhook, name: all, port: PORT, path: /b}]
    connections:
      - {to: sales, when: "'order' in message.text"}
      - {to: care, when: "'complaint' in message.text"}
  care: {model: demo}
"""
    async with stage.pool(manifest) as pool:
        for kind in ("order", "complaint"):
            for path in ("/a", "/b"):
                assert (await stage.post({"kind": kind}, path))[0] == 202
        await stage.settled(4)
        assert pool.engine is not None
        full = [await pool.engine.inspect(record.id) for record in stage.done]
    ways = {
        (record.trigger, record.event.data["kind"]): [hop.agent for hop in record.deliveries]
        for record in full
        if record is not None
    }
    assert ways == {
        ("orders", "order"): ["sales"],
        ("orders", "complaint"): [],
        ("all", "order"): ["desk", "sales"],
        ("all", "complaint"): ["desk", "care"],
    }
    assert {record.outcome for record in stage.done if record.trigger == "orders"} == {"ran", "filtered"}


async def test_triggers_of_teams_run_the_team(stage: Stage) -> None:
    manifest = """
server: false
agents:
  one: {model: demo}
  two: {model: demo}
teams:
  both: {members: [one, two], triggers: [{type: webhook, port: PORT, reply: result}]}
"""
    async with stage.pool(manifest):
        status, body = await stage.post({"say": "to the whole team"})
    assert status == 200
    assert "## one" in body["content"]
    assert "## two" in body["content"]
    assert body["content"].count("to the whole team") == 2


async def test_events_that_overlap_share_no_history(stage: Stage) -> None:
    both = asyncio.Event()
    seen: list[list[str]] = []

    async def answer(request: ModelRequest) -> str:
        seen.append([message.text for message in request.messages])
        if len(seen) >= 2:
            both.set()
        await both.wait()
        return "secret of " + prompt_of(request)

    async with stage.pool(ONE, clerk=answer):
        for number in range(4):
            await stage.post(f"event {number}")
        await stage.settled(4)
    assert [len(messages) for messages in seen] == [1, 1, 1, 1]
    assert not any("secret" in text for messages in seen for text in messages)


# --- schedules -------------------------------------------------------------------------------------------------------


async def test_ticks_during_a_long_run_are_not_skipped(stage: Stage) -> None:
    manifest = """
server: false
agents:
  pulse:
    model: demo
    concurrency: 1
    triggers: [{type: schedule, name: pulse, every_s: 0.2, prompt: "tick {{ event.subject }}"}]
"""
    enough = asyncio.Event()

    async def answer(request: ModelRequest) -> str:
        await enough.wait()
        return "tock"

    async with stage.pool(manifest, pulse=answer) as pool:

        async def four() -> bool:
            return await stage.count(pool) >= 4

        await eventually(four, "four ticks")
        enough.set()
        await stage.settled(4)
    ticks = [record.event.time.timestamp() for record in sorted(stage.done, key=lambda r: r.event.time)][:4]
    assert [round(later - tick, 3) for tick, later in itertools.pairwise(ticks)] == [0.2, 0.2, 0.2]


async def test_leaving_does_not_wait_for_a_tick(stage: Stage) -> None:
    manifest = """
server: false
agents:
  yearly: {model: demo, triggers: [{type: schedule, cron: "0 0 1 1 *", prompt: Happy new year}]}
"""
    async with stage.pool(manifest):
        started = time.monotonic()
    assert time.monotonic() - started < 30


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_leaving_has_a_deadline_and_the_rest_goes_on_at_the_next_start(stage: Stage) -> None:
    running = asyncio.Event()

    async def never(request: ModelRequest) -> str:
        running.set()
        await asyncio.Event().wait()
        return "never"

    manifest = ONE + "limits: {drain_timeout_s: 0.2}\n"
    async with stage.pool(manifest, clerk=never):
        _, body = await stage.post({"say": "to be continued"})
        await asyncio.wait_for(running.wait(), 30)
        started = time.monotonic()
    assert time.monotonic() - started < 30
    assert stage.done == []
    async with stage.pool(manifest):
        (record,) = await stage.settled(1)
    assert (record.id, record.status) == (body["event_id"], "done")
