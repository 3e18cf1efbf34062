"""The JSON Schema of the manifest, for editors: hover texts, shorthands, `x-` keys, variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmling.manifest.root import Manifest

_VARIABLE = "Variable"
_SCALARS = frozenset({"integer", "number", "boolean"})


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema (2020-12) that accepts what `load` accepts, as far as a schema can tell."""
    schema = Manifest.model_json_schema(mode="validation")
    branches = _of_unions(schema)
    definitions: dict[str, Any] = schema.pop("$defs")
    schema["properties"]["defaults"] = {
        "$ref": "#/$defs/AgentConfig",
        "description": schema["properties"]["defaults"]["description"],
    }
    for name in branches:
        # Its model has a default, so pydantic does not ask for it; the union does.
        if name != "SqliteEngineConfig":
            definitions[name].setdefault("required", []).insert(0, "type")
    for definition in (schema, *definitions.values()):
        _describe(definition)
        definition["properties"] = {
            name: _with_variables(item) for name, item in definition.get("properties", {}).items()
        }
    definitions[_VARIABLE] = {
        "type": "string",
        "pattern": r"\$\{[A-Za-z_]",
        "description": "Filled in from the environment: ${NAME} or ${NAME:-default}.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _of_unions(schema: dict[str, Any]) -> set[str]:
    """Return the definitions that are branches of a union by `type`; an engine without one is sqlite."""
    found: set[str] = set()
    todo: list[Any] = [schema]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            part = cast("dict[str, Any]", item)
            union: dict[str, str] = part.get("discriminator", {}).get("mapping", {})
            found.update(reference.rpartition("/")[2] for reference in union.values())
            todo.extend(part.values())
        elif isinstance(item, list):
            todo.extend(cast("list[Any]", item))
    return found


def _describe(definition: dict[str, Any]) -> None:
    kind = definition.get("properties", {}).get("type")
    if kind is not None and "description" not in kind:
        text = str(definition.get("description", "")).split("\n\n")[0]
        kind["description"] = f"`{kind.get('const')}`: {text}"


def _with_variables(schema: Any) -> Any:
    """Let `${NAME}` stand where a number, a truth, a choice or a text of a given form is asked for."""
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():  # pyright: ignore[reportUnknownVariableType]
        if key in {"items", "additionalProperties"}:
            result[key] = _with_variables(value)
        elif key in {"anyOf", "oneOf"}:
            result[key] = [_with_variables(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        else:
            result[str(key)] = value  # pyright: ignore[reportUnknownArgumentType]
    narrow = result.get("type") in _SCALARS or (
        result.get("type") == "string" and bool(result.keys() & {"enum", "pattern", "const"})
    )
    if not narrow or "const" in result or "format" in result:
        return result
    outer = {name: result.pop(name) for name in ("description", "title", "default") if name in result}
    return {**outer, "anyOf": [result, {"$ref": f"#/$defs/{_VARIABLE}"}]}
