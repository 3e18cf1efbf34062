"""Where `validate` warns that untrusted input, private data and a way out meet, and where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.manifest import Manifest, check, load

WARNED = {
    "a hook, a folder and a sink": """\
agents:
  a:
    triggers: [{type: webhook, name: hook}]
    knowledge: [./kb]
    sinks:
      - ⟦LL403 untrusted input (webhook without auth "hook", ⟧{type: http, url: "https://out.example/x"}
""",
    "what is signed by somebody else is still written by strangers": """\
agents:
  a:
    triggers: [{type: webhook, auth: {type: github, secret: s3cr3t-s3cr3t}}]
    knowledge: [./kb]
    sinks: [⟦LL403 webhook of github⟧{type: http, url: "https://out.example/x"}]
""",
    "along connections": """\
agents:
  in: {triggers: [{type: webhook}], connections: [middle]}
  middle: {knowledge: [./kb], connections: [out]}
  out: {sinks: [⟦LL403 private data (knowledge ⟧{type: http, url: "https://out.example/x"}]}
""",
    "through an agent as a tool and back": """\
agents:
  front:
    triggers: [{type: webhook}]
    tools: [{type: agent, name: keeper}]
    sinks: [⟦LL403 private data (knowledge ⟧{type: http, url: "https://out.example/x"}]
  keeper: {knowledge: [./kb]}
""",
    "through a team": """\
agents:
  reader: {knowledge: [{type: url, url: "https://pages.example/x"}]}
  keeper: {knowledge: [./kb]}
teams:
  desk:
    members: [reader, keeper]
    triggers: [{type: schedule, every_s: 60, prompt: Look}]
    sinks: [⟦LL403 untrusted input (page of pages.example, ⟧{type: http, url: "https://out.example/x"}]
""",
    "a server whose tools nobody is asked about": """\
mcp_servers: {github: {type: stdio, command: x}}
agents:
  a: {approval: never, mcp_servers: [⟦LL403 a way out (MCP server github, ⟧github]}
""",
    "a server elsewhere": """\
agents:
  a:
    knowledge: [./kb]
    mcp_servers: [⟦LL403 a way out (MCP server, ⟧{type: http, url: "https://mcp.example/"}]
""",
    "a function that sends": """\
agents:
  a:
    approval: never
    triggers: [{type: webhook}]
    knowledge: [./kb]
    tools: [⟦LL403 a way out (tool send, ⟧trifecta_tools:send, trifecta_tools:count]
""",
}

QUIET = {
    "no private data": 'a: {triggers: [{type: webhook}], sinks: [{type: http, url: "https://out.example/"}]}',
    "no way out": "a: {triggers: [{type: webhook}], knowledge: [./kb], sinks: [{type: file, path: o/x.md}]}",
    "a secret of one's own": """
  a:
    triggers: [{type: webhook, auth: {type: hmac, secret: s3cr3t-s3cr3t}}]
    knowledge: [./kb]
    sinks: [{type: http, url: "https://out.example/"}]
""",
    "a folder of one's own": """
  a: {triggers: [{type: file, paths: [in]}], knowledge: [./kb], sinks: [{type: http, url: "https://out.example/"}]}
""",
    "a disabled hook": """
  a:
    triggers: [{type: webhook, enabled: false}]
    knowledge: [./kb]
    sinks: [{type: http, url: "https://out.example/"}]
""",
    "receivers of one's own": """
  a:
    triggers: [{type: webhook}]
    knowledge: [./kb]
    sinks:
      - {type: http, url: "http://127.0.0.1:9/"}
      - {type: http, url: "http://[::1]:9/"}
      - {type: http, url: "http://10.0.0.1/"}
      - {type: http, url: "http://collector:80/"}
      - {type: http, url: "http://mail.internal/"}
""",
    "a person asked before each tool": """
  a: {approval: always, knowledge: [./kb], mcp_servers: [{type: http, url: "https://mcp.example/"}]}
""",
    "a person asked before what a server does not call harmless": """
  a: {triggers: [{type: webhook}], knowledge: [./kb], mcp_servers: [{type: stdio, command: x}]}
""",
    "a server elsewhere that only has its own data": """
  a: {triggers: [{type: webhook}], mcp_servers: [{type: http, url: "https://mcp.example/"}]}
""",
    "a person in between": """
  a: {triggers: [{type: webhook}], knowledge: [./kb], connections: [person]}
  person: {model: human, connections: [out]}
  out: {sinks: [{type: http, url: "https://out.example/"}]}
""",
    "two events that never meet": """
  a: {triggers: [{type: webhook}], connections: [out]}
  b: {triggers: [{type: file, paths: [in]}], knowledge: [./kb], connections: [out]}
  out: {sinks: [{type: http, url: "https://out.example/"}]}
""",
    "a sink that an agent as a tool does not use": """
  a: {triggers: [{type: webhook}], knowledge: [./kb], tools: [{type: agent, name: b}]}
  b: {sinks: [{type: http, url: "https://out.example/"}]}
""",
    "a reason": """
  a:
    trust: The hook is behind our proxy, which asks for a password.
    triggers: [{type: webhook}]
    knowledge: [./kb]
    sinks: [{type: http, url: "https://out.example/"}]
""",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kb").mkdir()
    (tmp_path / "trifecta_tools.py").write_text(
        "from llmling import tool\n\n\n@tool(destructive=True)\ndef send(text: str) -> str:\n"
        "    return text\n\n\ndef count(text: str) -> int:\n    return len(text)\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", WARNED)
def test_it_warns_at_the_way_out_and_loads(name: str, folder: Path) -> None:
    expected = plant(folder, {"m.yml": WARNED[name]})
    compare(check(folder / "m.yml"), expected, folder)
    load(folder / "m.yml")


@pytest.mark.parametrize("name", QUIET)
def test_it_is_quiet(name: str, folder: Path) -> None:
    (folder / "m.yml").write_text(f"agents:\n  {QUIET[name]}")
    assert check(folder / "m.yml") == []


def test_the_warning_names_all_three_with_their_places_and_what_to_write(folder: Path) -> None:
    plant(folder, {"m.yml": WARNED["along connections"]})
    (problem,) = check(folder / "m.yml")
    at = f"{folder}/m.yml"
    assert problem.severity == "warning"
    assert problem.message == (
        f"untrusted input (webhook without auth, {at}:2:19), private data (knowledge ./kb, {at}:3:24) and a way "
        f"out (http sink to out.example, {at}:4:17) meet with no person in between (agents.out.sinks); whoever "
        "writes the first could have the second sent; take one of them away, ask a person before tools with "
        '`approval: always`, or write why it is meant: `trust: "..."` in agents.out'
    )


def test_a_reason_is_a_reason(folder: Path) -> None:
    (folder / "m.yml").write_text("agents:\n  a: {trust: ' '}\n")
    assert [problem.code for problem in check(folder / "m.yml")] == ["LL204"]


def test_a_manifest_built_in_python_names_keys_instead_of_lines() -> None:
    sink = {"type": "http", "url": "https://out.example/"}
    server = {"type": "stdio", "command": "x"}
    agent = {"approval": "never", "mcp_servers": [server], "sinks": [sink]}
    messages = [problem.message for problem in Manifest.check({"agents": {"a": agent}})]
    assert "untrusted input (MCP server, agents.a.mcp_servers[0])" in messages[0]


def test_a_large_pool_is_checked_quickly(folder: Path) -> None:
    agents = {f"a{n}": {"connections": [f"a{n + 1}"]} for n in range(300)}
    agents["a0"]["triggers"] = [{"type": "webhook"}]  # pyright: ignore[reportArgumentType]
    last = {"knowledge": ["kb"], "sinks": [{"type": "http", "url": "https://out.example/"}]}
    found = Manifest.check({"agents": {**agents, "a300": last}})
    assert [problem.code for problem in found if problem.code == "LL403"] == ["LL403"]
