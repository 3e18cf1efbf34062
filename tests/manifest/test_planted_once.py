"""One mistake is one problem: what only follows from it is left out, and unreadable YAML says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.manifest import check

CASES: dict[str, dict[str, str]] = {
    "misspelt required keys": {
        "m.yml": """\
agents:
  a:
    sinks:
      - type: file
        ⟦LL201 did you mean "path"?⟧pth: x
    triggers:
      - {type: file, ⟦LL201 did you mean "paths"?⟧pathes: [x]}
      - {type: schedule, ⟦LL201 did you mean "cron"?⟧corn: "* * * * *", prompt: x}
      - {type: schedule, cron: "* * * * *", ⟦LL201 did you mean "prompt"?⟧promt: x}
      - {type: webhook, host: 0.0.0.0, ⟦LL201 did you mean "auth"?⟧auht: {type: none}}
      - {type: file, paths: [y], ⟦LL201 it is a key of `type: schedule`⟧cron: x}
    connections: [{⟦LL201 write `to:`⟧target: b}]
  b: {}
teams:
  t: {⟦LL201 did you mean "members"?⟧member: [a]}
"""
    },
    "a misspelt section": {
        "m.yml": """\
⟦LL201 did you mean "mcp_servers"?⟧mcp_server:
  files: {type: stdio, command: x}
⟦LL201 did you mean "agents"?⟧agent:
  a: {mcp_servers: [files, ⟦LL302⟧flies], ⟦LL201⟧modl: demo}
"""
    },
    "an include that cannot be read": {
        "m.yml": """\
include: [part.yml, ⟦LL101 did you mean "shared"?⟧shred/*.yml, "none/*.yml"]
agents:
  a: {connections: [elsewhere, ⟦LL301 did you mean "bobby"?⟧boby], mcp_servers: [files], extends: base}
  bobby: {}
""",
        "part.yml": "agents:\n  x:\n    description: one⟦LL004⟧: two\n",
        "shared/x.yml": "{}\n",
    },
    "aliases and tags": {
        "m.yml": """\
x-retries: &retries {attempts: 2}
x-list: &list [1]
agents:
  a: {retries: ⟦LL008 did you mean "*retries"?⟧*retires, connections: [⟦LL008⟧*nothing], description: ⟦LL007⟧!x [y]}
  b:
    <<: ⟦LL010 takes a mapping⟧*list
    ⟦LL201⟧modl: demo
  ⟦LL112 cannot stand in a name⟧${NAME}: {}
"""
    },
    "an inherited webhook": {
        "m.yml": """\
agents:
  a: {triggers: [{type: webhook}]}
  b: {extends: ⟦LL306 "b" inherits the webhook agents.a.triggers[0], which belongs to "a"⟧a}
  c: {triggers: [{type: webhook, name: hook, path: /c}]}
  d: {extends: ⟦LL305 "d" inherits the trigger "hook"⟧c}
"""
    },
    "templates without quotes": {
        "m.yml": """\
agents:
  a: {triggers: [{type: webhook, prompt: ⟦LL005 write "{{ event⟧{{ event.data['x'] | join(', ') }}}], ⟦LL201⟧modl: 1}
  b:
    instructions: ⟦LL005 a value that starts with {{ must be quoted⟧{{ now }} is the time
    description: ⟦LL005⟧{{ now }}
    output: {⟦LL010⟧{a: b}: c}
  d:
    sinks:
      - type: file
        path: ⟦LL005⟧{{ event.id }}.md
    connections: [{to: a, when: ⟦LL005⟧{{ x }}}]
"""
    },
    "a star without quotes": {
        "m.yml": """\
agents:
  a:
    triggers:
      - type: schedule
        cron: ⟦LL004 a value cannot start with "*"; put the value in quotes⟧*/5 * * * *
        prompt: x
"""
    },
    "a colon without a space": {
        "m.yml": 'agents:\n  a:\n    ⟦LL004 a key needs ":" and a space⟧model:demo\n\n    # note\n    description: x\n'
    },
}


@pytest.mark.parametrize("name", CASES)
def test_only_the_mistake_itself_is_told(name: str, tmp_path: Path) -> None:
    expected = plant(tmp_path, CASES[name])
    compare(check(tmp_path / "m.yml"), expected, tmp_path)
