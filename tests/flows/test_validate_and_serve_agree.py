"""Whatever `check` accepts starts, whatever it refuses does not: manifests with random nodes changed."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from llmling import AgentPool
from llmling.errors import ManifestError
from llmling.manifest import check, json_schema

SOURCE: dict[str, Any] = {
    "engine": {"type": "memory"},
    "limits": {"max_hops": 10, "drain_timeout_s": 1},
    "agents": {
        "analyzer": {
            "model": {"type": "fallback", "models": ["demo", {"type": "litellm", "name": "openai/x"}]},
            "model_settings": {"temperature": 0.2, "stop": ["x"]},
            "instructions": "You analyse {{ now.date() }}",
            "tools": ["flow_words:count", {"type": "agent", "name": "mailer"}],
            "knowledge": ["./notes.md", {"type": "text", "content": "..."}, {"type": "folder", "path": "kept"}],
            "output": {"type": "object", "properties": {"a": {"type": "string"}}},
            "retries": {"attempts": 3, "backoff_s": 0.5},
            "triggers": [
                {"type": "file", "name": "docs", "paths": ["in/**/*.md"], "extensions": [".md"], "events": ["added"]},
                {"type": "webhook", "port": 0, "auth": {"type": "hmac", "secret": "s"}, "filter": "event.data.a == 1"},
                {"type": "webhook", "port": 0, "path": "/two", "auth": {"type": "standard", "secret": "c2VjcmV0"}},
                {"type": "schedule", "cron": "0 2 * * *", "timezone": "Europe/Berlin", "prompt": "Write"},
            ],
            "connections": ["mailer", {"to": "desk", "when": "message.text", "transform": "flow_words:shorten"}],
            "sinks": [
                {"type": "file", "path": "out/{{ event.id }}.md"},
                {"type": "http", "url": "https://127.0.0.1:1"},
            ],
        },
        "mailer": {"extends": "base", "model": "demo:script.yml"},
        "base": {"model": "demo", "inbox": {"size": 9, "overflow": "reject"}},
    },
    "teams": {"desk": {"mode": "sequential", "members": ["mailer", "base"]}},
}
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, "", "x", "demo", [], {}, ["x"], {"type": "file"}, "{{ event.id }}", "${", "/", "a b", "*",
    "12", 10**30, 1e308, "https://[", "whsec_!!!", "\n", "analyzer", {"type": 3},
]  # fmt: skip


def _mutated(number: int, port: int) -> dict[str, Any]:
    rng = random.Random(number)
    tree = copy.deepcopy(SOURCE)
    for trigger in tree["agents"]["analyzer"]["triggers"]:
        if "port" in trigger:
            trigger["port"] = port
    for _ in range(rng.choice([1, 1, 2])):
        places = list(_places(tree))
        node, key = rng.choice(places)
        match rng.randrange(4):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[rng.choice([f"{key}s", f"x-{key}", str(key)[1:]])] = cast("dict[Any, Any]", node).pop(key)
            case 2:
                other, name = rng.choice(places)
                node[key] = copy.deepcopy(other[name]) if name in other or isinstance(name, int) else None
            case _:
                node[key] = copy.deepcopy(rng.choice(VALUES))
    return tree


def _places(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, dict):
        keys: list[Any] = list(cast("dict[Any, Any]", node))
    else:
        keys = list(range(len(cast("list[Any]", node)))) if isinstance(node, list) else []
    parent: Any = cast("Any", node)
    return [place for key in keys for place in ((parent, key), *_places(parent[key]))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    (tmp_path / "flow_words.py").write_text(
        "def count(text: str) -> int:\n    return len(text.split())\n\n\ndef shorten(message):\n    return message\n"
    )
    (tmp_path / "notes.md").write_text("a note")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "one.md").write_text("kept")
    (tmp_path / "script.yml").write_text("- {reply: hello}\n")
    return tmp_path


async def test_check_and_a_pool_agree(folder: Path, unused_tcp_port_factory: Any) -> None:
    port: int = unused_tcp_port_factory()
    schema: Any = jsonschema.Draft202012Validator(json_schema())
    started = refused = 0
    for number in range(100):
        tree = _mutated(number, port)
        errors = [problem for problem in check(tree) if problem.severity == "error"]
        if errors:
            refused += 1
            with pytest.raises(ManifestError) as caught:
                AgentPool(tree, model="demo")
            assert list(caught.value.problems) == errors
            continue
        started += 1
        assert schema.is_valid(tree), tree
        ports = {trigger.get("port") for trigger in _triggers(tree) if trigger.get("type") == "webhook"}
        if ports <= {port}:
            async with AgentPool(tree, model="demo"):
                pass
    assert started > 15
    assert refused > 40


def _triggers(tree: dict[str, Any]) -> list[dict[str, Any]]:
    nodes: list[Any] = [*tree.get("agents", {}).values(), *tree.get("teams", {}).values()]
    found: list[list[dict[str, Any]]] = [node.get("triggers") or [] for node in nodes if node]
    return [trigger for triggers in found for trigger in triggers]
