"""Commands that only look at the manifest: validate, schema, plan, graph, doctor."""

from __future__ import annotations

import json
import socket
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from serving import llmling

WRONG = """\
agents:
  reader:
    modle: demo
    triggers:
      - {type: file, path: [in]}
"""
RIGHT = """\
mcp_servers:
  shelf: {type: http, url: "https://example.org/mcp", headers: {Authorization: "Bearer ${SHELF_TOKEN}"}}
agents:
  reader:
    model: openai/gpt-4o-mini
    mcp_servers: [shelf]
    triggers:
      - {type: file, name: inbox, paths: [in]}
      - {type: webhook, name: hook, port: PORT}
      - {type: schedule, name: nightly, cron: "0 2 * * *", prompt: go, enabled: false}
    connections:
      - {to: desk, when: "'<urgent>' in message.text"}
  writer: {model: demo, tools: [{type: agent, name: critic}]}
  checker: {model: demo}
  critic: {model: demo}
  mailer:
    model: demo
    sinks: [{type: file, path: "out/{{ event.id }}.md"}]
teams:
  desk: {members: [writer, checker], connections: [mailer]}
"""
SECRET = "tok-very-secret-1234"


def write(folder: Path, text: str, port: int = 8000) -> None:
    (folder / "agents.yml").write_text(text.replace("PORT", str(port)))


async def test_validate_shows_every_problem_with_excerpt_and_caret(tmp_path: Path) -> None:
    write(tmp_path, WRONG)
    status, out, _ = await llmling(tmp_path, "validate", "agents.yml")
    assert status == 2
    assert "agents.yml:3:5: error LL" in out
    assert 'did you mean "model"' in out
    assert "3 |     modle: demo\n  |     ^^^^^\n" in out
    assert "agents.yml:5:" in out
    assert out.splitlines()[-1].startswith("agents.yml: ")


async def test_validate_and_serve_say_the_same(tmp_path: Path) -> None:
    write(tmp_path, WRONG)
    _, validated, _ = await llmling(tmp_path, "validate", "agents.yml")
    status, out, served = await llmling(tmp_path, "serve", "agents.yml")
    assert (status, out) == (2, "")
    assert served.strip() == "\n".join(validated.splitlines()[:-1]).strip()


async def test_validate_json_is_one_object(tmp_path: Path) -> None:
    write(tmp_path, WRONG)
    status, out, _ = await llmling(tmp_path, "validate", "agents.yml", "--format", "json")
    found = json.loads(out)
    assert status == 2
    assert found["valid"] is False
    first = found["problems"][0]
    assert (first["path"], first["line"], first["column"], first["severity"]) == ("agents.yml", 3, 5, "error")


async def test_validate_github_annotates(tmp_path: Path) -> None:
    write(tmp_path, WRONG)
    status, out, _ = await llmling(tmp_path, "validate", "agents.yml", "--format", "github")
    assert status == 2
    assert out.startswith("::error file=agents.yml,line=3,col=5,title=LL")


async def test_missing_keys_and_busy_ports_are_warnings(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write(tmp_path, RIGHT, taken.getsockname()[1])
        status, out, _ = await llmling(tmp_path, "validate", "agents.yml", env={"SHELF_TOKEN": SECRET})
        _, machine, _ = await llmling(
            tmp_path, "validate", "agents.yml", "--format", "json", env={"SHELF_TOKEN": SECRET}
        )
    assert status == 0
    assert "agents.yml:5:5: warning LL501: agent 'reader': " in out
    assert "OPENAI_API_KEY" in out
    assert "agents.yml:9:" in out
    assert "is in use" in out
    assert out.splitlines()[-1] == "agents.yml: valid, 2 warnings"
    assert [problem["code"] for problem in json.loads(machine)["problems"]] == ["LL501", "LL502"]


async def test_the_schema_accepts_what_validate_accepts(tmp_path: Path) -> None:
    status, out, _ = await llmling(tmp_path, "schema")
    assert status == 0
    checker: Any = jsonschema.Draft202012Validator(json.loads(out))
    assert checker.is_valid(yaml.safe_load(RIGHT.replace("PORT", "8000")))
    assert not checker.is_valid(yaml.safe_load(WRONG))


async def test_plan_says_what_would_run_and_no_secret(tmp_path: Path, free_tcp_port: int) -> None:
    write(tmp_path, RIGHT, free_tcp_port)
    status, out, err = await llmling(tmp_path, "plan", "agents.yml", env={"SHELF_TOKEN": SECRET})
    assert status == 0
    for text in (
        "openai/gpt-4o-mini", "desk >> mailer", "nightly (disabled)", "0 2 * * * UTC", "https://example.org/mcp",
        f"http://127.0.0.1:{free_tcp_port}/webhook", f"ports: 127.0.0.1:{free_tcp_port}", "folders: in",
        "engine: sqlite .llmling/pool.db", "OPENAI_API_KEY", "file out/{{ event.id }}.md",
    ):  # fmt: skip
        assert text in out, text
    assert SECRET not in out + err
    assert not (tmp_path / ".llmling").exists()
    _, machine, _ = await llmling(tmp_path, "plan", "agents.yml", "--json", env={"SHELF_TOKEN": SECRET})
    planned = json.loads(machine)
    assert [agent["name"] for agent in planned["agents"]] == ["reader", "writer", "checker", "critic", "mailer", "desk"]
    assert {"source": "desk", "target": "mailer", "when": None} in planned["edges"]
    assert SECRET not in machine


async def test_graph_draws_for_mermaid(tmp_path: Path) -> None:
    write(tmp_path, RIGHT)
    status, out, _ = await llmling(tmp_path, "graph", "agents.yml", env={"SHELF_TOKEN": SECRET})
    assert status == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "flowchart LR"
    assert 't0(["inbox<br/>in"])' in lines
    assert (
        lines.index('subgraph n5["desk: team (parallel)"]') < lines.index('n1["writer<br/>demo"]') < lines.index("end")
    )
    assert "n0 -->|\"'#lt;urgent#gt;' in message.text\"| n5" in lines
    assert 'n1 -.->|"tool"| n3' in lines
    assert "n4 --> s0" in lines


async def test_graph_draws_a_picture(tmp_path: Path) -> None:
    write(tmp_path, RIGHT)
    status, out, _ = await llmling(tmp_path, "graph", "agents.yml", "--format", "svg", env={"SHELF_TOKEN": SECRET})
    assert status == 0
    picture = ET.fromstring(out)
    space = "{http://www.w3.org/2000/svg}"
    boxes = {
        (box.findtext(f"{space}title") or "").split()[0]: {key: float(box.get(key, "0")) for key in ("x", "y", "width")}
        for box in picture.iter(f"{space}rect")
        if box.get("class")
    }
    assert set(boxes) == {"inbox", "hook", "nightly", "reader", "desk", "writer", "checker", "critic", "mailer", "file"}
    assert boxes["hook"]["x"] < boxes["reader"]["x"] < boxes["desk"]["x"] < boxes["mailer"]["x"] < boxes["file"]["x"]
    for member in ("writer", "checker"):
        assert boxes["desk"]["x"] < boxes[member]["x"]
        assert boxes[member]["x"] + boxes[member]["width"] < boxes["desk"]["x"] + boxes["desk"]["width"]
    assert len([path for path in picture.iter(f"{space}path") if "edge" in (path.get("class") or "")]) == 7
    assert "http" not in out.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1", "")


async def test_graph_survives_cycles(tmp_path: Path) -> None:
    write(tmp_path, "agents: {a: {connections: [b]}, b: {connections: [{to: a, when: 'false'}, b2]}, b2: {}}")
    status, out, _ = await llmling(tmp_path, "graph", "agents.yml", "--format", "svg")
    assert status == 0
    ET.fromstring(out)


async def test_doctor_names_keys_never_values(tmp_path: Path) -> None:
    status, out, err = await llmling(tmp_path, "doctor", env={"OPENAI_API_KEY": SECRET})
    assert status == 0
    assert "OPENAI_API_KEY" in out
    assert SECRET not in out + err
    assert "litellm" in out


async def test_doctor_says_what_is_missing(tmp_path: Path, free_tcp_port: int) -> None:
    (tmp_path / "shut").write_text("a file where a folder is needed")
    write(
        tmp_path,
        """\
mcp_servers:
  gone: {type: stdio, command: no-such-command}
  here: {type: stdio, command: python, args: [server.py]}
agents:
  reader:
    model: anthropic/claude-3-5-haiku-latest
    mcp_servers: [gone, here]
    triggers: [{type: file, paths: [later]}, {type: webhook, port: PORT}]
    sinks: [{type: file, path: "shut/{{ event.id }}.md"}]
""",
        free_tcp_port,
    )
    with socket.create_server(("127.0.0.1", free_tcp_port)):
        status, out, _ = await llmling(tmp_path, "doctor", "agents.yml")
    assert status == 1
    bad = [line for line in out.splitlines() if line.startswith("bad")]
    for text in ("ANTHROPIC_API_KEY", "'no-such-command' is not on PATH", f"port {free_tcp_port}", "cannot write"):
        assert any(text in line for line in bad), (text, out)
    assert len(bad) == 4
    assert "later does not exist yet" in out
    assert not (tmp_path / ".llmling").exists()


async def test_doctor_of_a_wrong_manifest(tmp_path: Path) -> None:
    write(tmp_path, WRONG)
    status, out, _ = await llmling(tmp_path, "doctor", "agents.yml")
    assert status == 1
    assert "agents.yml:3:5" in out
    assert [path.name for path in tmp_path.iterdir()] == ["agents.yml"]


ROUTED = """\
agents: {billing: {model: demo}, support: {model: demo}, reader: {model: demo}}
teams:
  desk: {mode: pick, members: [{name: billing, when: "'invoice' in message.text"}, support]}
  asks: {mode: pick, members: [billing, each], model: openai/gpt-4o-mini}
  each: {mode: map, over: data.pages, members: [reader]}
"""


async def test_plan_and_graph_say_how_a_team_picks_and_maps(tmp_path: Path) -> None:
    write(tmp_path, ROUTED)
    _, out, _ = await llmling(tmp_path, "plan", "agents.yml", env={"OPENAI_API_KEY": ""})
    assert "team (pick by when): billing if 'invoice' in message.text, else support" in out
    assert "team (pick by openai/gpt-4o-mini): billing, each" in out
    assert "team (map over data.pages): reader" in out
    assert "agents.yml:4:48: warning LL501: team 'asks': model 'openai/gpt-4o-mini' needs a key" in out
    _, out, _ = await llmling(tmp_path, "graph", "agents.yml")
    lines = [line.strip() for line in out.splitlines()]
    assert 'subgraph n3["desk: team (pick by when)"]' in lines
    assert "n0[\"billing<br/>demo · 'invoice' in message.text\"]" in lines
    assert 'n1["support<br/>demo · otherwise"]' in lines
    assert 'subgraph n5["each: team (map over data.pages)"]' in lines
    # A member stands in the first team that names it.
    assert 'n4 -.->|"member"| n0' in lines
    _, out, _ = await llmling(tmp_path, "graph", "agents.yml", "--format", "svg")
    assert "each team (map over data.pages)" in [
        title.text for title in ET.fromstring(out).iter() if title.tag.endswith("title")
    ]
