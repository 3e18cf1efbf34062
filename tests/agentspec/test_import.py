"""Documents of other hands: what they become, the functions and secrets they are given, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import spec_pools
from llm_server import Call, LLMServer, Reply

from llmling import AgentPool, Event, Manifest
from llmling.agentspec import dump, load, translate
from llmling.errors import ManifestError, Problem, RunError
from llmling.manifest.models import FallbackModelConfig, LiteLLMModelConfig
from llmling.manifest.problems import CODES

BY_HAND = """\
component_type: Agent
agentspec_version: 25.4.1
id: agent-1
name: assistant
description: Answers questions about words
llm_config: {$component_ref: llm-1}
system_prompt: "You help {{user}} count words."
inputs:
- {title: user, type: string}
outputs: []
tools:
- {$component_ref: tool-1}
$referenced_components:
  llm-1:
    component_type: VllmConfig
    id: llm-1
    name: my vLLM
    url: URL
    model_id: my-model
    default_generation_parameters: {temperature: 0.5, max_tokens: 64}
  tool-1:
    component_type: ServerTool
    id: tool-1
    name: word-count
    description: Counts the words of a text
    inputs: [{title: text, type: string}]
    outputs: [{title: count, type: integer}]
"""
LLM: dict[str, Any] = {"component_type": "OpenAiConfig", "id": "o", "name": "o", "model_id": "gpt-4o-mini"}


def document(**fields: Any) -> str:
    return json.dumps({"component_type": "Agent", "name": "a", "system_prompt": "", "llm_config": LLM, **fields})


def words(text: str) -> int:
    """Count."""
    return len(text.split())


async def test_a_document_by_hand_runs_with_the_functions_it_is_given() -> None:
    seen: list[str] = []

    def count(text: str) -> int:
        seen.append(text)
        return len(text.split())

    async with LLMServer() as server:
        manifest = load(BY_HAND.replace("URL", server.url), tools={"word-count": count})
        server.replies += [Reply(calls=[Call("word-count", {"text": "a b c"})]), Reply("three")]
        async with AgentPool(manifest) as pool:
            event = Event(source="test", type="test", data={"user": "Ada"})
            result = await pool.get_agent("assistant").run("How many words has 'a b c'?", event=event)
        first, second = (request.body for request in server.requests)
    assert result.content == "three"
    assert seen == ["a b c"]
    assert first["model"] == "my-model"
    assert (first["temperature"], first["max_tokens"]) == (0.5, 64)
    assert [turn["content"] for turn in first["messages"]] == [
        "You help Ada count words.",
        "How many words has 'a b c'?",
    ]
    offered = first["tools"][0]["function"]
    assert (offered["name"], offered["description"]) == ("word-count", "Counts the words of a text")
    assert second["messages"][-1]["content"] == "3"


async def test_a_missing_input_is_named_before_any_request() -> None:
    async with LLMServer() as server:
        manifest = load(BY_HAND.replace("URL", server.url), tools={"word-count": words})
        async with AgentPool(manifest) as pool:
            for event in (None, Event(source="test", type="test", data={})):
                with pytest.raises(RunError, match="has no attribute 'user'"):
                    await pool.get_agent("assistant").run("How many?", event=event)
        assert server.requests == []


def test_the_function_is_the_one_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec_pools.write_tools(tmp_path)
    manifest = load(BY_HAND.replace("URL", "x:1"), tools={"word-count": words})
    assert list(manifest.tools.values()) == [words]
    assert manifest.agents["assistant"].model == LiteLLMModelConfig(
        name="hosted_vllm/my-model", api_base="http://x:1/v1"
    )
    by_path = load(BY_HAND.replace("URL", "x:1"), tools={"word-count": "spec_tools:word_count"})
    bound: Any = by_path.agents["assistant"].tools[0]
    assert bound.function == "spec_tools:word_count"
    assert by_path.tools == {}


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        (
            {"component_type": "OpenAiCompatibleConfig", "url": "host:8000"},
            {"name": "openai/m", "api_base": "http://host:8000/v1"},
        ),
        (
            {"component_type": "OpenAiCompatibleConfig", "url": "https://h/api/v2"},
            {"name": "openai/m", "api_base": "https://h/api/v2"},
        ),
        (
            {"component_type": "OllamaConfig", "url": "http://h:11434/v1"},
            {"name": "ollama/m", "api_base": "http://h:11434"},
        ),
        (
            {"component_type": "OpenAiConfig", "api_type": "chat_completions", "api_provider": "openai"},
            {"name": "openai/m"},
        ),
        (
            {"component_type": "LlmConfig", "api_provider": "vllm", "url": "http://h/v1"},
            {"name": "hosted_vllm/m", "api_base": "http://h/v1"},
        ),
        ({"component_type": "LlmConfig", "provider": "google"}, {"name": "gemini/m"}),
        (
            {"component_type": "GeminiConfig", "auth": {"component_type": "GeminiAIStudioAuthConfig", "name": "g"}},
            {"name": "gemini/m"},
        ),
    ],
)
def test_llm_configs_are_models(fields: dict[str, Any], model: dict[str, Any]) -> None:
    manifest = load(document(llm_config={"name": "x", "model_id": "m", **fields}))
    assert manifest.agents["a"].model == LiteLLMModelConfig(**model)


def test_a_retry_policy_is_retries() -> None:
    policy = {"max_attempts": 4, "initial_retry_delay": 2, "max_retry_delay": 9, "request_timeout": 12.5}
    agent = load(document(llm_config={**LLM, "retry_policy": policy})).agents["a"]
    assert (agent.retries.attempts, agent.retries.backoff_s, agent.retries.max_backoff_s) == (5, 2, 9)
    assert agent.model_settings.timeout_s == 12.5


def test_secrets_are_asked_for_all_at_once() -> None:
    transport = {
        "component_type": "StreamableHTTPTransport", "id": "t", "name": "shelf", "url": "https://example.org/mcp",
        "sensitive_headers": {"$component_ref": "t.sensitive_headers"},
    }  # fmt: skip
    text = document(
        llm_config={**LLM, "api_key": {"$component_ref": "o.api_key"}},
        toolboxes=[{"component_type": "MCPToolBox", "name": "box", "client_transport": transport}],
    )
    with pytest.raises(ManifestError, match=r'secret "o.api_key" is not given in OpenAiConfig "o"') as caught:
        load(text)
    assert [problem.code for problem in caught.value.problems] == ["LL606", "LL606"]
    assert "t.sensitive_headers" in str(caught.value)
    secrets = {"o.api_key": "sk-1", "t.sensitive_headers": {"Authorization": "Bearer ${x}"}}
    manifest = load(text, secrets=secrets)
    box: Any = manifest.mcp_servers["box"]
    assert box.headers == {"Authorization": "Bearer ${x}"}
    assert "sk-1" not in repr(manifest)


def test_a_translation_says_what_a_person_must_look_at() -> None:
    transport = {
        "component_type": "StreamableHTTPTransport", "name": "shelf", "url": "https://example.org/mcp",
        "sensitive_headers": {"$component_ref": "t.sensitive_headers"},
    }  # fmt: skip
    llm = {
        "component_type": "OpenAiCompatibleConfig",
        "name": "mine",
        "model_id": "m",
        "url": "h:1",
        "api_key": "sk-open",
    }
    translation = translate(
        document(
            llm_config=llm, toolboxes=[{"component_type": "MCPToolBox", "name": "box", "client_transport": transport}]
        )
    )
    assert "sk-open" not in translation.text
    assert "api_key: ${MINE_API_KEY}" in translation.text
    assert "Authorization: ${SHELF_AUTHORIZATION}" in translation.text
    assert [note.partition(":")[0] for note in translation.notes] == [
        "OpenAiCompatibleConfig 'mine' holds its api_key in the open",
        "the document does not tell the secret headers of 'shelf'; we wrote Authorization",
    ]
    headers = {"Authorization": "Bearer in-the-open"}
    open_box = {"component_type": "MCPToolBox", "name": "box"}
    open_box = {**open_box, "client_transport": {**transport, "sensitive_headers": headers}}
    headed = translate(document(toolboxes=[open_box]))
    assert "in-the-open" not in headed.text
    assert headed.notes == (
        "StreamableHTTPTransport 'shelf' holds its sensitive_headers in the open: set ${SHELF_AUTHORIZATION}",
    )
    # A key that is the provider's own is where it always is: in its variable of the environment.
    plain = translate(document(llm_config={**LLM, "api_key": {"$component_ref": "o.api_key"}}))
    assert "model: openai/gpt-4o-mini" in plain.text


def test_tools_of_an_mcp_server_taken_one_by_one() -> None:
    transport = {
        "component_type": "StdioTransport",
        "id": "t",
        "name": "shelf",
        "command": "shelf",
        "env": {"LANG": "C"},
    }
    names = ("find", "lend")
    tools = [{"component_type": "MCPTool", "name": name, "client_transport": {"$component_ref": "t"}} for name in names]
    spec = {"component_type": "MCPToolSpec", "name": "burn"}
    box = {
        "component_type": "MCPToolBox",
        "name": "all",
        "client_transport": {"$component_ref": "t"},
        "tool_filter": ["x", spec],
    }
    manifest = load(document(tools=tools, toolboxes=[box], **{"$referenced_components": {"t": transport}}))
    assert manifest.agents["a"].mcp_servers == ["all", "shelf"]
    assert manifest.mcp_servers["shelf"].tools == ["find", "lend"]
    assert manifest.mcp_servers["all"].tools == ["x", "burn"]


def test_a_swarm_and_a_group_are_agents_that_ask_each_other() -> None:
    def agent(name: str) -> dict[str, Any]:
        return {"component_type": "Agent", "id": name, "name": "agent", "system_prompt": name, "llm_config": LLM}

    shared = {name: agent(name) for name in ("x", "y", "z")}
    pairs = [[{"$component_ref": one}, {"$component_ref": two}] for one, two in ("xy", "yz", "zx")]
    swarm = {
        "component_type": "Swarm", "name": "s", "first_agent": {"$component_ref": "x"}, "relationships": pairs,
        "handoff": "optional", "$referenced_components": shared,
    }  # fmt: skip
    agents = load(json.dumps(swarm)).agents
    assert {name: [tool.name for tool in agent.tools] for name, agent in agents.items()} == {
        "agent": ["agent-2"], "agent-2": ["agent-3"], "agent-3": ["agent"],
    }  # fmt: skip
    inner = {"component_type": "ManagerWorkers", "name": "g", "group_manager": shared["y"], "workers": [shared["z"]]}
    outer = {"component_type": "ManagerWorkers", "name": "h", "group_manager": shared["x"], "workers": [inner]}
    agents = load(json.dumps(outer)).agents
    assert {name: [tool.name for tool in agent.tools] for name, agent in agents.items()} == {
        "agent": ["agent-2"], "agent-2": ["agent-3"], "agent-3": [],
    }  # fmt: skip


def test_the_fallbacks_that_were_noted() -> None:
    text = document(llm_config={**LLM, "metadata": {"llmling": {"fallback": ["groq/x"]}}})
    model = load(text).agents["a"].model
    assert isinstance(model, FallbackModelConfig)
    assert [getattr(item, "name", "") for item in model.models] == ["openai/gpt-4o-mini", "groq/x"]


def test_a_tool_that_wants_a_confirmation_asks() -> None:
    manifest = load(document(tools=[{**TOOL, "requires_confirmation": True}]), tools={"count": words})
    bound: Any = manifest.agents["a"].tools[0]
    assert (bound.name, bound.approval) == ("count", "always")
    box = {"component_type": "MCPToolBox", "name": "b", "requires_confirmation": True}
    transport = {"component_type": "StdioTransport", "name": "t", "command": "x"}
    with pytest.raises(ManifestError, match="as a whole waits for no confirmation"):
        load(document(toolboxes=[{**box, "client_transport": transport}]))


TOOL = {"component_type": "ServerTool", "name": "count", "inputs": [{"title": "text", "type": "string"}]}


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        (document(tools=[TOOL]), "LL605", r'for the tool "count" in ServerTool "count"; did you mean "counts"'),
        (document(tools=[{**TOOL, "inputs": [{"title": "txt"}]}]), "LL605", r"no function is given"),
        (document(tools=[{**TOOL, "name": "words", "inputs": [{"title": "txt"}]}]), "LL605", r'takes no "txt"'),
        (document(tools=[{**TOOL, "name": "words", "inputs": []}]), "LL605", r'needs "text"'),
        (
            document(tools=[{"component_type": "RemoteTool", "name": "rest"}]),
            "LL603",
            r'not support RemoteTool "rest"; let a Python',
        ),
        (
            document(tools=[{"component_type": "ServerTol", "name": "x"}]),
            "LL602",
            r'"ServerTol"; did you mean "ServerTool"\?',
        ),
        (document(tools=[LLM]), "LL203", r"a OpenAiConfig cannot stand here; this should be MCPTool or ServerTool"),
        (document(llm_config={"$component_ref": "nope"}), "LL604", r'there is no component "nope"'),
        (document(agentspec_version="99.1.1"), "LL601", r"no version 99.1.1 of Agent Spec; known: 25.3.0, .*26.3.1"),
        (document(system_promt="x"), "LL201", r'unknown key "system_promt" in Agent "a"; did you mean "system_prompt"'),
        (document(transforms=[{}]), "LL603", r'no word for this "transforms"'),
        (document(inputs=[{"title": "x"}]), "LL603", r'asks for the input "x"'),
        (document(llm_config={**LLM, "api_type": "responses"}), "LL603", r'no word for this "api_type"'),
        (document(llm_config={**LLM, "component_type": "OciGenAiConfig"}), "LL603", r"OciGenAiConfig"),
        (document(llm_config={**LLM, "retry_policy": {"jitter": "full"}}), "LL603", r'"jitter" of a retry policy'),
        (document(llm_config={**LLM, "default_generation_parameters": {"temperature": 9}}), "LL204", r"2"),
        (
            document(component_type="ExtendedAgent", component_plugin_name="AgentPlugin"),
            "LL602",
            r"it belongs to AgentPlugin",
        ),
        (document(component_type="ServerTool"), "LL203", r"this should be Agent or Flow or ManagerWorkers or Swarm"),
        (json.dumps({"name": "x"}), "LL202", r'missing key "component_type"'),
        (json.dumps({"component_type": "Agent"}), "LL202", r'missing key "llm_config"'),
        ("[1, 2]", "LL009", r"a document should be a mapping"),
        ('{"component_type": ', "LL004", r"LL004"),
        ("", "LL009", r"the file is empty; a document starts with `component_type:`"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, code: str, why: str) -> None:
    with pytest.raises(ManifestError, match=why) as caught:
        load(text, tools={"counts": words, "words": words})
    assert code in [problem.code for problem in caught.value.problems]


def test_a_place_is_line_and_column() -> None:
    with pytest.raises(ManifestError) as caught:
        load(BY_HAND.replace("URL", "h").replace("my-model", "[]"), tools={})
    assert [(problem.line, problem.column, problem.code) for problem in caught.value.problems] == [
        (19, 5, "LL203"),
        (24, 11, "LL605"),
    ]


def test_components_that_contain_each_other_are_refused() -> None:
    group = {
        "component_type": "ManagerWorkers", "name": "g", "workers": [{"$component_ref": "g"}],
        "group_manager": {"component_type": "Agent", "name": "m", "system_prompt": "", "llm_config": LLM},
    }  # fmt: skip
    text = json.dumps({**group, "$referenced_components": {"g": group}})
    with pytest.raises(ManifestError, match="this component contains itself"):
        load(text)
    loop = {"one": {"$component_ref": "two"}, "two": {"$component_ref": "one"}}
    with pytest.raises(ManifestError, match="references lead in a circle"):
        load(document(llm_config={"$component_ref": "one"}, **{"$referenced_components": loop}))


ODD: list[Any] = [None, [], {}, "x", "", 3, True, ["x"], {"x": 1}, {"$component_ref": {}}, "{{x}}", [[]]]


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(cast("dict[str, Any]", value))
    elif isinstance(value, list):
        keys = list(range(len(cast("list[Any]", value))))
    found: list[tuple[Any, Any]] = []
    for key in keys:
        found += [(value, key), *_places(value[key])]
    return found


@pytest.mark.parametrize("pool", ["everything", "manager", "chain", "swarm"])
def test_any_value_anywhere_is_a_problem_and_no_crash(
    pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec_pools.write_tools(tmp_path)
    text = dump(Manifest.load(spec_pools.POOLS[pool][2], env=spec_pools.ENV))
    count = len(_places(json.loads(text)))
    problems: list[Problem] = []
    for number in range(0, count, max(1, count // 40)):
        broken = json.loads(text)
        holder, key = _places(broken)[number]
        holder[key] = ODD[number % len(ODD)]
        try:
            translate(json.dumps(broken))
        except ManifestError as error:
            problems += error.problems
    assert {problem.code for problem in problems} <= set(CODES)
    assert {"LL202", "LL203"} <= {problem.code for problem in problems}


def test_variables_of_a_document_are_no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME_SECRET", "never")
    agent = load(document(system_prompt="Read ${HOME_SECRET}", metadata={"llmling": {"description": "x"}})).agents["a"]
    assert agent.instructions == "Read ${HOME_SECRET}"
    with pytest.raises(ManifestError, match=r'secret "HOME_SECRET" is not given'):
        load(
            document(
                metadata={
                    "llmling": {"sinks": [{"type": "http", "url": "https://example.org", "secret": "${HOME_SECRET}"}]}
                }
            )
        )
