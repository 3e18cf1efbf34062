"""Exported documents: what they say, what they hide, and that pyagentspec alone reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import spec_pools
from spec_pools import ENV, HOOK, KEY, PLAIN, POOLS, TOKEN
from spec_reader import Read, ReadSpec

from llmling import Agent, AgentPool, Context, Directive, Guidance, Manifest, tool
from llmling.agentspec import dump, load
from llmling.errors import LLMlingError, ManifestError
from llmling.testing import ScriptedModel


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec_pools.write_tools(tmp_path)


def exported(pool: str | dict[str, Any], name: str | None = None) -> dict[str, Any]:
    manifest = POOLS[pool][2] if isinstance(pool, str) else pool
    return json.loads(dump(Manifest.load(manifest, env=ENV), name=name))


def test_an_agent_has_the_keys_of_agent_spec() -> None:
    document = exported("plain")
    llm = document.pop("llm_config")
    ids = [document.pop("id"), llm.pop("id")]
    assert document == {
        "component_type": "Agent",
        "name": "helper",
        "description": "Helps",
        "metadata": {},
        "system_prompt": "You help {{user}} in {{language}}.",
        "inputs": [
            {"title": "user", "type": "string"},
            {"title": "language", "type": "string", "default": "English"},
        ],
        "outputs": [],
        "tools": [],
        "agentspec_version": "25.4.1",
    } | {"metadata": document["metadata"]}
    assert llm == {
        "component_type": "OpenAiConfig",
        "name": "openai/gpt-4o-mini",
        "description": None,
        "metadata": {},
        "model_id": "gpt-4o-mini",
        "default_generation_parameters": {
            "max_tokens": 800,
            "temperature": 0.2,
            "seed": 7,
            "logit_bias": {"50256": -100},
        },
    }
    assert len(set(ids)) == 2


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_pyagentspec_alone_reads_every_document(pool: str, form: Any, read_spec: ReadSpec) -> None:
    kind, version, manifest = POOLS[pool]
    text = dump(Manifest.load(manifest, env=ENV), form)
    # What pyagentspec writes of it is of the lowest version that can express it.
    assert read_spec(text) == Read(kind, version)
    assert f'"agentspec_version": "{version}"' in text or f"agentspec_version: {version}" in text


@pytest.mark.parametrize("pool", POOLS)
def test_no_secret_is_written(pool: str) -> None:
    for form in ("json", "yaml"):
        text = dump(Manifest.load(POOLS[pool][2], env=ENV), form)
        assert not any(secret in text for secret in (KEY, TOKEN, HOOK, "very-secret"))


def test_secrets_are_references_by_component_and_field() -> None:
    document = exported("everything")
    llm = document["llm_config"]
    assert llm["api_key"] == {"$component_ref": f"{llm['id']}.api_key"}
    assert llm["metadata"]["llmling"]["secrets"] == {"api_key": "${KEY}"}
    files, search, own = (box["client_transport"] for box in document["toolboxes"])
    assert search["sensitive_headers"] == {"$component_ref": f"{search['id']}.sensitive_headers"}
    assert search["headers"] == {"X-Shelf": "b"}
    assert files["env"] == {"$component_ref": f"{files['id']}.env"}
    assert own["url"] == "https://example.org/own"
    noted = document["metadata"]["llmling"]
    assert noted["triggers"][0]["auth"]["secret"] == "${HOOK}"
    assert noted["pool"]["mcp_servers"]["shelf"]["args"] == ["--token", "${SEARCH_TOKEN}"]


def test_a_secret_where_no_reference_can_stand_is_not_exported() -> None:
    manifest = Manifest.load({"agents": {"a": {"model": "demo", "instructions": "The key is ${KEY}"}}}, env=ENV)
    with pytest.raises(LLMlingError, match="in the open at system_prompt") as caught:
        dump(manifest)
    assert KEY not in str(caught.value)


def test_tools_carry_their_schemas() -> None:
    count, look = exported("everything")["tools"]
    assert count["component_type"] == "ServerTool"
    assert count["inputs"] == [
        {"title": "text", "type": "string"},
        {"title": "least", "default": 1, "type": "integer"},
    ]
    assert count["outputs"] == [{"title": "result", "type": "integer"}]
    assert count["metadata"] == {"llmling": {"function": "spec_tools:word_count"}}
    assert look["name"] == "look"
    assert look["requires_confirmation"] is True
    assert look["description"] == "Find what is at a place."
    assert look["inputs"][0]["properties"]["city"] == {"type": "string"}
    assert "$ref" not in json.dumps(look)


def test_outputs_are_properties() -> None:
    outputs = exported("everything")["outputs"]
    assert outputs == [
        {"title": "tags", "type": "array", "items": {"type": "string"}},
        {"title": "n", "type": "integer"},
    ]


def test_ids_follow_the_content() -> None:
    first, again = exported("everything"), exported("everything")
    assert first == again
    changed = exported({"agents": {"helper": {**PLAIN["agents"]["helper"], "description": "Helps well"}}})
    same = exported("plain")
    assert changed["id"] != same["id"]
    assert changed["llm_config"]["id"] == same["llm_config"]["id"]


def test_what_is_used_twice_is_written_once() -> None:
    document = exported("swarm")
    ends = document["relationships"]
    assert all(set(part) == {"$component_ref"} for pair in ends for part in pair)
    shared = document["$referenced_components"]
    assert sorted(part["component_type"] for part in shared.values()) == ["Agent", "Agent", "OpenAiConfig"]


def test_a_chain_is_a_flow_from_start_to_end() -> None:
    document = exported("chain")
    shared = document["$referenced_components"]
    names = [shared[node["$component_ref"]]["name"] for node in document["nodes"]]
    assert names == ["start", "1 one", "2 two", "3 three", "end"]
    assert document["inputs"] == [{"title": "user", "type": "string"}]
    assert document["outputs"] == [{"title": "a", "type": "string"}]


def test_one_agent_of_a_pool_leaves_its_connections_behind() -> None:
    document = exported("chain", "two")
    assert (document["component_type"], document["name"]) == ("Agent", "two")
    assert "connections" not in json.dumps(document)
    assert exported("manager", "boss")["component_type"] == "ManagerWorkers"
    assert exported("manager", "writer")["component_type"] == "Agent"
    assert exported("team", "desk")["component_type"] == "Flow"


@pytest.mark.parametrize(
    ("agents", "teams", "why"),
    [
        ({"a": {}, "b": {}}, {}, r"one agent, team or chain, and here are 2 that do not belong together: a, b"),
        ({"a": {"connections": ["b", "c"]}, "b": {}, "c": {}}, {}, r"one way on from each agent"),
        ({"a": {"connections": [{"to": "b", "when": "true"}]}, "b": {}}, {}, r"no conditions"),
        ({"a": {}, "b": {}}, {"t": {"members": ["a", "b"]}}, r"only a sequential team is a chain"),
        ({"a": {"instructions": "{% if event.data.x %}y{% endif %}"}}, {}, r"no \{% if %\} \(agents.a.instructions\)"),
        ({"a": {"instructions": "Mind {{ '{{' }}braces}}"}}, {}, r"\{\{braces\}\} would be read as an input"),
        ({"a": {"output": {"type": "object", "properties": {"a b": {}}}}}, {}, r"cannot be called 'a b'"),
        (
            {"a": {"output": {"$ref": "#/$defs/N", "$defs": {"N": {"properties": {"n": {"$ref": "#/$defs/N"}}}}}}},
            {},
            r"the schema refers to itself at #/\$defs/N",
        ),
        (
            {"a": {"tools": [{"type": "agent", "name": "t"}]}},
            {"t": {"mode": "sequential", "members": ["a"]}},
            r"this contains itself",
        ),
    ],
)
def test_what_agent_spec_cannot_say_is_named(agents: dict[str, Any], teams: dict[str, Any], why: str) -> None:
    with pytest.raises(ManifestError, match=why) as caught:
        exported({"agents": agents, "teams": teams})
    assert caught.value.problems[0].code == "LL603"


def test_a_problem_has_its_place_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text(
        "agents:\n  a:\n    model: demo\n    instructions: |\n      {% for x in [] %}{% endfor %}\n"
    )
    with pytest.raises(ManifestError, match=r"agents.yml:4:5: error LL603: .* no \{% for %\}"):
        dump(Manifest.load("agents.yml"))


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(LookupError, match="no agent or team 'x' in the manifest; there are: one, two, three"):
        exported("chain", "x")


async def test_a_pool_and_agents_built_in_python(read_spec: ReadSpec) -> None:
    manifest = Manifest.load({"defaults": {"model": "demo"}, "agents": {"one": {"connections": ["two"]}, "two": {}}})
    async with AgentPool(manifest) as pool:
        assert dump(pool) == dump(manifest)
        assert dump(pool.get_agent("two")) == dump(manifest, name="two")

    @tool(name="add", description="Adds.")
    def plus(one: int, two: int) -> int:
        return one + two

    agent = Agent(
        "sums",
        model="openai/gpt-4o-mini",
        instructions="Add.",
        tools=[plus],
        output={"type": "object", "properties": {}},
    )
    text = dump(agent)
    document = json.loads(text)
    assert [part["name"] for part in document["tools"]] == ["add"]
    assert document["tools"][0]["metadata"] == {}
    assert read_spec(text).type == "Agent"
    assert dump(load(text, tools={"add": plus})) == text


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_an_agent_of_python_is_a_plain_agent_for_pyagentspec(form: Any, read_spec: ReadSpec) -> None:
    @tool(name="add", description="Adds.")
    def plus(one: int, two: int) -> int:
        return one + two

    agent = Agent(
        "sums",
        model={"type": "litellm", "name": "openai/gpt-4o-mini", "api_key": KEY},
        instructions="Answer the question about {{ event.data.query }}",
        tools=[plus],
    )
    text = dump(agent, form)
    assert KEY not in text
    read = read_spec(text)
    assert (read.type, read.document["name"]) == ("Agent", "sums")
    assert read.document["system_prompt"] == "Answer the question about {{query}}"
    assert [given["title"] for given in read.document["inputs"]] == ["query"]
    assert [each["name"] for each in read.document["tools"]] == ["add"]


def test_a_context_as_instructions_becomes_prose() -> None:
    context = Context(guidance=Guidance(role="a critic"), directive=Directive("Judge this."))
    document = json.loads(dump(Agent("critic", model="demo", instructions=context)))
    assert document["system_prompt"] == "Role: a critic\n\nJudge this.\n\n(the user's message)"
    assert dump(load(json.dumps(document))) == dump(Agent("critic", model="demo", instructions=context))


def test_an_agent_of_objects_says_what_cannot_travel() -> None:
    with pytest.raises(LLMlingError, match="given a model as an object"):
        dump(Agent("a", model=ScriptedModel(["x"])))


def test_an_agent_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("name: one\nmodel: openai/gpt-4o-mini\ntools: [spec_tools:word_count]\n")
    document = json.loads(dump(Agent("one.yml")))
    assert document["tools"][0]["metadata"]["llmling"]["function"] == "spec_tools:word_count"
