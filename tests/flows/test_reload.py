"""Reloading a pool: what is different starts anew, everything else goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from reload_house import at, hook, house, without
from serving import free_port, until

from llmling import AgentPool, Manifest, Message
from llmling.report import Reload

LIBRARY = Path(__file__).parents[2] / "examples" / "library_server.py"
GONE = "agent 'a' is not in the manifest any more; put it back and run `llmling events retry`"

CASES: Mapping[str, tuple[Callable[[dict[str, Any]], None], str, set[str]]] = {
    "nothing": (lambda data: None, "nothing changed", set()),
    "a comment": (at("x-note", value="read me"), "nothing changed", set()),
    "instructions": (
        at("agents", "b", "instructions", value="You doubt."),
        "1 agent changed (b), 1 team changed (desk)",
        {"b", "desk"},
    ),
    "a model": (
        at("agents", "c", "model", value="demo:new.yml"),
        "1 agent changed (c), 1 team changed (row)",
        {"c", "row"},
    ),
    "defaults": (
        at("defaults", value={"model_settings": {"temperature": 0.5}}),
        "3 agents changed (a, b, c), 2 teams changed (desk, row)",
        {"a", "b", "c", "desk", "row"},
    ),
    "a connection": (at("agents", "b", "connections", value=["c"]), "1 agent changed (b)", set()),
    "redelivery": (at("agents", "a", "redelivery", value={"attempts": 9}), "1 agent changed (a)", set()),
    "a budget": (at("agents", "a", "budget", value={"requests_per_day": 9}), "1 agent changed (a)", set()),
    "a sink": (
        at("agents", "c", "sinks", value=[{"type": "file", "path": "out.txt"}]),
        "1 agent changed (c), 1 team changed (row)",
        {"c", "row"},
    ),
    "a team": (at("teams", "desk", "mode", value="sequential"), "1 team changed (desk)", {"desk"}),
    "a new agent": (at("agents", "d", value={"model": "demo"}), "1 agent added (d)", {"d"}),
    "a removed team": (without("teams", "row"), "1 team removed (row)", {"row"}),
    "a new trigger": (
        at("agents", "b", "triggers", value=[hook("more", path="/more")]),
        "1 trigger added (more)",
        set(),
    ),
    "a changed trigger": (
        at("agents", "a", "triggers", value=[hook(prompt="Say hi")]),
        "1 trigger changed (hook)",
        set(),
    ),
    "a removed trigger": (without("agents", "a", "triggers"), "1 trigger removed (hook)", set()),
    "limits": (at("limits", value={"max_hops": 3}), "1 key changed (limits)", set()),
    "a pool's budget": (at("budget", value={"usd_per_day": 3}), "1 key changed (budget)", set()),
    "the engine": (at("engine", value={"type": "sqlite"}), "nothing changed; restart to apply: engine", set()),
    "the server": (at("server", value={"port": 18999}), "nothing changed; restart to apply: server", set()),
}


@pytest.mark.parametrize("case", CASES)
async def test_only_what_is_different_starts_anew(tmp_path: Path, case: str) -> None:
    change, line, anew = CASES[case]
    project = house(tmp_path)
    async with project.pool() as pool:
        before = dict(pool.nodes)
        listening = pool.report.triggers
        result = await project.reload(pool, change)
        assert result.applied, result.problems
        assert str(result) == f"reloaded: {line}"
        after = dict(pool.nodes)
        assert {name for name in before.keys() | after.keys() if before.get(name) is not after.get(name)} == anew
        if "trigger" not in case:
            assert pool.report.triggers == listening
            assert (await project.event(pool)).status == "done"


async def test_edges_lead_to_the_nodes_that_have_the_names_now(tmp_path: Path) -> None:
    project = house(tmp_path)
    heard: list[str] = []

    def listen(message: Message) -> None:
        heard.append(message.text)

    async with project.pool() as pool:
        a = pool.get_agent("a")
        _ = a >> listen
        _ = pool.get_agent("b") >> pool.get_agent("c")
        await project.reload(pool, at("agents", "c", "model", value="demo:new.yml"))
        assert pool.get_agent("a") is a
        targets = {name: [edge.target for edge in pool.get_agent(name).connections] for name in ("a", "b")}
        assert targets["a"][0] is pool.get_agent("c")
        assert targets["b"] == [pool.get_agent("c")]
        await project.reload(pool, at("agents", "a", "model", value="demo:new.yml"))
        assert pool.get_agent("a") is not a
        record = await project.event(pool)
        full = await pool.inspect(record.id)
        assert full is not None
        assert [(hop.agent, hop.content) for hop in full.deliveries] == [("a", "NEW"), ("c", "NEW")]
        assert heard == ["NEW"]


async def test_a_run_ends_on_its_old_agent_and_what_is_queued_runs_on_the_new_one(tmp_path: Path) -> None:
    project = house(tmp_path)
    gate = project.hold()
    project.data["agents"]["a"]["concurrency"] = 1
    project.write()
    async with project.pool() as pool:
        (_, first), *others = [await project.post() for _ in range(4)]
        await until(lambda: gate.inside == 1, "the first run")
        result = await project.reload(pool, at("agents", "a", "model", value="demo:new.yml"))
        assert result.changed["agents"] == ("a",)
        gate.opened.set()
        contents = [
            (await project.settled(pool, body["event_id"])).content for body in (first, *(b for _, b in others))
        ]
        assert contents == ["OLD", "NEW", "NEW", "NEW"]
        # Its answer went to the agent behind it, by name, as a delivery of its own.
        full = await pool.inspect(first["event_id"])
        assert full is not None
        assert [(hop.agent, hop.status) for hop in full.deliveries] == [("a", "done"), ("c", "done")]
    assert gate.inside == 1


async def test_what_is_queued_for_a_removed_agent_is_dead_and_can_come_back(tmp_path: Path) -> None:
    project = house(tmp_path)
    gate = project.hold()
    project.data["agents"]["a"]["concurrency"] = 1
    del project.data["teams"]
    project.write()
    kept = dict(project.data["agents"]["a"])
    async with project.pool() as pool:
        events = [(await project.post())[1]["event_id"] for _ in range(3)]
        await until(lambda: gate.inside == 1, "the first run")
        result = await project.reload(pool, without("agents", "a"))
        assert (result.removed["agents"], result.removed["triggers"]) == (("a",), ("hook",))
        for event_id in events[1:]:
            record = await project.settled(pool, event_id)
            assert (record.status, record.error) == ("dead", GONE)
        gate.opened.set()
        assert (await project.settled(pool, events[0])).status == "done"
        assert "a" not in pool.nodes
        await project.reload(pool, at("agents", "a", value=kept))
        assert pool.engine is not None
        assert await pool.engine.retry(events[1]) == 1
        assert (await project.settled(pool, events[1])).status == "done"


async def test_mcp_servers_that_stay_keep_their_process(tmp_path: Path) -> None:
    project = house(tmp_path)
    server = {"type": "stdio", "command": sys.executable, "args": [str(LIBRARY)]}
    project.data["mcp_servers"] = {"one": server, "two": dict(server)}
    project.data["agents"]["a"]["mcp_servers"] = ["one"]
    project.data["agents"]["b"]["mcp_servers"] = ["two"]
    project.write()

    def processes() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True)}

    async def up(pool: AgentPool[None]) -> None:
        await until(lambda: {s.state for s in pool.report.servers} == {"ready"}, "the MCP servers", 60)

    async with project.pool() as pool:
        await up(pool)
        before, a, b = processes(), pool.get_agent("a"), pool.get_agent("b")
        await project.reload(pool, at("agents", "a", "instructions", value="You read."))
        assert processes() == before
        assert [server.state for server in pool.report.servers] == ["ready", "ready"]
        assert pool.report.agents[0].tools > 0
        a = pool.get_agent("a")
        result = await project.reload(pool, at("mcp_servers", "two", "call_timeout_s", value=5))
        assert str(result) == "reloaded: 1 agent changed (b), 1 team changed (desk), 1 MCP server changed (two)"
        assert pool.get_agent("a") is a
        assert pool.get_agent("b") is not b
        await up(pool)
        await until(lambda: len(processes()) == len(before), "the old process to end")
        assert len(processes() & before) == len(before) // 2
        result = await project.reload(pool, without("agents", "b", "mcp_servers"))
        result = await project.reload(pool, without("mcp_servers", "two"))
        assert result.removed == {"mcp_servers": ("two",)}
        await until(lambda: processes() < before, "its process to end")
    assert not processes()


async def test_a_file_that_cannot_be_used_changes_nothing_and_says_why(tmp_path: Path) -> None:
    project = house(tmp_path)
    project.data["server"] = {"port": free_port()}
    project.write()
    async with project.pool() as pool:
        nodes, manifest = dict(pool.nodes), pool.manifest
        good = project.path.read_text()
        project.path.write_text(good.replace("model: demo", "modle: demo", 1))
        result = await pool.reload()
        assert not result.applied
        assert result.problems == tuple(problem.render() for problem in Manifest.check(project.path))
        assert str(result).startswith(f"not reloaded: {project.path}:")
        assert 'unknown key "modle" in agents.a; did you mean "model"?' in str(result)
        for text in ("", "agents: [", "{", good[: len(good) // 3]):
            project.path.write_text(text)
            assert not (await pool.reload()).applied
        project.path.unlink()
        assert "no such file" in str(await pool.reload())
        assert dict(pool.nodes) == nodes
        assert pool.manifest is manifest
        assert (await project.event(pool)).status == "done"
        url = pool.report.server_url
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/readyz") as page:
                assert page.status == 200
            async with session.get(f"{url}/metrics") as page:
                text = await page.text()
        assert 'llmling_reloads_total{result="refused"} 6' in text
        assert "llmling_reload_refused 1" in text
        project.path.write_text(good)
        assert (await pool.reload()).applied


async def test_what_cannot_start_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = house(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with project.pool() as pool:
            tasks = asyncio.all_tasks()
            nodes, triggers = dict(pool.nodes), pool.report.triggers
            good = project.path.read_text()

            def both(data: dict[str, Any]) -> None:
                data["agents"]["a"]["triggers"] = [hook(prompt="Say hi")]
                data["agents"]["d"] = {"model": "demo", "triggers": [hook("second", port=port)]}

            result = await project.reload(pool, both)
            assert "is in use (trigger 'second')" in str(result)
            project.path.write_text(good + "mcp_servers: {gone: {type: stdio, command: no-such, required: true}}\n")
            assert "'gone' is required and did not start" in str(await pool.reload())
            monkeypatch.delenv("OPENAI_API_KEY", raising=False)
            project.path.write_text(good.replace("model: demo", "model: openai/gpt-4o-mini", 1))
            assert "OPENAI_API_KEY" in str(await pool.reload())
            assert dict(pool.nodes) == nodes
            assert pool.report.triggers == triggers
            assert (await project.event(pool)).status == "done"
            await until(lambda: len(asyncio.all_tasks()) <= len(tasks), "what was started to end")


async def test_a_new_agent_is_reached_by_its_trigger_at_once(tmp_path: Path) -> None:
    project = house(tmp_path)
    async with project.pool() as pool:
        new = {"model": "demo:new.yml", "connections": ["c"], "triggers": [hook("new", path="/new")]}
        await project.reload(pool, at("agents", "d", value=new))
        record = await project.event(pool, "/new")
        full = await pool.inspect(record.id)
        assert full is not None
        assert [(hop.agent, hop.status) for hop in full.deliveries] == [("d", "done"), ("c", "done")]


async def test_what_was_spent_still_counts(tmp_path: Path) -> None:
    project = house(tmp_path)
    del project.data["agents"]["a"]["connections"]
    project.data["agents"]["a"]["budget"] = {"requests_per_day": 2}
    project.data["agents"]["a"]["redelivery"] = {"attempts": 1}
    project.write()
    async with project.pool() as pool:
        assert [(await project.event(pool)).status for _ in range(3)] == ["done", "done", "dead"]
        await project.reload(pool, at("agents", "a", "budget", "requests_per_day", value=3))
        assert [(await project.event(pool)).status for _ in range(2)] == ["done", "dead"]
        await project.reload(pool, at("agents", "a", "model", value="demo:new.yml"))
        assert (await project.event(pool)).status == "dead"
        await project.reload(pool, without("agents", "a", "budget"))
        assert (await project.event(pool)).status == "done"


async def test_variables_and_includes_are_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = house(tmp_path)
    project.data |= {"include": ["more/*.yml"]}
    project.data["agents"]["b"]["instructions"] = "${TONE:-plain}"
    project.write()
    (tmp_path / "more").mkdir()
    heard: list[Reload] = []
    async with project.pool() as pool:
        monkeypatch.setenv("TONE", "solemn")
        assert str(await pool.reload()) == "reloaded: 1 agent changed (b), 1 team changed (desk)"
        following = asyncio.create_task(pool.reload_on_change(heard.append))
        (tmp_path / "more" / "d.yml").write_text("agents: {d: {model: demo}}\n")
        await until(lambda: heard, "the reload")
        assert str(heard.pop()) == "reloaded: 1 agent added (d)"
        (tmp_path / "more" / "d.yml").write_text("agents: {d: {modle: demo}}\n")
        await until(lambda: heard, "the refusal")
        assert "d.yml:1:" in str(heard.pop())
        # The same mistake is told once.
        os.utime(tmp_path / "more" / "d.yml")
        (tmp_path / "more" / "e.yml").write_text("agents: {e: {model: demo}}\n")
        await until(lambda: heard, "the next refusal")
        assert len(heard) == 1
        (tmp_path / "more" / "d.yml").unlink()
        await until(lambda: len(heard) > 1, "the reload")
        assert str(heard[-1]) == "reloaded: 1 agent added (e), 1 agent removed (d)"
        following.cancel()
        await asyncio.wait({following})


async def test_a_manifest_can_be_given(tmp_path: Path) -> None:
    manifest: dict[str, Any] = {"agents": {"a": {"model": "demo"}}}
    async with AgentPool[None](manifest) as pool:
        with pytest.raises(ValueError, match="was not read from a file"):
            await pool.reload()
        assert str(await pool.reload({"agents": {"a": {"model": "demo"}, "b": {"model": "demo"}}})) == (
            "reloaded: 1 agent added (b)"
        )
        assert "[demo]" in (await pool.get_agent("b").run("Hello there")).response
        house(tmp_path)
        assert f"is in {tmp_path}, not in" in str(await pool.reload(tmp_path / "agents.yml"))
        triggers = [{"type": "schedule", "name": "tick", "every_s": 60, "prompt": "Go"}]
        result = await pool.reload({"agents": {"a": {"model": "demo", "triggers": triggers}}})
        assert result.restart == ("triggers",)
    with pytest.raises(ValueError, match="enter the pool first"):
        await AgentPool[None](manifest).reload()


async def test_reloads_at_once_share_one_and_stopping_ends_them(tmp_path: Path) -> None:
    project = house(tmp_path)
    before = asyncio.all_tasks()
    async with project.pool() as pool:
        at("agents", "b", "instructions", value="You doubt.")(project.data)
        project.write()
        results = await asyncio.gather(*(pool.reload() for _ in range(5)))
        assert len({id(result) for result in results}) == 1
        at("agents", "b", "instructions", value="You trust.")(project.data)
        project.write()
        last = asyncio.create_task(pool.reload())
        await asyncio.sleep(0)
    result = await last
    assert result.applied or result.problems == ("the pool is stopping",)
    assert (await pool.reload()).problems == ("the pool is stopping",)
    await until(lambda: asyncio.all_tasks() <= before, "every task to end")
