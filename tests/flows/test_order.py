"""Order, overlap, priority and back-pressure from YAML: what a pool does with events that come faster than they run."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import until
from stage import Stage, eventually, prompt_of

from llmling.protocols import EventRecord, ModelRequest
from llmling.testing import drop_file

HOOK = """
agents:
  a:
    model: demo
    concurrency: 8
    connections: [b]
    triggers:
      - {type: webhook, name: hook, port: PORT, prompt: "{{ event.data.n }}"KEYS}
  b: {model: demo, concurrency: 8}
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


class Desk:
    """Agents whose answers wait until the desk is open; `seen` are the prompts in the order they came."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.open = asyncio.Event()

    async def __call__(self, request: ModelRequest) -> str:
        self.seen.append(prompt_of(request))
        await self.open.wait()
        return prompt_of(request)


async def post(stage: Stage, n: int, **data: Any) -> str:
    status, body = await stage.post({"n": n, **data})
    assert status == 202, body
    return body["event_id"]


def of(records: list[EventRecord], *ids: str) -> list[str | None]:
    outcomes = {record.id: record.outcome for record in records}
    return [outcomes.get(event_id) for event_id in ids]


async def test_events_of_a_key_run_in_order_through_the_chain(stage: Stage) -> None:
    first, second = Desk(), Desk()
    first.open.set()
    second.open.set()
    manifest = HOOK.replace("KEYS", ', key: "{{ event.data.repo }}"')
    async with stage.pool(manifest, a=first, b=second):
        for n in range(24):
            await post(stage, n, repo=f"r{n % 3}")
        await stage.settled(24)
    for desk in (first, second):
        for repo in range(3):
            mine = [n for n in map(int, desk.seen) if n % 3 == repo]
            assert mine == list(range(repo, 24, 3))


async def test_a_key_that_an_event_does_not_have_is_the_reason_it_dies(stage: Stage) -> None:
    async with stage.pool(HOOK.replace("KEYS", ', key: "{{ event.data.repo }}"')):
        await stage.post({"n": 1})
        (record,) = await stage.settled(1)
        await stage.post({"n": 1, "repo": " "})
        await stage.settled(2)
    assert record.status == "dead"
    assert record.error is not None
    assert record.error.startswith("trigger 'hook', key: template '{{ event.data.repo }}' failed: ")
    # A key without a letter is none.
    assert stage.done[1].outcome == "ran"


async def test_a_post_is_skipped_while_one_is_open(stage: Stage) -> None:
    desk = Desk()
    manifest = HOOK.replace("KEYS", ', overlap: skip, key: "{{ event.data.repo }}"')
    async with stage.pool(manifest, a=desk) as pool:
        ids = [await post(stage, n, repo=repo) for n, repo in enumerate(["x", "x", "y"])]
        await until(lambda: len(desk.seen) == 2, "two runs")
        url = pool.report.server_url
        _, page = await stage.get(f"{url}/events/{ids[1]}")
        assert (page["status"], page["outcome"], page["hops"]) == ("done", "skipped", [])
        desk.open.set()
        await stage.settled(3)
    assert of(stage.done, *ids) == ["ran", "skipped", "ran"]


async def test_of_posts_that_wait_only_the_newest_runs(stage: Stage) -> None:
    desk = Desk()
    async with stage.pool(HOOK.replace("KEYS", ", overlap: coalesce, reply: result"), a=desk) as pool:
        posts = [asyncio.create_task(stage.post({"n": 0}))]
        await until(lambda: desk.seen == ["0"], "the first run")
        for n in range(1, 4):
            posts.append(asyncio.create_task(stage.post({"n": n})))

            async def arrived(count: int = n + 1) -> bool:
                return await stage.count(pool) == count

            await eventually(arrived, f"event {n}")
        desk.open.set()
        answers = await asyncio.gather(*posts)
        await stage.settled(4)
    assert desk.seen == ["0", "3"]
    # Whose event is coalesced is told where to look, like anybody whose answer takes too long.
    assert [status for status, _ in answers] == [200, 202, 202, 200]
    ids = [body["event_id"] for _, body in answers]
    assert of(stage.done, *ids) == ["ran", "coalesced", "coalesced", "ran"]


async def test_with_parallel_a_key_orders_nothing(stage: Stage) -> None:
    desk = Desk()
    async with stage.pool(HOOK.replace("KEYS", ", overlap: parallel, key: all"), a=desk):
        for n in range(3):
            await post(stage, n)
        await until(lambda: len(desk.seen) == 3, "three runs at once")
        desk.open.set()
        await stage.settled(3)


async def test_a_trigger_of_high_priority_goes_first(stage: Stage) -> None:
    desk = Desk()
    manifest = """
agents:
  a:
    model: demo
    concurrency: 1
    triggers:
      - {type: webhook, name: low, port: PORT, path: /low, priority: low, prompt: "low {{ event.data.n }}"}
      - {type: webhook, name: high, port: PORT, path: /high, priority: high, prompt: "high {{ event.data.n }}"}
"""
    async with stage.pool(manifest, a=desk) as pool:
        await stage.post({"n": 0}, "/low")
        await until(lambda: len(desk.seen) == 1, "the first run")
        _, body = await stage.post({"n": 1}, "/low")
        await stage.post({"n": 2}, "/high")
        url = pool.report.server_url
        _, page = await stage.get(f"{url}/events/{body['event_id']}")
        assert page["waits_for"] == page["hops"][0]["waits_for"] == "agent's concurrency 1 in use"
        desk.open.set()
        await stage.settled(3)
        _, page = await stage.get(f"{url}/events/{body['event_id']}")
        assert "waits_for" not in page
    assert desk.seen == ["low 0", "high 2", "low 1"]


async def test_a_file_trigger_pauses_while_the_inbox_is_full_and_goes_on_by_itself(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    manifest = """
agents:
  a:
    model: demo
    concurrency: 1
    inbox: {size: 4}
    triggers:
      - {type: file, name: watch, paths: [in], settle_s: 0, prompt: "{{ event.subject }}"}
"""
    for number in range(12):
        drop_file(stage.folder, f"in/{number}.md")
    async with stage.pool(manifest, a=desk) as pool:

        async def full() -> bool:
            counts = [await stage.count(pool, status) for status in ("running", "pending")]
            # Seven files are still only files.
            return counts == [1, 4] and "trigger 'watch' pauses" in caplog.text

        await eventually(full, "a full inbox")
        desk.open.set()
        await stage.settled(12)
    assert sorted(desk.seen) == sorted(f"in/{number}.md" for number in range(12))
    assert {record.outcome for record in stage.done} == {"ran"}


async def test_a_file_whose_event_is_skipped_stays_where_it_is(stage: Stage) -> None:
    desk = Desk()
    manifest = """
agents:
  a:
    model: demo
    triggers:
      - {type: file, name: watch, paths: [in], settle_s: 0, overlap: skip, on_done: delete}
"""
    drop_file(stage.folder, "in/first.md")
    async with stage.pool(manifest, a=desk):
        await until(lambda: len(desk.seen) == 1, "the first run")
        drop_file(stage.folder, "in/second.md")
        await stage.settled(1)
        desk.open.set()
        await until(lambda: not (stage.folder / "in" / "first.md").exists(), "the first file is deleted")
    assert [record.outcome for record in stage.done] == ["skipped", "ran"]
    assert (stage.folder / "in" / "second.md").exists()


async def test_ticks_that_overlap_are_skipped(stage: Stage) -> None:
    desk = Desk()
    manifest = """
agents:
  a:
    model: demo
    triggers:
      - {type: schedule, name: tick, every_s: 0.05, overlap: skip, prompt: go}
"""
    async with stage.pool(manifest, a=desk):
        await stage.settled(5)
        assert desk.seen == ["go"]
        desk.open.set()
        await until(lambda: any(record.outcome == "ran" for record in stage.done), "the first tick is done")
    assert {record.outcome for record in stage.done[:5]} == {"skipped"}
    assert json.dumps([record.to_dict() for record in stage.done])


LATE = """
import pathlib, runpy, time

while not pathlib.Path("go").exists():
    time.sleep(0.02)
runpy.run_path(LIBRARY, run_name="__main__")
"""


async def test_an_event_says_that_its_agent_still_starts(stage: Stage) -> None:
    library = Path(__file__).parents[2] / "examples" / "library_server.py"
    stage.write("late.py", LATE.replace("LIBRARY", repr(str(library))))
    manifest = f"""
mcp_servers:
  library: {{type: stdio, command: {sys.executable}, args: [late.py]}}
agents:
  a:
    model: demo
    mcp_servers: [library]
    triggers: [{{type: webhook, name: hook, port: PORT}}]
"""
    async with stage.pool(manifest) as pool:
        event_id = await post(stage, 1)

        async def starting() -> bool:
            _, page = await stage.get(f"{pool.report.server_url}/events/{event_id}")
            return page.get("waits_for") == "agent is starting: MCP server library"

        await eventually(starting, "the reason")
        stage.write("go", "")
        await stage.settled(1)
        _, page = await stage.get(f"{pool.report.server_url}/events/{event_id}")
        assert (page["status"], "waits_for" in page) == ("done", False)


async def test_an_event_says_so_of_an_agent_that_came_with_a_reload(stage: Stage) -> None:
    manifest = """
limits: {drain_timeout_s: 0}
agents:
  a: {model: demo, triggers: [{type: webhook, name: hook, port: PORT}]}
"""
    late = f"""
  b: {{model: demo, mcp_servers: [late], triggers: [{{type: webhook, name: new, port: {stage.port}, path: /new}}]}}
mcp_servers: {{late: {{type: stdio, command: {sys.executable}, args: [-c, "import time; time.sleep(600)"]}}}}
"""
    async with stage.pool(manifest) as pool:
        with (stage.folder / "agents.yml").open("a") as file:
            file.write(late)
        assert (await pool.reload()).applied
        _, body = await stage.post({"n": 1}, "/new")

        async def starting() -> bool:
            _, page = await stage.get(f"{pool.report.server_url}/events/{body['event_id']}")
            return page.get("waits_for") == "agent is starting: MCP server late"

        await eventually(starting, "the reason")
