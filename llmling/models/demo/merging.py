"""Schemas that ask for what two schemas ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeAlias, cast

Schema: TypeAlias = Mapping[str, Any]

_BY_KEYWORD = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "contains", "uniqueItems"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def types(node: Schema) -> list[str]:
    """Return the types a schema allows, the most telling first and null last; guessed from its keywords if unnamed."""
    kinds: Any = node.get("type")
    if isinstance(kinds, str):
        return [kinds]
    if isinstance(kinds, list):
        return sorted(cast("list[str]", kinds), key=lambda kind: kind == "null")
    guessed = [kind for kind, words in _BY_KEYWORD.items() if any(word in node for word in words)]
    return [*guessed, "string", "object", "number", "boolean", "array", "null"]


def merged(one: Schema, two: Schema) -> dict[str, Any]:
    """Return a schema that asks for what both ask for, as far as one schema can; the caller checks what it makes."""
    node = dict(one)
    for key, value in two.items():
        if key not in node or node[key] == value:
            node[key] = value
        elif key in _RULES:
            node[key] = _RULES[key](node[key], value)
    return node


def _schemas(one: Schema, two: Schema) -> dict[str, Any]:
    both = {**one, **two}
    return {key: {"allOf": [one[key], two[key]]} if key in one and key in two else both[key] for key in both}


def _types(one: Any, two: Any) -> list[str]:
    left, right = types({"type": one}), types({"type": two})
    kinds = [kind for kind in left if kind in right or (kind == "integer" and "number" in right)]
    return kinds + [kind for kind in right if kind == "integer" and "number" in left and kind not in kinds]


def _multiple(one: Any, two: Any) -> float:
    left, right = Fraction(str(one)), Fraction(str(two))
    common = Fraction(math.lcm(left.numerator, right.numerator), math.gcd(left.denominator, right.denominator))
    return int(common) if common.denominator == 1 else float(common)


def _products(one: list[Any], two: list[Any]) -> list[Any]:
    return [{"allOf": [left, right]} for left in one for right in two]


def _both(one: Any, two: Any) -> Any:
    if one is False or two is False:
        return False
    return {"allOf": [one, two]}


_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "properties": _schemas,
    "patternProperties": _schemas,
    "$defs": _schemas,
    "dependentRequired": lambda one, two: {**one, **two},
    "required": lambda one, two: list(dict.fromkeys([*one, *two])),
    "enum": lambda one, two: [option for option in one if option in two],
    "type": _types,
    "multipleOf": _multiple,
    "anyOf": _products,
    "oneOf": _products,
    "items": _both,
    "additionalProperties": _both,
    "propertyNames": _both,
    "not": lambda one, two: {"anyOf": [one, two]},
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    "uniqueItems": lambda one, two: one or two,
}
