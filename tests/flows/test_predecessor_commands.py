"""What the predecessor's command line got wrong: the wrong agent, no way to look, and no exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import llmling
from stage import Stage

MANIFEST = """
agents:
  first: {model: demo:first.yml}
  last:
    model: demo:last.yml
    triggers:
      - {type: file, name: inbox, paths: [inbox]}
      - {type: webhook, name: hook, port: PORT}
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    for name in ("first", "last"):
        stage.write(f"{name}.yml", f"- {{reply: this is {name}}}\n")
    stage.write("agents.yml", MANIFEST.replace("PORT", str(stage.port)))
    return stage


async def test_run_asks_the_agent_it_was_told(stage: Stage) -> None:
    for name in ("first", "last"):
        assert (await llmling(stage.folder, "run", "agents.yml", name, "Who are you?"))[:2] == (0, f"this is {name}\n")
    code, out, err = await llmling(stage.folder, "run", "agents.yml", "middle", "Who are you?")
    assert (code, out) == (2, "")
    assert "middle" in err
    assert "first, last" in err


async def test_a_manifest_can_be_validated_and_its_triggers_listed(stage: Stage) -> None:
    assert (await llmling(stage.folder, "validate", "agents.yml"))[0] == 0
    code, out, _ = await llmling(stage.folder, "plan", "agents.yml")
    assert code == 0
    for words in ("inbox", "hook", str(stage.port), "last"):
        assert words in out
    stage.write("wrong.yml", "agents:\n  a: {model: demo, tigers: []}\n")
    for command in ("validate", "plan", "serve"):
        code, out, err = await llmling(stage.folder, command, "wrong.yml")
        assert code == 2
        assert "wrong.yml:2:20: error LL201" in out + err
        assert "Traceback" not in err


async def test_a_trigger_is_fired_by_hand_and_its_event_is_on_record(stage: Stage) -> None:
    code, out, _ = await llmling(stage.folder, "fire", "agents.yml", "hook", "--data", '{"n": 1}', "--json")
    assert code == 0, out
    code, out, _ = await llmling(stage.folder, "events", "list", "agents.yml", "--json")
    assert code == 0
    (event,) = (json.loads(line) for line in out.splitlines())
    assert (event["trigger"], event["agent"], event["status"]) == ("hook", "last", "done")
    assert (await llmling(stage.folder, "events", "show", "agents.yml", "no-such-event"))[0] == 1


@pytest.mark.parametrize("command", ["ui", "task", "watch", "chat", "launch", "history"])
async def test_a_command_that_is_absent_is_refused_by_name(stage: Stage, command: str) -> None:
    code, out, err = await llmling(stage.folder, command, "agents.yml")
    assert (code, out) == (2, "")
    assert f"No such command '{command}'" in err
