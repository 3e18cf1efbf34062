"""What only looks at a manifest, or writes a new one, connects to nothing and looks up no name."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmling_cli.app import app

ROOT = Path(__file__).parents[2]
MANIFEST = """\
defaults: {model: auto}
mcp_servers:
  away: {type: http, url: "https://mcp.example/"}
  here: {type: stdio, command: no-such-command, required: true}
agents:
  a:
    mcp_servers: [away, here]
    knowledge: [{type: url, url: "https://pages.example/x"}, {type: resource, server: away, uri: "x://y"}]
    triggers:
      - {type: webhook, host: 127.0.0.1, port: PORT}
      - {type: schedule, every_s: 60, prompt: Look}
    sinks: [{type: http, url: "https://out.example/"}]
  b: {model: ollama/llama3.2}
  c: {model: openai/gpt-4o-mini}
"""


class Guard:
    """Hears of every connection and every look-up of a name; the interpreter tells of them whoever makes them."""

    def __init__(self) -> None:
        self.heard: list[str] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.heard is not None and event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
            self.heard.append(f"{event} {args[-1] if event != 'socket.getaddrinfo' else args[0]}")


_GUARD = Guard()


@pytest.fixture
def heard() -> Iterator[list[str]]:
    _GUARD.heard = heard = []
    yield heard
    _GUARD.heard = None


@pytest.mark.parametrize(
    "command",
    [
        ("validate", "agents.yml"),
        ("validate", "agents.yml", "--format", "json"),
        ("plan", "agents.yml"),
        ("graph", "agents.yml"),
        ("graph", "agents.yml", "--format", "svg"),
        ("schema",),
        ("init", "new"),
        ("init", "other", "--template", "mcp"),
        ("events", "list", "agents.yml"),
    ],
)
def test_commands_that_only_look_reach_nobody(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_tcp_port: int, heard: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents.yml").write_text(MANIFEST.replace("PORT", str(free_tcp_port)))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert heard == []


def test_only_mcp_servers_are_child_processes() -> None:
    # Their environment is held to its list in tests/tools/test_mcp.py, which so holds that of every child process.
    starts = {"create_subprocess_exec", "create_subprocess_shell", "Popen", "system", "popen", "posix_spawn", "execv"}
    found = {
        file.relative_to(ROOT).as_posix()
        for folder in ("llmling", "cli")
        for file in (ROOT / folder).rglob("*.py")
        if "templates" not in file.parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in starts
        if (isinstance(node.value, ast.Name) and node.value.id in {"os", "subprocess"}) or "create" in node.attr
    }
    assert found == {"llmling/tools/mcp/stdio.py"}
