"""Inputs and outputs: a JSON Schema of an object as the list of properties Agent Spec writes, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

_REFUSED = re.compile(r"[.,{} \n'\"]")
_VALUES = frozenset({"const", "default", "enum", "examples"})


class Unspeakable(ValueError):
    """Something of ours that Agent Spec has no word for; the text says what."""


def properties_of(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the properties of an object's schema, or one property for a schema of anything else.

    Raises:
        Unspeakable: It refers to itself, or a property has a name no property may have.
    """
    flat = _inlined(schema, schema, ())
    if flat.get("type") != "object" or not isinstance(flat.get("properties"), Mapping):
        flat.pop("$defs", None)
        return [{"title": "output", **flat}]
    return [_property(name, shape) for name, shape in flat["properties"].items()]


def schema_of(properties: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the schema of an object with these properties; those without a default are required."""
    shapes = {str(item["title"]): {key: value for key, value in item.items() if key != "title"} for item in properties}
    required = [name for name, shape in shapes.items() if "default" not in shape]
    return {"type": "object", "properties": shapes, **({"required": required} if required else {})}


def _property(name: str, shape: Any) -> dict[str, Any]:
    if _REFUSED.search(name) or not name:
        raise Unspeakable(f"a property cannot be called {name!r}: Agent Spec allows no dots, commas, quotes and spaces")
    shown = cast("dict[str, Any]", shape) if isinstance(shape, Mapping) else {}
    return {"title": name, **{key: value for key, value in shown.items() if key != "title"}}


def _inlined(node: Any, root: Mapping[str, Any], outer: tuple[str, ...]) -> Any:
    """Return a schema without `$ref`, and without titles a property may not have."""
    if isinstance(node, Mapping):
        schema = cast("Mapping[str, Any]", node)
        if isinstance(name := schema.get("$ref"), str):
            if name in outer:
                raise Unspeakable(f"the schema refers to itself at {name}")
            found: Any = root
            for key in name.removeprefix("#/").split("/"):
                found = found.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            if not isinstance(found, Mapping):
                raise Unspeakable(f"the schema refers to {name}, which is not in it")
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return _inlined({**found, **rest}, root, (*outer, name))
        return {
            key: value if key in _VALUES else _inlined(value, root, outer)
            for key, value in schema.items()
            if key not in {"$defs", "definitions"} and not _title(key, value)
        }
    if isinstance(node, list):
        return [_inlined(item, root, outer) for item in cast("list[Any]", node)]
    return node


def _title(key: str, value: Any) -> bool:
    return key == "title" and isinstance(value, str) and _REFUSED.search(value) is not None
