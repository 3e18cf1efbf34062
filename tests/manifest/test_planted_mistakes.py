"""Every planted mistake is found at its exact place, all of a file at once, misspellings with a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.errors import ManifestError
from llmling.manifest import check, load

CASES: dict[str, dict[str, str]] = {
    "nested keys": {
        "m.yml": """\
⟦LL201 did you mean "limits"?⟧limit: {max_hops: 3}
server: {⟦LL201 did you mean "port"?⟧prot: 80}
agents:
  a:
    ⟦LL201 unknown key "instructons" in agents.a; did you mean "instructions"?⟧instructons: hi
    model_settings:
      ⟦LL201 did you mean "temperature"?⟧temprature: 1
    triggers:
      - type: file
        paths: [in]
        ⟦LL201 unknown key "extentions" in agents.a.triggers[0]; did you mean "extensions"?⟧extentions: [.md]
      - {type: webhook, auth: {type: github, secret: x, ⟦LL201 in agents.a.triggers[1].auth⟧heder: X}}
    model: {type: litellm, name: x/y, price: {input_per_mtok: 1, output_per_mtok: 2, ⟦LL201⟧per: 3}}
teams:
  t:
    members: [a]
    ⟦LL201 did you mean "mode"?⟧mod: parallel
"""
    },
    "wrong types": {
        "m.yml": """\
server: ⟦LL203 a mapping, or false⟧8080
limits: {max_hops: ⟦LL203 "max_hops" should be a whole number in limits⟧many, drain_timeout_s: ⟦LL204 at least 0⟧-1}
agents:
  a:
    description: ⟦LL203 put it in quotes: "12"⟧12
    concurrency: ⟦LL203 a number⟧true
    tools: ⟦LL203 should be a list in agents.a; write [my:tool]⟧my:tool
    parallel_tools: ⟦LL203 true or false in agents.a; write true⟧yes
    limits: {tool_calls: ⟦LL203 without quotes: 4⟧"4", timeout_s: ⟦LL203 should be a number⟧1_000, max_iterations: 4}
    ⟦LL203 it is empty⟧triggers:
  b: ⟦LL203 "b" should be a mapping in agents⟧text
  ⟦LL203 it is empty⟧c:
  d:
    model_settings: {temperature: ⟦LL204 at most 2⟧3, stop: [⟦LL203 "stop[0]" should be text⟧1]}
    inbox: {overflow: ⟦LL204 did you mean "reject"?⟧rejekt}
    output: ⟦LL203 a text or a mapping⟧[1]
    mcp_servers: [⟦LL203 text or a mapping⟧3]
    connections:
      - to: ⟦LL203 should be text⟧5
    redelivery: ⟦LL203 a mapping⟧[]
"""
    },
    "values too short": {
        "m.yml": """\
agents:
  a:
    inbox: ⟦LL203 "inbox" should be a mapping in agents.a; write {size: 100}⟧100
    retries: ⟦LL203 write {attempts: 5}⟧5
    redelivery: ⟦LL203 write {attempts: 2}⟧2
    budget: ⟦LL203 write {usd_per_day: 3.5}⟧3.5
    plan: ⟦LL203 write {every: 4}⟧4
    context: ⟦LL203 write {window_tokens: 8000}⟧8000
    limits: {timeout_s: ⟦LL203 "timeout_s" should be a number in agents.a.limits; write seconds: 300⟧5m}
    triggers:
      - ⟦LL203 write {type: file, paths: ["in/*.md"]}⟧in/*.md
      - ⟦LL203 write {type: webhook, ...}⟧webhook
      - {type: webhook, path: /a, auth: ⟦LL203 write {type: none}⟧none, timeout_s: ⟦LL203 write seconds: 0.5⟧"500 ms"}
      - {type: webhook, path: /b, auth: ⟦LL203 write {type: bearer, token: ...}⟧hush}
      - {type: webhook, path: /c, ⟦LL201 did you mean "rate_per_s"?⟧rate: 5}
    sinks:
      - ⟦LL203 write {type: file, path: "out/x.md"}⟧out/x.md
      - ⟦LL203 write {type: http, url: "https://example.org/x"}⟧https://example.org/x
  b:
    triggers:
      ⟦LL203 "triggers" should be a list in agents.b; begin each entry with "- "⟧type: webhook
"""
    },
    "included files": {
        "m.yml": """\
include:
  - shared/*.yml
  - ⟦LL101 no such file; did you mean "othr.yml"?⟧other.yml
  - ⟦LL101 is a folder⟧shared
agents:
  a: {mcp_servers: [files], model: demo}
  b: {⟦LL201⟧modell: demo}
""",
        "othr.yml": "",
        "shared/servers.yml": """\
mcp_servers:
  files: {type: stdio, ⟦LL201 did you mean "command"?⟧comand: npx, command: x}
  ⟦LL202 missing key "url" in mcp_servers.web⟧web:
    type: http
""",
        "shared/agents.yml": """\
include: [deep/more.yml]
agents:
  a:
    limits: {timeout_s: ⟦LL204 more than 0⟧0}
    knowledge: [⟦LL310 in agents.a.knowledge; did you mean "handbook.md"?⟧./hand.md]
""",
        "shared/handbook.md": "text",
        "shared/deep/more.yml": "agents:\n  deep:\n    ⟦LL201⟧sesion: event\n",
    },
    "include cycle": {
        "m.yml": "include: [a.yml]\n",
        "a.yml": "include: [b.yml]\n",
        "b.yml": "include:\n  - ⟦LL102 a.yml -> b.yml -> a.yml⟧a.yml\n",
    },
    "extends parents": {
        "m.yml": """\
defaults:
  ⟦LL201 in defaults⟧modle: demo
  limits: {tool_calls: ⟦LL203⟧lots}
agents:
  child: {extends: base}
  other: {extends: ⟦LL103 did you mean "base"?⟧bsae}
  base:
    ⟦LL201 in agents.base⟧temprature: 1
    retries: {attempts: ⟦LL204⟧0}
    connections: [⟦LL301⟧nobody]
  grandchild: {extends: child, limits: {timeout_s: 3}}
  x: {extends: ⟦LL104 x -> y -> x⟧y}
  y: {extends: x}
  z: {extends: ⟦LL104 z -> z⟧z}
"""
    },
    "anchors and aliases": {
        "m.yml": """\
x-retries: &retries {attempts: ⟦LL204 (used at lines 5, 7)⟧0}
x-base: &base
  ⟦LL201 (used at line 6)⟧modle: demo
agents:
  a: {retries: *retries}
  b: {<<: *base, model: demo}
  c: {retries: *retries, x-note: ⟦LL008⟧*nothing}
  d: {inbox: &inbox {size: ⟦LL203 (used at line 9)⟧big}}
  e: {inbox: *inbox}
x-number: &number ⟦LL203 (used at line 11)⟧5
teams: {t: {members: *number}}
"""
    },
    "trigger unions": {
        "m.yml": """\
agents:
  a:
    triggers:
      - {type: ⟦LL205 did you mean "webhook"?⟧webhok, port: 80}
      - ⟦LL205 missing key "type" in agents.a.triggers[1]; did you mean `type: schedule`?⟧cron: "* * * * *"
        prompt: x
      - type: ⟦LL205 write `type: schedule`⟧time
        schedule: x
      - ⟦LL202 missing key "paths"⟧type: file
        events: [added, ⟦LL204 did you mean "modified"?⟧modifed]
      - ⟦LL203 should be a mapping⟧file
      - {⟦LL201 did you mean "type"?⟧typ: file, paths: [x]}
      - {type: schedule, prompt: x, ⟦LL201⟧port: 80, every_s: 3}
      - {⟦LL212 either `cron` or `every_s`⟧type: schedule, prompt: x}
      - {type: webhook, auth: {type: ⟦LL205 did you mean "hmac"?⟧hmca, secret: x}}
      - {type: webhook, host: ⟦LL213 add `auth:`⟧0.0.0.0, path: /x}
      - {type: webhook, path: ⟦LL204 should start with /⟧hook}
"""
    },
    "unknown agents, tools, servers": {
        "m.yml": """\
mcp_servers:
  files: {type: stdio, command: x}
agents:
  summarizer:
    model: demo
  a:
    connections:
      - ⟦LL301 unknown agent or team "summarizr" in agents.a.connections; did you mean "summarizer"?⟧summarizr
      - {to: ⟦LL301 did you mean "desk"?⟧deks, wait: true}
    tools:
      - {type: agent, name: ⟦LL301 did you mean "summarizer"?⟧sumarizer}
      - ⟦LL309 did you mean 'word_count'?⟧planted_tools:word_cuont
      - ⟦LL308 did you mean 'planted_tools'?⟧plantd_tools:word_count
      - {type: function, function: ⟦LL309 not callable⟧planted_tools:NUMBER}
      - ⟦LL203 written module:name⟧planted_tools
      - {type: ⟦LL205 did you mean "function"?⟧functoin, function: x:y}
    mcp_servers: [files, ⟦LL302 did you mean "files"?⟧flies]
    knowledge:
      - {type: resource, server: ⟦LL302⟧file, uri: x}
    output: ⟦LL309 not a pydantic model⟧planted_tools:word_count
  boss: {model: human, tools: ⟦LL212 a person (`model: human`) calls no tools⟧[{type: agent, name: summarizer}]}
teams:
  desk: {members: [a, ⟦LL301 did you mean "summarizer"?⟧sumarizr]}
  ⟦LL303 has the name of an agent (line 6)⟧a: {members: [summarizer]}
  one: {members: [two]}
  two: {members: [⟦LL304 one -> two -> one⟧one]}
""",
        "planted_tools.py": "NUMBER = 3\n\ndef word_count(text: str) -> int:\n    return len(text.split())\n",
    },
    "cron and times": {
        "m.yml": """\
agents:
  a:
    triggers:
      - {type: schedule, prompt: x, cron: ⟦LL210⟧"99 * * * *"}
      - {type: schedule, prompt: x, cron: "* * * * *", timezone: ⟦LL211 unknown time zone⟧Europe/Berln}
      - type: schedule
        prompt: x
        cron: ⟦LL210⟧every day
      - {type: schedule, prompt: x, cron: ⟦LL210⟧"* * * FOO *"}
      - {type: schedule, prompt: x, every_s: ⟦LL204⟧0}
"""
    },
    "templates and expressions": {
        "m.yml": """\
agents:
  a:
    instructions: |
      You are {{ now }}.

      ⟦LL208 invalid template⟧{{ broken broken }}
      Thanks.
    triggers:
      - type: webhook
        prompt: ⟦LL208⟧"{{ event"
        filter: ⟦LL209 invalid expression⟧"event.data.x ==="
    connections:
      - {to: b, when: ⟦LL209⟧"'urgent' in"}
    sinks:
      - {type: file, path: ⟦LL208⟧"out/{% if %}"}
    knowledge:
      - type: prompt
        template: >
          Today is
          a day.

            ⟦LL208⟧{{ now..date }}
  b:
    instructions: [fine, ⟦LL208⟧"{% for %}"]
"""
    },
    "environment variables": {
        "m.yml": """\
agents:
  a:
    description: ⟦LL111 environment variable SERCH_TOKEN is not set; did you mean "SEARCH_TOKEN"?⟧"${SERCH_TOKEN}"
    model: {type: litellm, name: x/y, api_key: ⟦LL111 NOT_THERE⟧"${NOT_THERE}"}
    instructions: ⟦LL112 $$⟧a ${foo.bar} in text
    tools: []
    mcp_servers:
      - {type: http, url: "https://x", headers: {x-api-key: ⟦LL111⟧"${ALSO_NOT}", Authorization: "${SEARCH_TOKEN}"}}
    x-note: ${IGNORED}
    parallel_tools: "${NO_SUCH:-false}"
    concurrency: "${NO_SUCH:-3}"
    output: {type: object, description: "${NO_SUCH:-}"}
    knowledge:
      - type: text
        content: |
          one
          two ⟦LL111⟧${NOT_THERE}
"""
    },
    "unquoted variables in flow collections": {
        "m.yml": """\
agents:
  a: {description: ⟦LL005 write "${SEARCH_TOKEN}"⟧${SEARCH_TOKEN}}
  b:
    mcp_servers: [⟦LL302⟧⟦LL005⟧${TOOL:-xy}]
    instructions: [one, two ⟦LL005⟧${SEARCH_TOKEN}]
    ⟦LL201⟧modle: demo
"""
    },
    "duplicate keys": {
        "m.yml": """\
agents:
  a:
    model: demo
    description: x
    ⟦LL006 key "model" is already written at line 3⟧model: auto
    model_settings: {seed: 1, ⟦LL006 line 6⟧seed: 2, ⟦LL201⟧sed: 3}
  ⟦LL006 line 2⟧a: {model: demo}
⟦LL006 line 1⟧agents: {}
"""
    },
    "ports and addresses": {
        "m.yml": """\
server: {port: 8765}
agents:
  a:
    triggers:
      - {type: webhook, name: one}
      - {type: webhook, name: ⟦LL305 already used at⟧one, path: /two}
      - {⟦LL306 same host, port and path⟧type: webhook, name: three}
      - {type: webhook, port: ⟦LL307 taken by `server:`⟧8765, name: four}
      - {type: webhook, port: 8765, enabled: false, name: five}
      - {type: webhook, host: 0.0.0.0, port: ⟦LL307 overlapping⟧8000, path: /o, allow_unauthenticated: true, name: six}
      - {type: webhook, port: ⟦LL204⟧70000, name: seven}
      - {type: webhook, name: eight, host: localhost, path: ⟦LL306⟧/two}
"""
    },
    "self-triggers": {
        "m.yml": """\
agents:
  a:
    triggers:
      - {type: file, name: docs, paths: ["docs/**/*.md"], extensions: [MD], ignore: ["**/draft-*", old]}
      - {type: file, paths: [inbox]}
    connections: [b]
    sinks:
      - {type: file, path: ⟦LL401 "docs"⟧"docs/out/{{ event.id }}.md"}
      - {type: file, path: "docs/{{ event.id }}.txt"}
      - {type: file, path: "docs/draft-{{ event.id }}.md"}
      - {type: file, path: "docs/.hidden.md"}
      - {type: file, path: "docs/.hidden/x.md"}
      - {type: file, path: "docs/old/{{ event.id }}.md"}
      - {type: file, path: ⟦LL212 write a folder⟧"/{{ event.id }}.md"}
      - {type: file, path: "out/{{ event.id }}.md"}
  b:
    sinks:
      - {type: file, path: ⟦LL401 agents.a.triggers[1]⟧"inbox/x", mode: append}
      - {type: file, path: ⟦LL401⟧"./{{ event.data.x }}"}
      - {type: file, path: ⟦LL401 agents.c.triggers[0]⟧handed/over.md}
  c:
    triggers:
      - {type: file, paths: [handed]}
    sinks:
      - {type: file, path: ⟦LL401⟧docs/c.md}
"""
    },
    "connection cycles that are meant": {
        "m.yml": """\
limits: {max_hops: 4}
agents:
  a: {connections: [b]}
  b: {connections: [⟦LL402 hop 4⟧a]}
"""
    },
    "connection cycles": {
        "m.yml": """\
agents:
  a: {connections: [b]}
  b: {connections: [c]}
  c: {connections: [⟦LL402 a -> b -> c -> a⟧a]}
  d: {connections: [{to: e, when: "message.text"}]}
  e: {connections: [d]}
  f:
    connections:
      - to: ⟦LL402 f -> f⟧f
  g: {connections: [t]}
teams:
  t: {members: [d], connections: [⟦LL402⟧g]}
"""
    },
}


@pytest.mark.parametrize("name", CASES)
def test_every_mistake_has_its_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_TOKEN", "canary-8f3a")
    monkeypatch.chdir(tmp_path)
    expected = plant(tmp_path, CASES[name])
    problems = check(tmp_path / "m.yml")
    compare(problems, expected, tmp_path)
    assert all("canary-8f3a" not in problem.render() for problem in problems)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        with pytest.raises(ManifestError) as caught:
            load(tmp_path / "m.yml")
        assert list(caught.value.problems) == errors
        assert caught.value.__context__ is None
    else:
        load(tmp_path / "m.yml")


def test_the_caret_stands_under_the_mistake(tmp_path: Path) -> None:
    file = tmp_path / "agents.yml"
    file.write_text(
        "agents:\n  a:\n    triggers:\n      - type: file\n        paths: [in]\n        extentions: [.md]\n"
    )
    (problem,) = check(file)
    assert problem.render() == (
        f'{file}:6:9: error LL201: unknown key "extentions" in agents.a.triggers[0]; did you mean "extensions"?\n'
        "6 |         extentions: [.md]\n"
        "  |         ^^^^^^^^^^"
    )
