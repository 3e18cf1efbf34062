"""`llmling init` and the example pool: what a stranger starts with runs at once, without a key."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import yaml
from serving import Serve, llmling, post, until

ROOT = Path(__file__).parents[2]


def on_port(manifest: Path, port: int) -> None:
    text = manifest.read_text()
    manifest.write_text(re.sub(r"port: 8000", f"port: {port}", text))


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("watch", "out/bridge.md"),
        ("team", "out/*.md"),
        ("mcp", "out/question.md"),
        ("schedule", "report.md"),
        ("webhook", "reports.md"),
    ],
)
async def test_a_new_project_is_served_at_once(tmp_path: Path, template: str, result: str, free_tcp_port: int) -> None:
    status, out, _ = await llmling(tmp_path, "init", "demo", "--template", template)
    folder = tmp_path / "demo"
    assert status == 0
    assert out.splitlines()[-1] == "now: cd demo && llmling serve agents.yml"
    text = (folder / "agents.yml").read_text()
    assert text.startswith("# yaml-language-server: $schema=./llmling.schema.json\n")
    schema = json.loads((folder / "llmling.schema.json").read_text())
    checker: Any = jsonschema.Draft202012Validator(schema)
    checker.validate(yaml.safe_load(text))
    assert "llmling serve agents.yml" in (folder / "README.md").read_text()
    on_port(folder / "agents.yml", free_tcp_port)
    async with Serve(folder) as serve:
        if template == "webhook":
            async with aiohttp.ClientSession() as session:
                body = json.loads((folder / "samples/opened.json").read_text())
                code, _ = await post(session, f"http://127.0.0.1:{free_tcp_port}/webhook", body)
                assert code == 202
        await until(lambda: serve.events, "the first event")
        assert serve.events[0]["status"] == "done", serve.events
        answer = next(iter(folder.glob(result))).read_text()
    assert "demo" in answer
    if template == "mcp":
        assert "hangs behind the kitchen door" in answer
    if template == "webhook":
        assert list(folder.glob("urgent/*.txt"))


async def test_init_leaves_a_folder_with_anything_in_it_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/agents.yml").write_text("agents: {}")
    (tmp_path / "file").write_text("x")
    for target in ("mine", "file"):
        status, out, err = await llmling(tmp_path, "init", target)
        assert (status, out) == (1, "")
        assert "nothing was written" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["agents.yml"]
    assert (tmp_path / "mine/agents.yml").read_text() == "agents: {}"


async def test_init_says_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    status, _, err = await llmling(tmp_path, "init", "file/below")
    assert status == 1
    assert "Traceback" not in err


async def test_the_example_pool_answers_a_file_and_a_post_through_its_second_agent(
    tmp_path: Path, free_tcp_port: int
) -> None:
    for name in ("agents.yml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "inbox").mkdir()
    on_port(tmp_path / "agents.yml", free_tcp_port)
    async with Serve(tmp_path) as serve:
        shutil.copy(tmp_path / "CONTRIBUTING.md", tmp_path / "inbox")
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{free_tcp_port}/webhook"
            code, posted = await post(session, url, {"text": "The bridge opens in May."})
        assert code == 202
        await until(lambda: len(serve.events) == 2, "both events")
        states = next(line for line in serve.lines if line["type"] == "ready")
    assert [event["status"] for event in serve.events] == ["done", "done"]
    assert {event["trigger"] for event in serve.events} == {"inbox", "hook"}
    answers = {path.stem: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert set(answers) == {event["id"] for event in serve.events}
    assert "The bridge opens in May." in answers[posted["event_id"]]
    assert all("demo" in answer for answer in answers.values())
    assert [server["name"] for server in states["servers"]] == ["library"]
    assert any("demo" in notice.lower() for notice in states["notices"])
