"""Agents that are people: what they cannot do, what they do not inherit, and who could never be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmling import Agent
from llmling.errors import StartupError
from llmling.manifest import Manifest, load


def problems(folder: Path, text: str) -> list[tuple[int, int, str, str]]:
    (folder / "m.yml").write_text(text)
    return [(p.line, p.column, p.severity, p.message) for p in Manifest.check(folder / "m.yml")]


def test_what_a_person_cannot_do_is_refused_where_it_is_written(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """\
agents:
  boss:
    model: human
    plan: {every: 3}
    context: {window_tokens: 5000}
    memory: {facts: true}
    mcp_servers: [{type: stdio, command: python}]
""",
    )
    assert [(line, column, message.split(" (agents")[0]) for line, column, _, message in found] == [
        (4, 11, "a person (`model: human`) is asked for no plan"),
        (5, 14, "a person (`model: human`) is shown the last message, whatever its length"),
        (6, 21, "a person (`model: human`) calls no tools, and `facts` are kept with tools"),
        (7, 18, "a person (`model: human`) calls no tools"),
    ]


def test_a_person_takes_none_of_it_from_defaults(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text("""\
defaults: {plan: {every: 2}, context: {window_tokens: 5000}, memory: {facts: true}, tools: ["os:getcwd"]}
agents:
  boss: {model: human, description: decides}
  other: {extends: boss}
  clerk: {model: demo}
""")
    agents = load(tmp_path / "m.yml").agents
    for name in ("boss", "other"):
        agent = agents[name]
        assert (agent.plan, agent.context, agent.memory.facts, agent.tools) == (None, None, False, [])
    assert agents["clerk"].plan is not None
    assert agents["clerk"].memory.facts


def test_defaults_that_an_agent_writes_again_are_its_own(tmp_path: Path) -> None:
    text = "defaults: {plan: {every: 2}}\nagents:\n  boss: {model: human, plan: {every: 3}}\n"
    assert [(line, severity) for line, _, severity, _ in problems(tmp_path, text)] == [(3, "error")]


@pytest.mark.parametrize(
    ("options", "key"),
    [({"plan": {"every": 2}}, "plan"), ({"tools": [len]}, "tools"), ({"memory": {"facts": True}}, "memory")],
)
def test_python_refuses_them_too(options: dict[str, Any], key: str) -> None:
    with pytest.raises(StartupError, match=rf"^agent 'boss': a person \(`model: human`\) .*; remove `{key}`$"):
        Agent("boss", model="human", **options)


MEMORY = """\
engine: {type: memory}
server: SERVER
agents:
  a: {model: demo, triggers: [{type: webhook, port: 8123}], connections: [boss]}
  boss: {model: human, connections: [b]}
  b: {model: demo, tools: [{type: function, function: "os:getcwd", approval: always}]}
  alone: {model: human}
"""


def test_an_event_that_nobody_could_answer_is_warned_of(tmp_path: Path) -> None:
    found = problems(tmp_path, MEMORY.replace("SERVER", "false"))
    assert [(line, column, severity) for line, column, severity, _ in found] == [(5, 17, "warning"), (6, 78, "warning")]
    assert found[0][3].startswith("an event would wait for a person, and nobody can answer: ")
    assert found[1][3].startswith("an event would wait for approval, and nobody can answer: ")


def test_a_server_takes_answers(tmp_path: Path) -> None:
    assert problems(tmp_path, MEMORY.replace("SERVER", "{port: 8124}")) == []
    assert problems(tmp_path, MEMORY.replace("memory", "sqlite").replace("SERVER", "false")) == []
