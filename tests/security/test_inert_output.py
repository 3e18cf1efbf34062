"""Text of strangers on a terminal: what a terminal would obey is shown instead, in every line about events."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmling_cli.app import app

HOSTILE = (
    "\x1b[2J\x1b]8;;http://evil.example\x07 \u202eevil\u2066 \x9b31m \r\x08 <script>alert(1)</script> javascript:x"
)
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
MANIFEST = """\
agents:
  a:
    model: demo:script.yml
    redelivery: {attempts: 1}
    triggers:
      - {type: webhook, name: hook, port: PORT}
    connections: [{to: b, transform: "inert_shapes:boom"}]
  b: {model: demo}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_tcp_port: int) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents.yml").write_text(MANIFEST.replace("PORT", str(free_tcp_port)))
    escaped = HOSTILE.encode("unicode_escape").decode()
    (tmp_path / "inert_shapes.py").write_text(f"def boom(message):\n    raise ValueError({HOSTILE!r})\n")
    (tmp_path / "script.yml").write_text(f'- {{reply: "{escaped}"}}\n')
    return tmp_path


def test_nothing_a_terminal_obeys_is_printed(folder: Path) -> None:
    runner = CliRunner()
    (folder / "body.txt").write_text(HOSTILE)
    fire = ["fire", "agents.yml", "hook", "--file", "body.txt"]
    outputs = [runner.invoke(app, [*fire, *more]).output for more in ((), ("--dry-run",))]
    listed = runner.invoke(app, ["events", "list", "agents.yml"]).output
    assert " dead " in listed
    event_id = listed.splitlines()[1].split()[0]
    show = ["events", "show", "agents.yml", event_id]
    outputs += [listed, *(runner.invoke(app, [*show, *more]).output for more in ((), ("--trace",)))]
    outputs.append(runner.invoke(app, ["run", "agents.yml", "a", HOSTILE]).stderr)
    assert ["evil" in output for output in outputs] == [True] * len(outputs), outputs
    for output in outputs:
        assert _OBEYED.findall(output) == [], ascii(output)
