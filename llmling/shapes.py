"""What a JSON Schema wants of a person, in words, and the answers people give to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

_DEEPEST = 8


def choices(schema: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]] | None:
    """Return the only key an object must have and the texts it may hold, when one of those says it all; else None."""
    if schema is None or schema.get("type") != "object":
        return None
    required: list[str] = schema.get("required", [])
    if len(required) != 1:
        return None
    name = required[0]
    values: Any = schema.get("properties", {}).get(name)
    texts: Any = cast("dict[str, Any]", values).get("enum") if isinstance(values, dict) else None
    if not texts or not all(isinstance(text, str) for text in texts):
        return None
    return name, tuple(texts)


def filled(schema: Mapping[str, Any] | None, answer: str) -> str:
    """Return the JSON of an answer that is a bare choice, any other answer as it is."""
    found = choices(schema)
    if found is None or answer.strip() not in found[1]:
        return answer
    return json.dumps({found[0]: answer.strip()}, ensure_ascii=False)


def wanted(schema: Mapping[str, Any] | None) -> str:
    """Return what to answer: `one of: a, b`, JSON with an example, or nothing when any text will do."""
    if schema is None:
        return ""
    if (found := choices(schema)) is not None:
        return f"one of: {', '.join(found[1])}"
    return f"JSON such as {json.dumps(example(schema), ensure_ascii=False)}"


def example(schema: Mapping[str, Any]) -> Any:
    """Return a value that shows the shape; bounds and patterns of its texts and numbers are the schema's matter."""
    return _example(schema, schema, 0)


def _example(node: Any, root: Mapping[str, Any], depth: int) -> Any:
    node = _target(node, root)
    if not isinstance(node, dict) or depth > _DEEPEST:
        return "..."
    known = cast("dict[str, Any]", node)
    if "const" in known:
        return known["const"]
    for key in ("enum", "examples"):
        if known.get(key):
            return known[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if known.get(key):
            return _example(known[key][0], root, depth + 1)
    kind: Any = known.get("type", "object" if "properties" in known else None)
    if isinstance(kind, list):
        kind = cast("list[str]", kind)[0]
    if kind == "object":
        properties = known.get("properties", {})
        return {name: _example(properties.get(name), root, depth + 1) for name in known.get("required") or properties}
    if kind == "array":
        return [_example(known.get("items"), root, depth + 1)]
    plain = {"boolean": True, "null": None, "integer": known.get("minimum", 1), "number": known.get("minimum", 1.5)}
    return plain.get(kind, "...")


def _target(node: Any, root: Mapping[str, Any]) -> Any:
    """Follow one reference into the schema itself."""
    if not isinstance(node, dict) or "$ref" not in node:
        return cast("Any", node)
    found: Any = root
    for part in str(cast("dict[str, Any]", node)["$ref"]).removeprefix("#/").split("/"):
        found = cast("Mapping[str, Any]", found).get(part) if isinstance(found, Mapping) else None
    return found
