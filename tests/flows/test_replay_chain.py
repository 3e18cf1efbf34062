"""A trigger and its whole chain, recorded against a real server and replayed without it and without a key."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from llm_server import Call, LLMServer, Reply
from serving import Serve, free_port, llmling, until

from llmling import AgentPool
from llmling.errors import NotAsked, StartupError
from llmling.firing import FireResult, fire
from llmling.manifest import check, load
from llmling.protocols import EventRecord
from llmling.testing import drop_file, no_real_models

KEY = "sk-loopback-secret-1"
MANIFEST = """\
defaults: {retries: {attempts: 3, backoff_s: 0}}
agents:
  reader:
    model:
      type: fallback
      models:
        - {type: litellm, name: openai/first, api_base: "${AI_BASE:-http://127.0.0.1:1}", api_key: "${SHOP_KEY:-}"}
        - type: litellm
          name: openai/second
          api_base: "${AI_BASE:-http://127.0.0.1:1}"
          api_key: "${SHOP_KEY:-}"
          price: {input_per_mtok: 100, output_per_mtok: 1000}
    instructions: You count words. The key of the shop is ${SHOP_KEY:-unknown-today}. It is {{ now }}.
    tools: [tools:count]
    model_settings: {temperature: 0.5}
    triggers:
      - type: file
        name: inbox
        paths: [in]
        prompt: "Count in {{ event.id }}, {{ event.time }}: {{ event.data.text }}"
    connections: [editor]
  editor:
    model: {type: litellm, name: openai/third, api_base: "${AI_BASE:-http://127.0.0.1:1}", api_key: "${SHOP_KEY:-}"}
    sinks: [{type: file, path: "out/{{ event.subject }}.txt"}]
"""
TOOLS = '''\
def count(text: str) -> str:
    """Count the words of a text."""
    return f"{len(text.split())} words"
'''


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL", "_API_BASE"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "agents.yml").write_text(MANIFEST)
    (tmp_path / "tools.py").write_text(TOOLS)
    drop_file(tmp_path / "in", "a.md", "one two three")
    return tmp_path


async def recorded(project: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[EventRecord, int]:
    """Record the chain in `tapes/inbox.yml`; return what became of the event and how many requests it took."""
    (project / "tapes").mkdir()
    async with LLMServer() as server:
        monkeypatch.setenv("AI_BASE", server.openai_url)
        monkeypatch.setenv("SHOP_KEY", KEY)
        server.replies += [
            Reply("slow down", status=429, retry_after="0"),
            Reply("no such model", status=404),
            Reply(calls=[Call("count", {"text": "one two three"})]),
            Reply("still down", status=404),
            Reply("It has 3 words."),
            Reply("broken", status=500),
            Reply("Three words."),
        ]
        result = await run(project, record="tapes/inbox.yml")
        monkeypatch.delenv("AI_BASE")
        monkeypatch.delenv("SHOP_KEY")
        assert result.record is not None
        return result.record, len(server.requests)


async def run(project: Path, **options: Any) -> FireResult:
    return await fire(load(project / "agents.yml"), "inbox", file=project / "in/a.md", **options)


def spent(record: EventRecord) -> list[tuple[str, float | None]]:
    return [(delivery.agent, delivery.cost_usd) for delivery in record.deliveries]


async def test_a_file_trigger_and_its_chain_are_replayed_without_server_and_key(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, requests = await recorded(project, monkeypatch)
    assert (first.status, requests) == ("done", 7)
    text = (project / "tapes/inbox.yml").read_text()
    assert KEY not in text
    assert "uthorization" not in text
    tape = yaml.safe_load(text)
    assert [
        [exchange["agent"], *(_brief(reply) for reply in exchange["replies"])] for exchange in tape["exchanges"]
    ] == [
        ["reader", ("openai/first", 429), ("openai/first", 404), ("openai/second", "tool_calls")],
        ["reader", ("openai/first", 404), ("openai/second", "stop")],
        ["editor", ("openai/third", 500), ("openai/third", "stop")],
    ]
    # The next day, on another machine: another time and key in the prompt, nobody to ask.
    monkeypatch.setenv("SHOP_KEY", "sk-loopback-secret-2")
    (project / "out/in/a.md.txt").unlink()
    with no_real_models():
        result = await run(project, model="replay:tapes/inbox.yml")
    second = result.record
    assert second is not None
    assert (second.status, second.id != first.id) == ("done", True)
    assert spent(second) == spent(first)
    assert second.cost_usd == pytest.approx((2 * 11 * 100 + 2 * 7 * 1000) / 1e6)
    kinds = [step.kind for step in second.deliveries[0].steps if step.kind != "event"]
    assert kinds == ["reply", "call", "result", "reply"]
    assert (project / "out/in/a.md.txt").read_text() == "Three words.\n"


def _brief(reply: dict[str, Any]) -> tuple[str, Any]:
    return reply["model"], reply["error"]["status"] if "error" in reply else reply["answer"]["finish_reason"]


async def test_an_event_that_was_not_recorded_is_dead_with_what_differs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recorded(project, monkeypatch)
    monkeypatch.setenv("SHOP_KEY", KEY)
    drop_file(project / "in", "a.md", "one two")
    status, _, err = await llmling(
        project, "fire", "agents.yml", "inbox", "--file", "in/a.md", "--model", "replay:tapes/inbox.yml"
    )
    assert status == 1
    assert "agent 'reader', replay:tapes/inbox.yml: this request was not recorded. Closest is inbox.yml:" in err
    assert "one two', recorded was '" in err
    assert "one two three'; record it again with --record inbox.yml" in err


async def test_the_manifest_can_name_the_cassette_and_python_reads_it_too(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recorded(project, monkeypatch)
    path = project / "agents.yml"
    data = yaml.safe_load(MANIFEST)
    data["agents"]["editor"]["model"] = "replay:tapes/inbox.yml"
    path.write_text(yaml.safe_dump(data))
    assert check(path) == []
    async with AgentPool(path, triggers=False, model="replay:tapes/inbox.yml") as pool:
        editor = pool.get_agent("editor")
        assert pool.report.notices == ("replay:tapes/inbox.yml: recorded answers, no model is asked",)
        result = await editor.run("It has 3 words.")
        assert (result.content, result.model, result.usage.input_tokens) == ("Three words.", "openai/third", 11)
        async with editor.run_stream("It has 3 words.") as events:
            words = [event.text async for event in events if event.type == "text_delta"]
        assert words == ["Three ", "words."]
        with pytest.raises(NotAsked, match="agent 'editor'"):
            await editor.run("Something else.")


DEMO = """\
engine: {type: sqlite}
agents:
  a:
    model: demo
    triggers: [{type: webhook, name: hook, port: PORT}]
    connections: [b]
  b: {}
"""


async def test_auto_is_recorded_at_what_it_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_BASE", "http://127.0.0.1:9")
    (tmp_path / "agents.yml").write_text("agents: {a: {}}")
    async with LLMServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        async with AgentPool(tmp_path / "agents.yml", record="c.yml") as pool:
            assert "recorded in c.yml" in pool.report.notices[-1]
            await pool.get_agent("a").run("Hello.")
    (exchange,) = yaml.safe_load((tmp_path / "c.yml").read_text())["exchanges"]
    assert exchange["replies"][0]["model"] == "openai/gpt-4o-mini"


TEAM = """\
agents:
  billing: {model: demo, description: Money}
  support: {model: demo, description: Machines}
teams:
  desk: {mode: pick, members: [billing, support], model: "demo:pick.yml"}
"""


async def test_a_team_that_picks_is_recorded_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text(TEAM)
    (tmp_path / "pick.yml").write_text("""- reply: '{"member": "support"}'\n""")
    async with AgentPool(tmp_path / "agents.yml", record="c.yml") as pool:
        first = await pool.get_team("desk").run("It is broken.")
    entries = yaml.safe_load((tmp_path / "c.yml").read_text())["exchanges"]
    assert [entry["agent"] for entry in entries] == ["desk", "support"]
    async with AgentPool(tmp_path / "agents.yml", model="replay:c.yml") as pool:
        second = await pool.get_team("desk").run("It is broken.")
        assert second.content == first.content
        with pytest.raises(NotAsked, match=r"agent 'desk', replay:c\.yml: this request was not recorded"):
            await pool.get_team("desk").run("It is lost.")


async def test_what_cannot_be_recorded_says_so(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("version: 1\nexchanges: []\n")
    manifest = {"agents": {"a": {"model": f"replay:{tmp_path}/c.yml"}}}
    with pytest.raises(StartupError, match=r"agent 'a' answers from replay:.*nothing to record.*--model"):
        await AgentPool(manifest, record=tmp_path / "d.yml").__aenter__()
    with pytest.raises(StartupError, match="its folder is missing"):
        await AgentPool({}, record=tmp_path / "none" / "d.yml").__aenter__()
    with pytest.raises(StartupError, match="is a folder"):
        await AgentPool({}, record=tmp_path).__aenter__()
    async with AgentPool({}, record=tmp_path / "c.yml"):
        pass
    assert "exchanges: []" in (tmp_path / "c.yml").read_text(), "nothing was asked, so nothing is replaced"


@pytest.mark.parametrize(
    "held",
    [
        "agents: {a: {model: demo}}\n",
        "import sys\n\nprint(sys.argv)\n",
        "version: 1\n",
        "exchanges: []\n",
        "- version: 1\n- exchanges: []\n",
        "tools: {version: 1, exchanges: []}\n",
        "version: int\nexchanges: str\n",
        "# only a note\n",
        "{",
        "\x00\x01",
    ],
)
async def test_a_file_that_is_no_cassette_is_not_recorded_over(tmp_path: Path, held: str) -> None:
    (tmp_path / "vict.yml").write_text(held)
    with pytest.raises(StartupError, match=r"vict\.yml is not a cassette; name another file for --record") as raised:
        await AgentPool({"agents": {"a": {"model": "demo"}}}, record=tmp_path / "vict.yml").__aenter__()
    assert raised.value.usage
    assert (tmp_path / "vict.yml").read_text() == held


@pytest.mark.parametrize(
    "held", ["", "version: 99\ntools: {t: [{}, []]}\nexchanges: []\n", '{"exchanges": [], "version": 1}']
)
async def test_an_empty_file_or_an_older_cassette_is_recorded_over(tmp_path: Path, held: str) -> None:
    (tmp_path / "c.yml").write_text(held)
    async with AgentPool({"agents": {"a": {"model": "demo"}}}, record=tmp_path / "c.yml") as pool:
        await pool.get_agent("a").run("Hello.")
    assert len(yaml.safe_load((tmp_path / "c.yml").read_text())["exchanges"]) == 1


async def test_the_manifest_is_not_recorded_over(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("agents: {a: {model: demo}}")
    for name in ("agents.yml", "../" + tmp_path.name + "/agents.yml"):
        with pytest.raises(StartupError, match=r"agents\.yml is the manifest; name another file for --record"):
            await AgentPool(tmp_path / "agents.yml", record=name).__aenter__()
    status, out, err = await llmling(tmp_path, "run", "agents.yml", "a", "Hello.", "--record", "agents.yml")
    assert (status, out) == (2, "")
    assert "is the manifest; name another file for --record" in err
    assert (tmp_path / "agents.yml").read_text() == "agents: {a: {model: demo}}"


async def test_a_serving_process_records_until_it_is_killed_and_fire_leaves_that_to_it(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text(DEMO.replace("PORT", str(free_port())))
    (tmp_path / "c.yml").write_text("version: 1\nexchanges: []\n")
    async with Serve(tmp_path, "agents.yml", "--record", "c.yml", "--model", "demo") as serve:
        manifest = load(tmp_path / "agents.yml")
        for number in range(3):
            result = await fire(manifest, "hook", data=f"Event {number}.")
            assert (result.served, result.record and result.record.status) == (True, "done")
        with pytest.raises(StartupError, match=r"another process serves this manifest.* start it with --record, or"):
            await fire(manifest, "hook", data="more", record="d.yml")
        with pytest.raises(StartupError, match="leave out --model and --record here") as raised:
            await fire(manifest, "hook", data="more", model="demo", record="d.yml")
        assert raised.value.usage
        await until(lambda: len(serve.events) == 3, "three events")
        await serve.kill()
    entries = yaml.safe_load((tmp_path / "c.yml").read_text())["exchanges"]
    assert [entry["agent"] for entry in entries] == ["a", "b"] * 3
    async with AgentPool({"agents": {"a": {"model": f"replay:{tmp_path}/c.yml"}}}) as pool:
        assert "Event 2." in (await pool.get_agent("a").run("Event 2.")).content


WORKER = """\
import asyncio, sys
from pathlib import Path
from llmling import AgentPool

async def main():
    async with AgentPool({"agents": {"a": {"model": "demo"}}}, record=Path(sys.argv[1])) as pool:
        for number in range(100_000):
            await pool.get_agent("a").run(f"Number {number}. " + "words " * 200)
            print(number, flush=True)

asyncio.run(main())
"""


async def test_a_kill_in_the_middle_of_writing_leaves_a_whole_cassette(tmp_path: Path) -> None:
    for turn in range(3):
        path = tmp_path / f"{turn}.yml"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, str(path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        said = 0
        while said < 20 + turn:
            said = int(await asyncio.wait_for(process.stdout.readline(), 60)) + 1
        process.send_signal(signal.SIGKILL)
        rest = (await process.stdout.read()).split()
        await process.wait()
        said = int(rest[-1]) + 1 if rest else said
        assert check({"agents": {"a": {"model": f"replay:{path}"}}}) == []
        assert len(yaml.safe_load(path.read_text())["exchanges"]) >= said


async def test_run_records_and_replays(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("agents: {a: {model: demo}}")
    status, first, err = await llmling(tmp_path, "run", "agents.yml", "a", "Hello there.", "--record", "c.yml")
    assert status == 0
    assert "! every model request and its answer is recorded in c.yml" in err
    status, second, err = await llmling(
        tmp_path, "run", "agents.yml", "a", "Hello there.", "--model", "replay:c.yml", "--json"
    )
    assert (status, json.loads(second)["content"]) == (0, first.rstrip())
    assert "! replay:c.yml: recorded answers, no model is asked" in err
