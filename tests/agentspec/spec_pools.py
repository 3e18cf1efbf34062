"""Pools to export, a module of tools for them, and what stands in for secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

KEY = "sk-very-secret-0001"
TOKEN = "tok-very-secret-0002"
HOOK = "hook-very-secret-0003"
ENV = {"KEY": KEY, "SEARCH_TOKEN": TOKEN, "HOOK": HOOK}

TOOLS = '''\
from __future__ import annotations

from dataclasses import dataclass

from llmling import tool


@dataclass
class Place:
    city: str
    zip: str = ""


def word_count(text: str, least: int = 1) -> int:
    """Count the words of a text."""
    return len(text.split())


@tool(name="find", idempotent=True)
async def search(place: Place, also: list[str] | None = None) -> list[str]:
    """Find what is at a place."""
    return [place.city]
'''

PLAIN: Mapping[str, Any] = {
    "agents": {
        "helper": {
            "description": "Helps",
            "model": "openai/gpt-4o-mini",
            "model_settings": {
                "temperature": 0.2,
                "max_tokens": 800,
                "seed": 7,
                "extra": {"logit_bias": {"50256": -100}},
            },
            "instructions": "You help {{ event.data.user }} in {{event.data['language'] | default(\"English\")}}.",
        }
    }
}

POOLS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "plain": ("Agent", "25.4.1", PLAIN),
    "defaults": ("Agent", "26.1.2", {"agents": {"helper": {}}}),
    "ollama": ("Agent", "25.4.1", {"agents": {"helper": {"model": "ollama/llama3.2"}}}),
    "vllm": (
        "Agent",
        "25.4.1",
        {
            "agents": {
                "helper": {"model": {"name": "hosted_vllm/m", "type": "litellm", "api_base": "http://127.0.0.1:1"}}
            }
        },
    ),
    "bare name": ("Agent", "25.4.1", {"agents": {"helper": {"model": "gpt-4o"}}}),
    "another provider": (
        "Agent",
        "26.1.2",
        {
            "agents": {
                "helper": {
                    "model": {
                        "type": "litellm",
                        "name": "anthropic/claude-3-5-haiku-latest",
                        "api_key": KEY,
                        "price": {"input_per_mtok": 1, "output_per_mtok": 2},
                        "concurrency": 3,
                        "requests_per_minute": 60,
                    }
                }
            }
        },
    ),
    "gemini": (
        "Agent",
        "26.1.2",
        {"agents": {"helper": {"model": {"type": "litellm", "name": "gemini/gemini-2.0-flash", "api_key": "${KEY}"}}}},
    ),
    "everything": (
        "Agent",
        "25.4.2",
        {
            "engine": {"type": "memory"},
            "limits": {"max_hops": 3},
            "mcp_servers": {
                "files": {
                    "type": "stdio",
                    "command": "npx",
                    "args": ["-y", "x"],
                    "env": {"API_TOKEN": TOKEN, "LANG": "C"},
                },
                "search": {
                    "type": "http",
                    "url": "https://example.org/mcp",
                    "headers": {"Authorization": "Bearer ${SEARCH_TOKEN}", "X-Shelf": "b"},
                    "tools": ["find_book"],
                    "call_timeout_s": 5,
                    "required": True,
                },
                "shelf": {"type": "stdio", "command": "shelf", "args": ["--token", "${SEARCH_TOKEN}"]},
            },
            "agents": {
                "helper": {
                    "model": {
                        "type": "litellm",
                        "name": "openai/my-model",
                        "api_base": "http://127.0.0.1:9000/v1",
                        "api_key": "${KEY}",
                    },
                    "model_settings": {"timeout_s": 20, "stop": ["END"]},
                    "instructions": ["You cost $${5}.", "Mind {{ '{{' }}two braces}} and {{ '{%' }}"],
                    "tools": [
                        "spec_tools:word_count",
                        {
                            "type": "function",
                            "function": "spec_tools:search",
                            "name": "look",
                            "timeout_s": 3,
                            "approval": "always",
                        },
                    ],
                    "mcp_servers": ["files", "search", {"type": "http", "url": "https://example.org/own"}],
                    "knowledge": [
                        {"type": "text", "content": "a"},
                        {"type": "resource", "server": "shelf", "uri": "x:/"},
                    ],
                    "output": {
                        "type": "object",
                        "properties": {
                            "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}},
                            "n": {"type": "integer"},
                        },
                        "required": ["tags"],
                        "$defs": {"Tag": {"title": "A tag", "type": "string"}},
                    },
                    "retries": {"attempts": 5},
                    "limits": {"cost_usd": 0.5},
                    "triggers": [
                        {
                            "type": "webhook",
                            "name": "in",
                            "auth": {"type": "hmac", "secret": "${HOOK}"},
                            "filter": "1 < 2",
                        }
                    ],
                    "sinks": [{"type": "file", "path": "out/{{ event.id }}.md"}],
                }
            },
        },
    ),
    "parts": (
        "Agent",
        "26.1.2",
        {
            "agents": {
                "helper": {
                    "model": "demo",
                    "instructions": {
                        "guidance": {"role": "a critic of {{ event.data.work }}", "rules": ["be kind", "be short"]},
                        "directive": "Judge: {{ message }}",
                        "constraints": {"max_words": 50},
                    },
                }
            }
        },
    ),
    "reasoning": (
        "Agent",
        "26.1.2",
        {
            "agents": {
                "helper": {
                    "model": {
                        "type": "fallback",
                        "models": ["groq/x", {"type": "litellm", "name": "openai/y", "api_key": KEY}],
                    },
                    "instructions": {"prompt": "RootCauseAnalyzer", "depth": "thorough"},
                }
            }
        },
    ),
    "manager": (
        "ManagerWorkers",
        "26.1.2",
        {
            "agents": {
                "boss": {
                    "model": "demo",
                    "tools": [
                        {"type": "agent", "name": "writer"},
                        {"type": "agent", "name": "desk", "description": "Reads", "timeout_s": 9},
                    ],
                },
                "writer": {"model": "demo"},
                "reader": {"model": "demo"},
            },
            "teams": {"desk": {"mode": "sequential", "members": ["reader", "reader"], "description": "Two readers"}},
        },
    ),
    "swarm": (
        "Swarm",
        "25.4.2",
        {
            "agents": {
                "front": {"model": "openai/gpt-4o-mini", "tools": [{"type": "agent", "name": "back"}]},
                "back": {"model": "openai/gpt-4o-mini", "tools": [{"type": "agent", "name": "front"}]},
            }
        },
    ),
    "chain": (
        "Flow",
        "25.4.1",
        {
            "agents": {
                "one": {
                    "model": "openai/gpt-4o-mini",
                    "connections": ["two"],
                    "instructions": "For {{ event.data.user }}",
                },
                "two": {"model": "openai/gpt-4o-mini", "connections": [{"to": "three", "wait": True}]},
                "three": {
                    "model": "openai/gpt-4o-mini",
                    "output": {"type": "object", "properties": {"a": {"type": "string"}}},
                },
            }
        },
    ),
    "team": (
        "Flow",
        "25.4.1",
        {
            "agents": {
                "one": {"model": "openai/gpt-4o-mini", "instructions": "For {{ event.data.user }}"},
                "two": {"model": "openai/gpt-4o-mini", "instructions": "Also for {{ event.data.user }}"},
            },
            "teams": {
                "desk": {
                    "mode": "sequential",
                    "members": ["one", "two", "one"],
                    "description": "A desk",
                    "concurrency": 2,
                }
            },
        },
    ),
}
"""By name: the component that comes out, the lowest version that can express it, and the manifest."""


def write_tools(folder: Path) -> None:
    """Put the module of tools into a folder."""
    (folder / "spec_tools.py").write_text(TOOLS)


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a document."""
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        yield mapping
        for item in mapping.values():
            yield from parts(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from parts(item)


def references(document: Mapping[str, Any]) -> list[str]:
    """Return the secrets a document refers to."""
    shared = document.get("$referenced_components", {})
    found = (part["$component_ref"] for part in parts(document) if "$component_ref" in part)
    return [name for name in dict.fromkeys(found) if name not in shared]


def stand_ins(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for every secret a document refers to, of the type its field has."""
    kinds: dict[str, Any] = {"env": {"A": "x"}, "sensitive_headers": {"A": "x"}, "args": ["x"]}
    return {name: kinds.get(name.rpartition(".")[2], "x") for name in references(document)}
