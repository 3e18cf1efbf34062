"""The schema is valid, tells about every field, and agrees with the loader where a schema can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llmling.manifest import check, json_schema
from llmling.manifest.load import ROOT_KEYS
from llmling.manifest.root import Manifest

SCHEMA = json_schema()
VALIDATOR: Any = jsonschema.Draft202012Validator(SCHEMA)

GOOD = [
    "{}",
    "agents: {a: {}}",
    "x-notes: [1]\nagents:\n  x-base: 3\n  a: {x-why: because}",
    "server: false",
    'server: {port: "${PORT}", token: "${T:-}"}',
    "engine: {path: x.db}",
    "engine: {type: memory}",
    "defaults: {model: demo, limits: {tool_calls: 3}}",
    'agents: {a: {model: "demo:s.yml", tools: ["m:f", {type: agent, name: a}]}}',
    "agents: {a: {knowledge: [./x.md, {type: text, content: c}]}}",
    "agents: {a: {model: {type: fallback, models: [openai/x, {type: demo}]}}}",
    "agents: {a: {connections: [b, {to: a, when: 'true', wait: true}], instructions: [a, b]}, b: {}}",
    "agents: {a: {output: {type: object}, mcp_servers: [{type: stdio, command: x}]}}",
    "mcp_servers: {s: {type: http, url: 'http://x'}}\nagents: {a: {mcp_servers: [s]}}",
    "agents: {a: {output: 'm:M', instructions: text, sinks: [{type: http, url: '${URL}'}]}}",
    "agents: {a: {triggers: [{type: file, paths: [x], settle_s: '${S}'}]}}",
    "agents: {a: {triggers: [{type: webhook, auth: {type: bearer, token: t}}]}}",
    "agents: {a: {triggers: [{type: schedule, cron: '@daily', prompt: x}]}}",
    "agents: {a: {concurrency: '${C}', parallel_tools: '${P}'}}",
    "teams: {t: {members: [a], mode: sequential}}\nagents: {a: {}}",
    "agents: {a: {instructions: {guidance: {role: x, rules: y}, directive: z}}}",
    "agents: {a: {instructions: {constraints: {must_not: [x], max_words: 9}}}}",
    "agents: {a: {instructions: {guidance: x, constraints: y}}}",
    "agents: {a: {instructions: {prompt: RootCauseAnalyzer, depth: thorough, evidence: [x, y]}}}",
]

BAD = [
    "agent: {}",
    "agents: []",
    "agents: {a: {modle: demo}}",
    "agents: {a: {concurrency: many}}",
    "agents: {a: {concurrency: 0}}",
    "agents: {a: {parallel_tools: 'yes'}}",
    "agents: {a: {triggers: [{type: webhok}]}}",
    "agents: {a: {triggers: [{paths: [x]}]}}",
    "agents: {a: {triggers: [{type: file}]}}",
    "agents: {a: {triggers: [{type: file, paths: [x], port: 8000}]}}",
    "agents: {a: {triggers: [{type: webhook, port: 70000}]}}",
    "agents: {a: {triggers: [{type: webhook, auth: {type: hmac}}]}}",
    "agents: {a: {tools: [{type: agent}]}}",
    "agents: {a: {tools: [3]}}",
    "agents: {a: {tools: [my_tool]}}",
    "agents: {a: {output: my_module}}",
    "agents: {a: {concurrency: '4'}}",
    "agents: {a: {limits: {timeout_s: '1.5'}}}",
    "agents: {a: {triggers: [{type: webhook, host: 'the host', auth: {type: bearer, token: x}}]}}",
    "agents: {a: {model: {type: litellm}}}",
    "agents: {a: {model: {type: fallback, models: []}}}",
    "agents: {a: {knowledge: [{type: url, url: 'ftp://x'}]}}",
    "agents: {a: {sinks: [{type: http, url: x}]}}",
    "agents: {a: {connections: [{target: b}]}}",
    "agents: {a: {inbox: {overflow: explode}}}",
    "defaults: {modle: demo}",
    "server: true",
    "engine: {type: redis}",
    "limits: {max_hops: -1}",
    "agents: {a: {instructions: {guidance: {roll: x}}}}",
    "agents: {a: {instructions: {directive: ''}}}",
    "agents: {a: {instructions: {prompt: RootCause}}}",
    "agents: {a: {instructions: {prompt: RiskAssessor, depth: deep}}}",
    "agents: {a: {instructions: {prompt: RiskAssessor, guidance: x}}}",
    "teams: {t: {}}",
    "teams: {t: {members: []}}",
    "mcp_servers: {s: {type: stdio}}",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_files_fit(text: str) -> None:
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", BAD)
def test_bad_files_do_not_fit_and_the_loader_agrees(text: str, tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(yaml.safe_load(text))
    (tmp_path / "m.yml").write_text(text)
    assert any(problem.severity == "error" for problem in check(tmp_path / "m.yml"))


def test_the_loader_accepts_the_good_files(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("from pydantic import BaseModel\nclass M(BaseModel): ...\ndef f() -> None: ...\n")
    (tmp_path / "x.md").write_text("x")
    (tmp_path / "s.yml").write_text("[]\n")
    env = {"PORT": "80", "T": "", "S": "1.5", "C": "3", "P": "true", "URL": "https://x"}
    for text in GOOD:
        (tmp_path / "good.yml").write_text(text)
        problems = Manifest.check(tmp_path / "good.yml", env=env)
        assert [p for p in problems if p.severity == "error"] == [], text


def test_it_is_a_2020_12_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_field_has_a_hover_text() -> None:
    bare = [path for path, field in _fields(SCHEMA) if "description" not in field]
    assert bare == []


def test_plug_points_are_discriminated_unions() -> None:
    agent: dict[str, Any] = SCHEMA["$defs"]["AgentConfig"]["properties"]
    for union in (
        agent["triggers"]["items"], agent["sinks"]["items"], agent["tools"]["items"]["anyOf"][1],
        agent["knowledge"]["items"]["anyOf"][1], agent["model"]["anyOf"][1], SCHEMA["properties"]["engine"],
    ):  # fmt: skip
        assert union["discriminator"]["propertyName"] == "type"
        assert len(union["oneOf"]) >= 2


def test_the_loader_knows_every_root_key() -> None:
    assert frozenset(Manifest.model_fields) == ROOT_KEYS == frozenset(SCHEMA["properties"])


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, definition in [("", schema), *schema["$defs"].items()]:
        for key, field in definition.get("properties", {}).items():
            yield f"{name}.{key}", field
