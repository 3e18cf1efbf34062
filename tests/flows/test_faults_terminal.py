"""Text from outside on a terminal: one event is one line, and nothing of it is obeyed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

from serving import eventually, llmling

HOSTILE = "red \x1b[31mRED\x1b[0m \x1b]0;title\x07 \x9b31m \u202eevil\u2028line\x85 \rCR \x08 \x00 {{ 7*7 }}"
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")
MANIFEST = """
server: false
agents:
  a:
    model: demo:echo.yml
    triggers: [{type: file, name: watch, paths: [inbox], settle_s: 0.1}]
"""


async def test_hostile_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text(MANIFEST)
    (tmp_path / "echo.yml").write_text(json.dumps([{"match": ".", "reply": HOSTILE}]))
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "\x1b[31mred\nline.md").write_text("\x1b[2J text")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmling_cli", "serve", "agents.yml",
        cwd=tmp_path, env=os.environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip

    async def event_id() -> str | None:
        _, out, _ = await llmling(tmp_path, "events", "list", "agents.yml", "--json", "--status", "done")
        return json.loads(out)["id"] if out else None

    try:
        event = await eventually(event_id, "the event")
    finally:
        process.terminate()
        out = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    (line,) = [line for line in out.split("\n") if line.startswith(event)]
    assert "\\x1b[31mRED" in line
    assert not OBEYED.search(out)
    code, shown, _ = await llmling(tmp_path, "events", "show", "agents.yml", event)
    assert code == 0
    assert not OBEYED.search(shown)
    assert "{{ 7*7 }}" in shown
    code, listed, _ = await llmling(tmp_path, "events", "list", "agents.yml")
    assert len(listed.splitlines()) == 2
    code, asked, _ = await llmling(tmp_path, "events", "show", "agents.yml", event, "--json")
    assert json.loads(asked)["content"].startswith("red \x1b[31mRED")
