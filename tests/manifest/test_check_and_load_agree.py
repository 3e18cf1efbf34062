"""`check` reports an error exactly when `load` refuses, also for files nobody thought of."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmling.errors import ManifestError
from llmling.manifest import check, load

BASE = """\
include: [other.yml]
defaults: {model: demo, limits: {tool_calls: 9}}
engine: {type: sqlite, path: pool.db}
server: {host: 127.0.0.1, port: 8765, token: "${TOKEN:-}"}
limits: {max_hops: 10}
x-base: &base {concurrency: 2, retries: &retries {attempts: 3}}
mcp_servers:
  files: {type: stdio, command: npx, args: [-y, "x"], env: {A: "1"}}
agents:
  analyzer:
    <<: *base
    instructions: |
      You analyse {{ now }}.
    mcp_servers: [files]
    output: {type: object, properties: {a: {type: string}}}
    triggers:
      - type: file
        paths: ["docs/**/*.md"]
        extensions: [.md]
      - {type: webhook, path: /in, auth: {type: hmac, secret: "${S:-x}"}, filter: "event.data.a == 'b'"}
      - {type: schedule, cron: "0 2 * * *", timezone: Europe/Berlin, prompt: "Write"}
    connections: [summarizer, {to: desk, when: "message.text"}]
    sinks: [{type: file, path: "out/{{ event.id }}.md"}]
  summarizer: {extends: analyzer, triggers: [], connections: [], retries: *retries}
teams:
  desk: {mode: sequential, members: [summarizer]}
"""


def _mutated(number: int) -> str:
    rng = random.Random(number)
    lines: list[str] = list(BASE.splitlines())
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(len(lines))
        line = lines[index]
        kind = rng.randrange(7)
        if kind == 0:
            del lines[index]
        elif kind == 1:
            lines.insert(index, line)
        elif kind == 2 and line:
            at = rng.randrange(len(line))
            lines[index] = line[:at] + line[at + 1 :]
        elif kind == 3:
            at = rng.randrange(len(line) + 1)
            lines[index] = line[:at] + rng.choice("{}[]:,'\"&*!|>%@`#- \t?0x$~") + line[at:]
        elif kind == 4:
            lines[index] = "  " + line
        elif kind == 5:
            lines[index] = line.replace(rng.choice(["a", "e", "t", ":"]), "")
        else:
            other = rng.randrange(len(lines))
            lines[index], lines[other] = lines[other], lines[index]
    return "\n".join(lines) + "\n"


def test_the_unmutated_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "other.yml").write_text("agents: {summarizer: {description: x}}\n")
    (tmp_path / "m.yml").write_text(BASE)
    assert check(tmp_path / "m.yml") == []


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_mutated_files(start: int, tmp_path: Path) -> None:
    (tmp_path / "other.yml").write_text("agents: {summarizer: {description: x}}\n")
    file = tmp_path / "m.yml"
    refused = 0
    for number in range(start, start + 50):
        text = _mutated(number)
        file.write_text(text)
        problems = check(file)
        errors = [problem for problem in problems if problem.severity == "error"]
        lines = text.splitlines()
        for problem in problems:
            assert problem.path == str(file), text
            assert 1 <= problem.line <= len(lines) + 1, text
            assert problem.column >= 1, text
            if problem.line <= len(lines):
                assert problem.column <= len(lines[problem.line - 1]) + 1, text
        if not errors:
            load(file)
            continue
        refused += 1
        with pytest.raises(ManifestError) as caught:
            load(file)
        assert list(caught.value.problems) == errors
    assert refused > 10
