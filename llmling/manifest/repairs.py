"""What to write instead of a value of the wrong kind."""

from __future__ import annotations

import re

from llmling.manifest.nodes import MappingNode, Node, ScalarNode, core_value

_MAIN_KEYS = {
    "inbox": "size",
    "retries": "attempts",
    "redelivery": "attempts",
    "budget": "usd_per_day",
    "plan": "every",
    "context": "window_tokens",
}
"""The key that a bare number is most likely meant for."""
_NUMBERS = frozenset({"number_type", "float_type", "float_parsing", "int_type", "int_parsing"})
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|sec|m|min|h|d)")
_YES, _NO = frozenset({"yes", "on", "1"}), frozenset({"no", "off", "0"})


def repair(kind: str, name: str, node: Node) -> str:
    """Return what to write for `name`, where pydantic found an error of `kind`, or nothing when nobody can tell."""
    if not isinstance(node, ScalarNode):
        typed = kind == "list_type" and isinstance(node, MappingNode) and "type" in node.entries
        return 'begin each entry with "- "' if typed else ""
    if node.variables:
        return ""
    if node.plain and node.value is None:
        return "it is empty; give it a value or remove the key"
    value = core_value(node.text)
    if kind in {"number_type", "bool_type"} and isinstance(value, int | float):
        return f"write it without quotes: {node.text}" if not node.plain else ""
    if kind in _NUMBERS:
        return _seconds(name, node.text)
    if kind == "string_type" and node.text:
        return f'put it in quotes: "{node.text}"'
    if kind == "list_type":
        text = node.text if node.plain else f'"{node.text}"'
        return f"write [{text}]" if "\n" not in text else "write a list"
    if kind == "bool_type" and (word := node.text.lower()) in _YES | _NO:
        return f"write {'true' if word in _YES else 'false'}"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return _mapping(name, node, isinstance(value, int | float) and node.plain)
    return ""


def _seconds(name: str, text: str) -> str:
    """Translate `5m` where seconds are wanted."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not name.endswith("_s"):
        return ""
    return f"write seconds: {float(match[1]) * _SECONDS[match[2]]:g}"


def _mapping(name: str, node: ScalarNode, number: bool) -> str:
    if number:
        key = _MAIN_KEYS.get(name)
        return f"write {{{key}: {node.text}}}" if key else ""
    if name == "auth":
        return "write {type: none}" if node.text == "none" else "write {type: bearer, token: ...}"
    if not name.startswith(("triggers[", "sinks[")) or "\n" in node.text:
        return ""
    if node.text.isidentifier():
        return f"write {{type: {node.text}, ...}}"
    if name.startswith("triggers["):
        return f'write {{type: file, paths: ["{node.text}"]}}'
    kind, key = ("http", "url") if "://" in node.text else ("file", "path")
    return f'write {{type: {kind}, {key}: "{node.text}"}}'
