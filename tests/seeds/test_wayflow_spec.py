"""Seed 003: Agent Spec documents, written and read, and run over OpenAI's wire format."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from llm_server import Call, LLMServer, Reply

from llmling import Agent, AgentPool, Event
from llmling.agentspec import dump, load
from llmling.errors import ManifestError

SECRET = "sk-very-secret-0001"
BY_HAND = """
agentspec_version: 25.4.1
component_type: Agent
id: 0f0e0d0c-0000-4000-8000-000000000001
name: assistant
description: null
metadata: {}
inputs: [{title: query, type: string}]
outputs: []
system_prompt: You are a helpful assistant, answering the user request about {{query}}
llm_config: {$component_ref: 0f0e0d0c-0000-4000-8000-000000000002}
tools:
  - {$component_ref: 0f0e0d0c-0000-4000-8000-000000000003}
$referenced_components:
  0f0e0d0c-0000-4000-8000-000000000002:
    component_type: OpenAiCompatibleConfig
    id: 0f0e0d0c-0000-4000-8000-000000000002
    name: llm
    description: null
    metadata: {}
    url: URL
    model_id: my-model
    default_generation_parameters: {temperature: 0.2, max_tokens: 50}
  0f0e0d0c-0000-4000-8000-000000000003:
    component_type: ServerTool
    id: 0f0e0d0c-0000-4000-8000-000000000003
    name: heavy_work
    description: Performs heavy CPU-bound work.
    metadata: {}
    inputs: []
    outputs: [{title: result, type: string}]
"""
called: list[str] = []


def heavy_work() -> str:
    """Performs heavy CPU-bound work."""
    called.append("heavy_work")
    return "counted"


def assistant() -> Agent[None]:
    return Agent(
        "assistant",
        model={"type": "litellm", "name": "openai/gpt-4o-mini", "api_key": SECRET},
        instructions="You are a helpful assistant, answering the user request about {{ event.data.query }}",
        tools=[heavy_work],
    )


def test_a_document_has_the_keys_of_its_format() -> None:
    document = json.loads(dump(assistant()))
    assert document["component_type"] == "Agent"
    assert {"id", "name", "description", "metadata", "agentspec_version"} <= document.keys()
    assert document["inputs"] == [{"title": "query", "type": "string"}]
    assert document["llm_config"]["api_key"] == {"$component_ref": f"{document['llm_config']['id']}.api_key"}
    (tool,) = document["tools"]
    assert (tool["component_type"], tool["name"], tool["inputs"]) == ("ServerTool", "heavy_work", [])


async def test_a_document_written_by_hand_runs_with_its_tool(server: LLMServer) -> None:
    called.clear()
    manifest = load(BY_HAND.replace("URL", server.openai_url), tools={"heavy_work": heavy_work})
    server.replies += [Reply(calls=[Call("heavy_work")]), Reply("Counted.")]
    async with AgentPool(manifest) as pool:
        event = Event("page", "question", data={"query": "numbers"})
        result = await pool.get_agent("assistant").run("How many?", event=event)
    assert (result.content, called) == ("Counted.", ["heavy_work"])
    first, second = (request.body for request in server.requests)
    assert first["messages"][0]["content"].endswith("answering the user request about numbers")
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("my-model", 0.2, 50)
    assert second["messages"][-1]["content"] == "counted"


@pytest.mark.parametrize(
    ("wrong", "instead", "named"),
    [
        ("name: heavy_work", "name: unheard_of", "unheard_of"),
        ("component_type: ServerTool", "component_type: MagicTool", "MagicTool"),
        ("agentspec_version: 25.4.1", "agentspec_version: 99.1.1", "99.1.1"),
        ("    url: URL\n", "    url: http://127.0.0.1:1\n    api_key: {$component_ref: llm.api_key}\n", "llm.api_key"),
    ],
)
def test_what_cannot_be_loaded_is_named(wrong: str, instead: str, named: str) -> None:
    text = BY_HAND.replace(wrong, instead).replace("URL", "http://127.0.0.1:1")
    with pytest.raises(ManifestError) as caught:
        load(text, tools={"heavy_work": heavy_work})
    assert named in str(caught.value)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_exported_loaded_and_exported_again_is_the_same(form: Literal["json", "yaml"]) -> None:
    text = dump(assistant(), form)
    ref = f"{json.loads(dump(assistant()))['llm_config']['id']}.api_key"
    again = dump(load(text, tools={"heavy_work": heavy_work}, secrets={ref: SECRET}), form)
    assert again == text
