"""What was exported comes back as it was: as a document, and as a pool that does the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import spec_pools
import yaml
from hypothesis import given
from hypothesis import strategies as st
from spec_pools import ENV, KEY, POOLS, TOKEN

from llmling import Manifest
from llmling.agentspec import dump, load, translate
from llmling.agentspec.text import Format
from llmling.errors import ManifestError
from llmling.manifest import check

MADE_UP = {
    "ANTHROPIC_API_KEY": KEY,
    "OPENAI_API_KEY": KEY,
    "AGENTS_HELPER_MODEL_MODELS_1_API_KEY": KEY,
    "MCP_SERVERS_FILES_ENV_API_TOKEN": TOKEN,
}
"""Variables the exporter makes up for secrets that stand in a manifest themselves."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec_pools.write_tools(tmp_path)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_export_of_load_of_export_is_identical(pool: str, form: Format) -> None:
    text = dump(Manifest.load(POOLS[pool][2], env=ENV), form)
    assert dump(load(text, secrets={**ENV, **MADE_UP}), form) == text


@pytest.mark.parametrize("pool", POOLS)
def test_secrets_may_be_given_by_reference(pool: str) -> None:
    text = dump(Manifest.load(POOLS[pool][2], env=ENV))
    document = json.loads(text)
    secrets: dict[str, Any] = dict.fromkeys(spec_pools.references(document), KEY)
    for part in spec_pools.parts(document):
        match part.get("component_type"):
            case "StreamableHTTPTransport":
                secrets[f"{part['id']}.sensitive_headers"] = {"Authorization": f"Bearer {TOKEN}"}
            case "StdioTransport":
                secrets[f"{part['id']}.env"] = {"API_TOKEN": TOKEN, "LANG": "C"}
            case _:
                pass
    # What llmling itself noted has no reference; it is given by variable.
    manifest = load(text, secrets={**MADE_UP, **secrets, "HOOK": ENV["HOOK"], "SEARCH_TOKEN": TOKEN})
    assert dump(manifest) == text


@pytest.mark.parametrize("pool", POOLS)
def test_the_pool_is_the_same_pool(pool: str) -> None:
    before = Manifest.load(POOLS[pool][2], env=ENV)
    after = load(dump(before), secrets={**ENV, **MADE_UP})
    assert list(after.teams) == list(before.teams)
    assert set(after.agents) == set(before.agents)
    for name, agent in before.agents.items():
        other = after.agents[name]
        kept = {
            "description", "triggers", "sinks", "knowledge", "limits", "retries", "output", "model_settings",
        }  # fmt: skip
        assert agent.model_dump(include=kept) == other.model_dump(include=kept)
        assert agent.model.model_dump(exclude={"api_key", "api_base"}) == other.model.model_dump(
            exclude={"api_key", "api_base"}
        )
        assert [edge.to for edge in agent.connections] == [edge.to for edge in other.connections]
    assert {name: team.members for name, team in after.teams.items()} == {
        name: team.members for name, team in before.teams.items()
    }


def test_every_value_comes_back() -> None:
    before = Manifest.load(POOLS["everything"][2], env=ENV)
    after = load(dump(before), secrets={**ENV, **MADE_UP})
    agent = after.agents["helper"]
    assert agent.instructions == "You cost ${5}.\n\nMind {{ '{{' }}two braces}} and {{ '{%' }}"
    assert agent.model == before.agents["helper"].model
    assert [tool.model_dump(exclude_none=True) for tool in agent.tools] == [
        tool.model_dump(exclude_none=True) for tool in before.agents["helper"].tools
    ]
    assert agent.mcp_servers == ["files", "search", "helper-2"]
    assert after.mcp_servers["files"] == before.mcp_servers["files"]
    assert after.mcp_servers["search"] == before.mcp_servers["search"]
    assert after.mcp_servers["shelf"] == before.mcp_servers["shelf"]
    assert (after.engine, after.limits) == (before.engine, before.limits)


@pytest.mark.parametrize("pool", POOLS)
def test_a_translation_is_a_valid_manifest(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ENV, **MADE_UP}.items():
        monkeypatch.setenv(name, value)
    text = dump(Manifest.load(POOLS[pool][2], env=ENV), "yaml")
    translation = translate(text)
    assert translation.notes == ()
    assert "very-secret" not in translation.text
    Path("agents.yml").write_text(translation.text)
    # The pool with everything also has what `validate` warns of; its document says nothing of `trust`.
    assert [str(problem) for problem in check("agents.yml") if problem.code != "LL403"] == []
    assert dump(Manifest.load("agents.yml"), "yaml") == text


def test_given_functions_leave_the_document_as_it_is(tmp_path: Path) -> None:
    def word_count(text: str, least: int = 1) -> int:
        """Count the words of a text."""
        return least

    pool = {"agents": {"a": {"model": "demo", "tools": ["spec_tools:word_count"]}}}
    text = dump(Manifest.load(pool))
    (tmp_path / "spec_tools.py").unlink()
    manifest = load(text, tools={"word_count": word_count})
    assert manifest.tools == {"spec_tools:word_count": word_count}
    assert dump(manifest) == text
    with pytest.raises(ManifestError, match='no function is given for the tool "word_count"'):
        load(text, tools={})


def test_an_edited_system_prompt_wins_over_what_was_noted() -> None:
    document = json.loads(dump(Manifest.load(POOLS["parts"][2])))
    assert document["metadata"]["llmling"]["instructions"]
    document["system_prompt"] = "You are kind."
    document["inputs"] = []
    manifest = load(json.dumps(document))
    assert manifest.agents["helper"].instructions == "You are kind."
    document["outputs"] = [{"title": "mark", "type": "integer"}]
    assert load(json.dumps(document)).agents["helper"].output == {
        "type": "object",
        "properties": {"mark": {"type": "integer"}},
        "required": ["mark"],
    }


def test_both_readers_of_yaml_see_the_same() -> None:
    odd = ["1e5", "0o17", "yes", "12:30", "null", "", "~", "a\nb\n", " x", "#", "2026-01-01", "1_000", "${X}", "😀"]
    manifest = Manifest.load(
        {"agents": {"a": {"model": "demo", "model_settings": {"extra": {"odd": odd}}}}}, env={"X": "x"}
    )
    form_yaml, form_json = dump(manifest, "yaml"), dump(manifest, "json")
    assert yaml.safe_load(form_yaml) == json.loads(form_json)
    assert dump(load(form_yaml)) == dump(load(form_json)) == form_json


def test_json_with_escaped_halves_of_characters() -> None:
    manifest = Manifest.load({"agents": {"a": {"model": "demo", "instructions": "Smile \N{GRINNING FACE}: \\u00e4"}}})
    text = json.dumps(json.loads(dump(manifest)))
    assert "\\ud83d\\ude00" in text
    assert load(text).agents["a"].instructions == "Smile \N{GRINNING FACE}: \\u00e4"


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=60))
def test_any_prompt_means_itself(prompt: str) -> None:
    document = {
        "component_type": "Agent",
        "name": "a",
        "llm_config": {"component_type": "LlmConfig", "name": "m", "model_id": "demo", "api_provider": "llmling"},
        "system_prompt": prompt,
    }
    try:
        manifest = load(json.dumps(document))
    except ManifestError as error:
        raise AssertionError(f"{prompt!r}: {error}") from None
    assert json.loads(dump(manifest))["system_prompt"] == prompt.strip()
