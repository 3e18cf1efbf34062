"""Reading manifests: scalars, variables, merging, places, one agent per file, mappings from Python."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmling.errors import ManifestError
from llmling.manifest import Manifest, check, load, load_agent
from llmling.manifest.agents import AgentConfig
from llmling.manifest.models import DemoModelConfig, LiteLLMModelConfig, ScriptModelConfig
from llmling.manifest.pool import MemoryEngineConfig, ServerConfig, SqliteEngineConfig
from llmling.manifest.tools import HttpServerConfig, StdioServerConfig
from llmling.manifest.triggers import WebhookTriggerConfig


def write(folder: Path, **files: str) -> Path:
    """Write `name="text"` as name.yml; return the first."""
    paths: list[Path] = []
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths[0]


def extra(folder: Path, text: str, **env: str) -> dict[str, Any]:
    """Return what a mapping of free values is read as."""
    indented = "".join(f"        {line}\n" for line in text.splitlines())
    file = write(folder, m=f"agents:\n  a:\n    model_settings:\n      extra:\n{indented}")
    return load(file, env=env).agents["a"].model_settings.extra


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    values = extra(
        tmp_path,
        "on: on\nyes: yes\nno: No\ntime: 12:30\nzeros: 010\nversion: 1.10\noctal: 0o17\nhex: 0xFF\ntrue_: true\n"
        "upper: FALSE\nnull_: ~\nempty:\nquoted: '1'\nsigned: -3\nexp: 1e3\ndot: .5\ninf: -.inf\ndate: 2026-01-02\n"
        "under: 1_000\nbinary: 0b1\nbad: 0o9\nplus: +\ntext: |\n  a\n  b\nstr: !!str 12\nint: !!int '12'\n",
    )
    assert values == {
        "on": "on", "yes": "yes", "no": "No", "time": "12:30", "zeros": 10, "version": 1.1, "octal": 15, "hex": 255,
        "true_": True, "upper": False, "null_": None, "empty": None, "quoted": "1", "signed": -3, "exp": 1000.0,
        "dot": 0.5, "inf": float("-inf"), "date": "2026-01-02", "under": "1_000", "binary": "0b1", "bad": "0o9",
        "plus": "+", "text": "a\nb\n", "str": "12", "int": 12,
    }  # fmt: skip


def test_merge_keys_give_way_to_the_mappings_own(tmp_path: Path) -> None:
    values = extra(
        tmp_path,
        "base: &base {a: 1, b: 1}\nother: &other {b: 2, c: 2}\none: {a: own, <<: *base}\n"
        "two:\n  <<: [*base, *other]\n  c: own\nthree: {<<: {z: 1}}",
    )
    assert values["one"] == {"a": "own", "b": 1}
    assert values["two"] == {"a": 1, "b": 1, "c": "own"}
    assert values["three"] == {"z": 1}


def test_variables_are_filled_in_as_text(tmp_path: Path) -> None:
    values = extra(
        tmp_path,
        "a: ${NAME}\nb: 'x-${NAME}-y'\nc: ${NONE:-fall back}\nd: ${EMPTY:-full}\ne: '[${EMPTY}]'\nf: $${NAME} $$ $5\n"
        "g: ${NUMBER}\nh: ${NONE:-}\n${NAME}: key\ni: |\n  two ${NAME}\n  lines\nj: ${NONE:-true}",
        NAME="ada", EMPTY="", NUMBER="12",
    )  # fmt: skip
    assert values == {
        "a": "ada", "b": "x-ada-y", "c": "fall back", "d": "full", "e": "[]", "f": "${NAME} $$ $5", "g": "12", "h": "",
        "${NAME}": "key", "i": "two ada\nlines\n", "j": "true",
    }  # fmt: skip


def test_variables_fit_numbers_truths_and_secrets(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        m="server: {port: '${PORT}', token: '${TOKEN}'}\nagents:\n  a:\n    concurrency: ${COUNT}\n"
        "    parallel_tools: ${PARALLEL}\n    model: {type: '${KIND}', name: x/y, api_key: '${TOKEN}'}\n",
    )
    env = {"PORT": "8123", "TOKEN": "12345", "COUNT": "7", "PARALLEL": "false", "KIND": "litellm"}
    manifest = load(file, env=env)
    agent, server = manifest.agents["a"], manifest.server
    assert isinstance(server, ServerConfig)
    assert isinstance(agent.model, LiteLLMModelConfig)
    assert (server.port, agent.concurrency, agent.parallel_tools) == (8123, 7, False)
    assert server.token is not None
    assert agent.model.api_key is not None
    assert server.token.get_secret_value() == agent.model.api_key.get_secret_value() == "12345"
    assert "12345" not in repr(manifest)


SECRETS = {
    "wrong number": "concurrency: ${S}",
    "wrong choice": "session: ${S}",
    "wrong type": "triggers: [{type: '${S}'}]",
    "template": "instructions: '{{ ${S} x }}'",
    "template block": "instructions: |\n      {% ${S} %}",
    "expression": "connections: [{to: a, when: '${S} ${S}'}]",
    "cron": "triggers: [{type: schedule, prompt: x, cron: '${S} *'}]",
    "time zone": "triggers: [{type: schedule, prompt: x, every_s: 1, timezone: 'Europe/${S}'}]",
    "host": "triggers: [{type: webhook, host: '${S}'}]",
    "target": "connections: ['${S}']",
    "tool": "tools: ['${S}:${S}']",
    "tool path": "tools: ['${S}']",
    "server": "mcp_servers: ['${S}']",
    "path": "knowledge: ['${S}']",
    "glob": "knowledge: ['${S}/*.md']",
    "script": "model: 'demo:${S}.yml'",
    "parent": "extends: '${S}'",
    "url": "sinks: [{type: http, url: '${S}'}]",
    "trigger name": "triggers: [{type: file, paths: [x], name: '${S} ${S}'}]",
    "output": "output: '${S}:${S}'",
    "beside an unknown key": "description: '${S}'\n    modle: demo",
}


@pytest.mark.parametrize("secret", ["canary_9a7c", 'it\'s "quoted"\\', "a\nb{% canary %}"])
@pytest.mark.parametrize("name", SECRETS)
def test_values_of_variables_are_never_shown(name: str, secret: str, tmp_path: Path) -> None:
    file = write(tmp_path, m=f"agents:\n  a:\n    {SECRETS[name]}\n")
    with pytest.raises(ManifestError) as caught:
        load(file, env={"S": secret})
    assert caught.value.problems[0].line >= 3
    shown = str(caught.value) + repr(caught.value.problems)
    for form in (secret, repr(secret)[1:-1], secret.encode("unicode_escape").decode(), "canary"):
        assert form not in shown


def test_includes_merge_below_the_file_and_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "hand.md").write_text("x")
    (tmp_path / "shared" / "script.yml").write_text("- {reply: hi}\n")
    file = write(
        tmp_path,
        m="include: [shared/*.yaml, 'none/*.yml', ./shared/deep/a.yml]\nlimits: {max_hops: 3}\n"
        "agents:\n  a: {tools: [], knowledge: []}\n",
        shared__deep__a="agents:\n  b: {knowledge: [../hand.md], sinks: [{type: file, path: 'out/{{ event.id }}'}]}\n"
        "limits: {concurrency: 5}\n",
    )
    (tmp_path / "shared" / "base.yaml").write_text(
        "limits: {max_hops: 9, drain_timeout_s: 1}\nengine: {path: db/pool.db}\n"
        "mcp_servers: {s: {type: stdio, command: x, cwd: /abs}}\n"
        "agents:\n  a:\n    model: demo:script.yml\n    description: kept\n    knowledge: [hand.md]\n"
        "    triggers: [{type: file, paths: [in, '../up/*.md', /abs/x]}]\n"
    )
    manifest = load(file)
    agent, other = manifest.agents["a"], manifest.agents["b"]
    assert (manifest.limits.max_hops, manifest.limits.drain_timeout_s, manifest.limits.concurrency) == (3, 1, 5)
    assert (agent.description, agent.knowledge) == ("kept", [])
    assert isinstance(agent.model, ScriptModelConfig)
    assert agent.model.path == "shared/script.yml"
    assert agent.triggers[0].model_dump()["paths"] == ["shared/in", "up/*.md", "/abs/x"]
    assert isinstance(manifest.engine, SqliteEngineConfig)
    assert manifest.engine.path == "shared/db/pool.db"
    assert other.knowledge[0].model_dump()["path"] == "shared/hand.md"
    assert other.sinks[0].model_dump()["path"] == "shared/deep/out/{{ event.id }}"
    server = manifest.mcp_servers["s"]
    assert isinstance(server, StdioServerConfig)
    assert server.cwd == "/abs"
    assert manifest.locate("agents", "a", "description") == f"{tmp_path}/shared/base.yaml:7:5"
    assert manifest.locate("agents", "a", "tools") == f"{file}:4:7"


def test_a_file_may_be_included_by_two_others(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        m="include: ['*.yml']\n",
        one="include: [base.yml]\nagents: {a: {concurrency: 1}}\n",
        two="include: [base.yml]\nagents: {b: {}}\n",
        base="agents: {a: {concurrency: 9, description: base}}\n",
    )
    agent = load(file).agents["a"]
    assert (agent.description, sorted(load(file).agents)) == ("base", ["a", "b"])


def test_defaults_and_extends_merge_deeply(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        m="""
defaults: {model: {type: litellm, name: x/y, api_base: "http://h"}, limits: {timeout_s: 5, tool_calls: 9}, tools: []}
agents:
  child: {extends: parent, limits: {timeout_s: 7}, model: {type: demo}}
  parent: {model: {name: x/z}, retries: {attempts: 2}, limits: {total_tokens: 50}}
  plain: {model: auto}
  engine: {extends: child}
""",
    )
    agents = load(file).agents
    parent = agents["parent"]
    assert list(agents) == ["child", "parent", "plain", "engine"]
    assert parent.model.model_dump() == LiteLLMModelConfig(name="x/z", api_base="http://h").model_dump()
    child = agents["child"]
    assert child.model.type == "demo"
    assert (child.limits.timeout_s, child.limits.tool_calls, child.limits.total_tokens) == (7, 9, 50)
    assert (child.retries.attempts, agents["engine"].retries.attempts) == (2, 2)
    assert agents["plain"].limits.timeout_s == 5
    assert child.extends == "parent"


def test_a_chain_of_a_thousand_parents_is_no_problem(tmp_path: Path) -> None:
    lines = ["agents:", "  a0: {concurrency: 3}", *(f"  a{n}: {{extends: a{n - 1}}}" for n in range(999, 0, -1))]
    assert load(write(tmp_path, m="\n".join(lines))).agents["a999"].concurrency == 3


def test_another_type_replaces_a_mapping(tmp_path: Path) -> None:
    file = write(tmp_path, m="include: [base.yml]\nengine: {type: memory}\n", base="engine: {path: x.db}\n")
    assert isinstance(load(file).engine, MemoryEngineConfig)


def test_triggers_without_a_name_are_counted_by_type(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        m="""
agents:
  a: {triggers: [{type: file, paths: [x]}, {type: webhook, name: file-2}, {type: file, paths: [y]}]}
  b: {triggers: [{type: schedule, every_s: 1, prompt: x}, {type: file, paths: [z], enabled: false}]}
teams:
  t: {members: [a], triggers: [{type: webhook, path: /t}]}
""",
    )
    manifest = load(file)
    names = [[trigger.name for trigger in node.triggers] for node in manifest.nodes.values()]
    assert names == [["file-1", "file-2", "file-3"], ["schedule-1", "file-4"], ["webhook-1"]]


def test_an_inherited_trigger_is_refused_at_extends(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        m="agents:\n  a: {triggers: [{type: file, name: w, paths: [x]}]}\n  b:\n    extends: a\n"
        "  c: {extends: a, triggers: []}\n",
    )
    (problem,) = check(file)
    assert (problem.code, problem.line, problem.column) == ("LL305", 4, 14)
    assert "`triggers: []`" in problem.message


def test_notes_are_ignored_everywhere_but_in_free_mappings(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        m="""
x-root: {anything: [1]}
limits: {x-why: "${MISSING}"}
mcp_servers:
  x-server: 5
  s: {type: http, url: "http://h", headers: {x-api-key: "${KEY}"}, x-note: 1}
agents:
  x-base: &base {concurrency: 2, x-in: 3}
  a:
    <<: *base
    x-note: {deep: "${MISSING}"}
    output: {type: object, x-kept: 1}
    triggers: [{type: webhook, x-a: 1, auth: {type: none, x-b: 1}}]
""",
    )
    manifest = load(file, env={"KEY": "k"})
    assert list(manifest.agents) == ["a"]
    assert manifest.agents["a"].output == {"type": "object", "x-kept": 1}
    server = manifest.mcp_servers["s"]
    assert isinstance(server, HttpServerConfig)
    assert server.headers == {"x-api-key": "k"}
    (problem,) = check(file, env={})
    assert (problem.code, problem.line) == ("LL111", 6)


def test_a_manifest_may_be_a_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = {"agents": {"a": {"model": "demo", "description": "${X}", "concurrency": 2}, "b": {"connections": ("a",)}}}
    manifest = Manifest.load(source, env={"X": "from env"})
    assert (manifest.folder, manifest.path) == (tmp_path, None)
    assert manifest.agents["a"].description == "from env"
    assert manifest.locate("agents", "a") == "<manifest>:1:1"
    with pytest.raises(ManifestError) as caught:
        load({"agents": {"a": {"modle": "demo", "connections": ["c"]}}})
    assert [str(problem) for problem in caught.value.problems] == [
        '<manifest>:1:1: error LL201: unknown key "modle" in agents.a; did you mean "model"?',
        '<manifest>:1:1: error LL301: unknown agent or team "c" in agents.a.connections; did you mean "a"?',
    ] or len(caught.value.problems) == 2
    loop: dict[str, Any] = {}
    loop["agents"] = loop
    numbered: dict[str, Any] = {"agents": {1: {}}}
    for bad in (loop, numbered):
        (problem,) = check(bad)
        assert problem.code == "LL009"


def test_a_mapping_may_hold_ready_configs() -> None:
    agent = AgentConfig(concurrency=2, triggers=[WebhookTriggerConfig(path="/x")])
    manifest = load({"agents": {"a": agent, "b": {"model": DemoModelConfig(), "tools": []}}})
    assert manifest.agents["a"].concurrency == 2
    assert (manifest.agents["a"].triggers[0].name, agent.triggers[0].name) == ("webhook-1", "")
    assert manifest.agents["b"].model.type == "demo"


def test_what_a_manifest_knows_of_itself(tmp_path: Path) -> None:
    file = write(tmp_path, m="agents:\n  a:\n    triggers:\n      - {type: webhook, port: 81}\n")
    manifest = load(str(file))
    assert (manifest.folder, manifest.path) == (tmp_path, file)
    assert manifest.triggered
    trigger = manifest.agents["a"].triggers[0]
    assert isinstance(trigger, WebhookTriggerConfig)
    assert manifest.locate("agents", "a", "triggers", 0, "port") == f"{file}:4:25"
    assert manifest.locate("agents", "a", "triggers", 0, "host") == f"{file}:4:10"
    assert manifest.locate("agents", "a", "triggers", 0) == f"{file}:4:10"
    assert manifest.locate("agents", "nobody") == f"{file}:1:1"


def test_a_relative_path_is_shown_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, sub__m="include: [more.yml]\nagents: {a: {x: 1}}\n", sub__more="agents: {b: {y: 1}}\n")
    monkeypatch.chdir(tmp_path)
    assert [problem.path for problem in check("sub/m.yml")] == ["sub/m.yml", "sub/more.yml"]


def test_one_agent_per_file(tmp_path: Path) -> None:
    (tmp_path / "hand.md").write_text("x")
    file = write(tmp_path, writer="model: demo\nlimits: {timeout_s: 3}\nknowledge: [hand.md]\nx-note: 1\n")
    manifest = load_agent(file)
    assert list(manifest.agents) == ["writer"]
    assert manifest.agents["writer"].limits.timeout_s == 3
    assert manifest.locate("agents", "writer", "knowledge") == f"{file}:3:1"
    named = write(tmp_path, file="name: editor\nmcp_servers: [{type: stdio, command: x}]\n")
    assert list(load_agent(str(named)).agents) == ["editor"]
    assert list(load_agent({"name": "n", "model": "demo"}).agents) == ["n"]


def test_mistakes_of_one_agent_per_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        m="name: m\nengine: {type: memory}\nserver: false\nlimits: {max_hops: 3}\nmcp_servers: {a: {}}\n"
        "modle: demo\nconnections: [other]\ntriggers:\n  - {type: file, pats: [x]}\nagents: {}\n",
    )
    with pytest.raises(ManifestError) as caught:
        load_agent(file)
    assert [(p.line, p.column, p.code, p.message) for p in caught.value.problems] == [
        (2, 1, "LL201", '"engine" belongs into the manifest of a pool; this file describes one agent'),
        (3, 1, "LL201", '"server" belongs into the manifest of a pool; this file describes one agent'),
        (
            4,
            10,
            "LL201",
            'unknown key "max_hops" in limits; write it in the `limits:` at the root of the pool\'s manifest',
        ),
        (5, 1, "LL203", '"mcp_servers" of an agent should be a list of mappings'),
        (6, 1, "LL201", 'unknown key "modle"; did you mean "model"?'),
        (7, 15, "LL301", 'unknown agent or team "other" in connections; known: m'),
        (9, 18, "LL201", 'unknown key "pats" in triggers[0]; did you mean "paths"?'),
        (10, 1, "LL201", '"agents" belongs into the manifest of a pool; open this file with AgentPool'),
    ]
    with pytest.raises(ManifestError, match='missing key "name"'):
        load_agent({"model": "demo"})
    with pytest.raises(ManifestError, match='"name" should be text'):
        load_agent({"name": 3})


def test_an_agents_key_at_the_root_says_where_it_belongs(tmp_path: Path) -> None:
    (problem,) = check(write(tmp_path, m="instructions: hi\n"))
    assert (
        problem.message
        == 'unknown key "instructions"; it is a key of an agent; write it below agents.<name>.instructions'
    )


def test_a_thousand_agents_load_quickly(tmp_path: Path) -> None:
    lines = ["defaults: {model: demo}", "agents:"]
    for number in range(1000):
        lines += [
            f"  agent{number}:",
            "    instructions: |",
            "      You are {{ now }}.",
            f"    connections: [{f'agent{number // 2}' if number > 1 else ''}]",
            "    triggers:",
            f'      - {{type: file, paths: ["in{number}/*.md"]}}',
            f'    sinks: [{{type: file, path: "out{number}/{{{{ event.id }}}}.md"}}]',
        ]
    file = write(tmp_path, m="\n".join(lines))
    started = time.perf_counter()
    yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    plain = time.perf_counter() - started
    started = time.perf_counter()
    assert len(load(file).agents) == 1000
    assert time.perf_counter() - started < max(2.0, 40 * plain)
