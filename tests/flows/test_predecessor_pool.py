"""What else the predecessor did not do as promised: knowledge, fan-out, conditions, transforms, sinks, history."""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib.metadata
import re
import sqlite3
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from llm_server import LLMServer
from packaging.requirements import Requirement
from serving import free_port
from stage import Stage, prompt_of

from llmling import Agent, AgentPool, Message
from llmling.protocols import ModelRequest
from llmling.testing import ScriptedModel

REPOSITORY = Path(__file__).parents[2]
EXTRAS = ("pytest_plugin.py", "engines/jetstream/link.py")
OURS = {"llmling", "llmling_cli"}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_knowledge_reaches_the_model(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.write("kb/one.md", "The moon is made of basalt.")
    stage.write("kb/two.md", "Mars is rusty.")
    manifest = """
agents:
  reader:
    model: openai/test
    knowledge: [kb/one.md, "kb/t*.md", {type: text, content: "Water is wet."}]
"""
    async with LLMServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        async with stage.pool(manifest) as pool:
            await pool.get_agent("reader").run("What is the moon made of?")
            stage.write("kb/one.md", "The moon is made of cheese.")
            await pool.get_agent("reader").run("And now?")
    first, second = (str(request.body["messages"][0]) for request in server.requests)
    for text in ("made of basalt", "Mars is rusty", "Water is wet"):
        assert text in first
    assert "made of cheese" in second


async def test_one_agent_feeds_several_targets_and_a_team(stage: Stage) -> None:
    manifest = """
server: false
agents:
  source:
    model: demo
    triggers: [{type: webhook, port: PORT}]
    connections: [one, two, both]
  one: {model: demo}
  two: {model: demo}
teams:
  both: {members: [one, two]}
"""
    async with stage.pool(manifest) as pool:
        await stage.post({"say": "hello"})
        (record,) = await stage.settled(1)
        assert pool.engine is not None
        full = await pool.engine.inspect(record.id)
        assert full is not None
        result = await pool.get_agent("source").run("hello again", wait_for_connections=True)
        assert pool.failures == []
    assert [(hop.agent, hop.status) for hop in full.deliveries] == [
        ("source", "done"),
        ("one", "done"),
        ("two", "done"),
        ("both", "done"),
    ]
    assert "hello again" in result.content


@pytest.mark.parametrize(
    ("when", "taken"),
    [
        ("'red' in message.text and 'green' in message.text", {"red and green"}),
        ("'red' in message.text or 'green' in message.text", {"red", "green", "red and green"}),
        ("not ('red' in message.text)", {"green", "blue"}),
        ("message.text == 'False'", set[str]()),
        ("'nothing' in message.text", set[str]()),
    ],
)
async def test_conditions_combine_and_false_is_false(stage: Stage, when: str, taken: set[str]) -> None:
    manifest = f"""
agents:
  source: {{model: demo, connections: [{{to: target, when: "{when}"}}]}}
  target: {{model: demo}}
"""
    got: set[str] = set()

    async def repeat(request: ModelRequest) -> str:
        return prompt_of(request)

    async def keep(request: ModelRequest) -> str:
        got.add(prompt_of(request))
        return "kept"

    async with stage.pool(manifest, source=repeat, target=keep) as pool:
        for text in ("red", "green", "blue", "red and green"):
            await pool.get_agent("source").run(text, wait_for_connections=True)
        assert pool.failures == []
    assert got == taken


async def test_a_transform_changes_what_the_target_gets(stage: Stage) -> None:
    stage.write(
        "shapes.py",
        "def shorten(message):\n    return message.text[:5]\n\nasync def drop(message):\n    return None\n",
    )
    manifest = """
agents:
  source:
    model: demo
    connections: [{to: target, transform: "shapes:shorten"}, {to: target, transform: "shapes:drop"}]
  target: {model: demo}
"""
    got: list[str] = []

    async def long(request: ModelRequest) -> str:
        return "a long answer"

    async def keep(request: ModelRequest) -> str:
        got.append(prompt_of(request))
        return "kept"

    async with stage.pool(manifest, source=long, target=keep) as pool:
        await pool.get_agent("source").run("go", wait_for_connections=True)
    assert got == ["a lon"]


async def test_file_sinks_need_no_template_append_and_fill_their_path_in(stage: Stage) -> None:
    manifest = """
server: false
agents:
  clerk:
    model: demo:script.yml
    triggers: [{type: webhook, port: PORT}]
    sinks:
      - {type: file, path: "out/{{ event.id }}.md"}
      - {type: file, path: log.md, mode: append}
"""
    stage.write("script.yml", '- {match: one, reply: first}\n- {match: "", reply: second}\n')
    async with stage.pool(manifest):
        _, one = await stage.post({"say": "one"})
        await stage.settled(1)
        _, two = await stage.post({"say": "two"})
        await stage.settled(2)
    out = {path.name: path.read_text() for path in (stage.folder / "out").iterdir()}
    assert out == {f"{one['event_id']}.md": "first\n", f"{two['event_id']}.md": "second\n"}
    assert (stage.folder / "log.md").read_text() == "first\nsecond\n"


async def test_runs_keep_no_history_and_a_session_keeps_all_of_it() -> None:
    seen: list[list[str]] = []

    async def answer(request: ModelRequest) -> str:
        seen.append([message.text for message in request.messages])
        return "a rather long answer of many tokens"

    async with Agent[Any]("talker", model=ScriptedModel(answer)) as agent:
        for prompt in ("one", "two"):
            await agent.run(prompt)
        chat = agent.session("user-7")
        for prompt in ("three", "four", "five"):
            await chat.run(prompt)
    assert seen[:2] == [["one"], ["two"]]
    assert [len(messages) for messages in seen[2:]] == [1, 3, 5]


async def test_teams_leave_nothing_behind_on_their_members(stage: Stage) -> None:
    manifest = """
agents:
  one: {model: demo, connections: [two]}
  two: {model: demo}
teams:
  line: {mode: sequential, members: [one, two]}
"""
    async with stage.pool(manifest) as pool:
        for number in range(5):
            await pool.get_team("line").run(f"message {number}")
        assert {name: len(node.connections) for name, node in pool.nodes.items()} == {"one": 1, "two": 0, "line": 0}


async def test_messages_are_not_kept_after_they_were_delivered(stage: Stage) -> None:
    manifest = "agents:\n  one: {model: demo, connections: [two]}\n  two: {model: demo}\n"

    def alive() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if type(thing) is Message)

    async with stage.pool(manifest) as pool:
        agent = pool.get_agent("one")
        await agent.run("first", wait_for_connections=True)
        before = alive()
        for number in range(100):
            await agent.run(f"message {number}", wait_for_connections=True)
        assert alive() - before < 20


async def test_a_store_that_is_locked_does_not_hold_up_the_loop(stage: Stage) -> None:
    health = free_port()
    manifest = f"server: {{port: {health}}}\nagents:\n"
    manifest += "  clerk: {model: demo, triggers: [{type: webhook, port: PORT}]}\n"
    async with stage.pool(manifest):
        blocker = sqlite3.connect(stage.folder / ".llmling" / "pool.db", isolation_level=None)
        try:
            blocker.execute("begin immediate")
            waiting = asyncio.create_task(stage.post({"n": 1}))
            for _ in range(5):
                async with asyncio.timeout(5):
                    assert (await stage.get(f"http://127.0.0.1:{health}/healthz"))[0] == 200
            assert not waiting.done() or waiting.result()[0] == 503
            blocker.execute("rollback")
        finally:
            blocker.close()
        await waiting
        assert (await stage.post({"n": 2}))[0] == 202


async def test_an_engine_in_memory_writes_no_file(stage: Stage) -> None:
    manifest = "server: false\nengine: {type: memory}\nagents:\n"
    manifest += "  clerk: {model: demo, triggers: [{type: webhook, port: PORT}]}\n"
    async with stage.pool(manifest):
        await stage.post({"say": "hello"})
        await stage.settled(1)
    assert [path.name for path in stage.folder.iterdir()] == ["agents.yml"]


async def test_a_pool_without_triggers_writes_no_file(stage: Stage) -> None:
    async with stage.pool("agents:\n  clerk: {model: demo}\n") as pool:
        await pool.get_agent("clerk").run("hello")
    assert [path.name for path in stage.folder.iterdir()] == ["agents.yml"]


OFFLINE = """
import asyncio, sys

def watch(event, arguments):
    place = arguments[1] if event == "socket.connect" else arguments[0] if event == "socket.getaddrinfo" else None
    host = place[0] if isinstance(place, tuple) else place
    if isinstance(host, str | bytes) and str(host) not in {"127.0.0.1", "localhost", "::1"}:
        print("reached for", host)
        raise OSError("there is no network")

sys.addaudithook(watch)
from llmling import Agent

async def main():
    model = {"type": "litellm", "name": "openai/test", "api_base": sys.argv[1], "api_key": "test"}
    for _ in range(2):
        print((await Agent("a", model=model).run("hello")).content)

asyncio.run(main())
"""


async def test_a_run_reaches_for_nothing_but_its_model(tmp_path: Path) -> None:
    async with LLMServer() as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OFFLINE, server.openai_url,
            cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    assert out.decode().splitlines() == ["echo: hello", "echo: hello"]
    assert "Traceback" not in err.decode()


async def test_a_manifest_may_be_a_path_or_its_text(stage: Stage) -> None:
    path = stage.write("agents.yml", "agents:\n  clerk: {model: demo}\n")
    for source in (path, str(path)):
        async with AgentPool[None](source) as pool:
            assert list(pool.agents) == ["clerk"]


# --- the package -----------------------------------------------------------------------------------------------------


def requirements() -> list[Requirement]:
    """Return what a plain installation brings."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def test_a_plain_installation_brings_everything_that_is_imported() -> None:
    todo, brought = [requirement.name for requirement in requirements()], set[str]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in brought:
            brought.add(name)
            found = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
            todo += [need.name for need in found if need.marker is None or need.marker.evaluate({"extra": ""})]
    homes = importlib.metadata.packages_distributions()
    missing: dict[str, str] = {}
    # Only pytest itself loads its plugin, and only a manifest with `engine: nats` that of NATS.
    paths = {*(REPOSITORY / "llmling").rglob("*.py"), *(REPOSITORY / "cli").rglob("*.py")}
    for path in sorted(paths - {REPOSITORY / "llmling" / name for name in EXTRAS}):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS:
                if not {re.sub(r"[-_.]+", "-", home).lower() for home in homes.get(top, ())} & brought:
                    missing[top] = str(path)
    assert missing == {}


def test_no_later_major_release_of_a_dependency_is_taken_unseen() -> None:
    # tzdata counts in years and has no interface that could change.
    open_ended = [
        requirement.name
        for requirement in requirements()
        if requirement.name != "tzdata" and not any("<" in clause.operator for clause in requirement.specifier)
    ]
    assert open_ended == []


def test_the_wheel_holds_every_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    sources = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "llmling").rglob("*.py")]
    sources += [path.relative_to(REPOSITORY / "cli") for path in (REPOSITORY / "cli").rglob("*.py")]
    assert {path.as_posix() for path in sources} <= packed
