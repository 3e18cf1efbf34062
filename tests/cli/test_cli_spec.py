"""`llmling spec export` and `llmling spec import`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import llmling

from llmling.agentspec import dump
from llmling.errors import StartupError
from llmling.manifest import load
from llmling_cli.spec import export, take_in

SECRET = "sk-very-secret-1234"
POOL = """\
agents:
  reader:
    model: {type: litellm, name: openai/gpt-4o-mini, api_key: "${READER_KEY}"}
    instructions: You read for {{ event.data.user }}.
    tools: [shelf:lend]
    connections: [writer]
  writer: {model: openai/gpt-4o-mini}
"""
SHELF = '''\
def lend(book: str) -> str:
    """Lend a book."""
    return book
'''


def pool(folder: Path) -> None:
    (folder / "agents.yml").write_text(POOL)
    (folder / "shelf.py").write_text(SHELF)


async def test_there_and_back(tmp_path: Path) -> None:
    pool(tmp_path)
    env = {"READER_KEY": SECRET}
    status, out, err = await llmling(tmp_path, "spec", "export", "agents.yml", "reader", "--format", "yaml", env=env)
    assert status == 0
    assert out.startswith("component_type: Agent\n")
    assert SECRET not in out
    (tmp_path / "reader.yaml").write_text(out)
    status, manifest, err = await llmling(tmp_path, "spec", "import", "reader.yaml")
    assert (status, err) == (0, "")
    assert "api_key: ${READER_KEY}" in manifest
    assert "shelf:lend" in manifest
    (tmp_path / "again.yml").write_text(manifest)
    status, told, _ = await llmling(tmp_path, "validate", "again.yml", env=env)
    assert (status, told) == (0, "again.yml: valid\n")
    again = load(tmp_path / "again.yml", env=env)
    assert dump(again, "yaml") == out


async def test_what_cannot_be_done_is_said_without_a_traceback(tmp_path: Path) -> None:
    pool(tmp_path)
    document = {
        "component_type": "Agent",
        "name": "a",
        "system_prompt": "",
        "llm_config": {"component_type": "OpenAiConfig", "name": "o", "model_id": "gpt", "api_key": SECRET},
        "tools": [{"component_type": "ServerTool", "name": "lend"}],
    }
    (tmp_path / "doc.json").write_text(json.dumps(document))
    status, out, err = await llmling(tmp_path, "spec", "import", "doc.json")
    assert (status, out) == (2, "")
    assert "doc.json:1:" in err
    assert 'LL605: no function is given for the tool "lend"' in err
    status, out, err = await llmling(tmp_path, "spec", "import", "doc.json", "--tools", "shelf")
    assert status == 0
    assert "shelf:lend" in out
    assert "note: OpenAiConfig 'o' holds its api_key in the open: set ${O_API_KEY}" in err
    assert SECRET not in out + err
    status, _, err = await llmling(tmp_path, "spec", "export", "agents.yml", "nobody", env={"READER_KEY": SECRET})
    assert (status, err) == (2, "error: no agent or team 'nobody' in the manifest; there are: reader, writer\n")


def test_the_whole_pool_and_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool(tmp_path)
    export(load(tmp_path / "agents.yml", env={"READER_KEY": SECRET}), None, "json")
    assert json.loads(capsys.readouterr().out)["component_type"] == "Flow"
    with pytest.raises(StartupError, match=r"none\.json: No such file or directory"):
        take_in(tmp_path / "none.json", None)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(StartupError, match="it is not UTF-8"):
        take_in(tmp_path / "bytes", None)
