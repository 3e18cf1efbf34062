"""Every schema of the pack gets a valid value, formats included."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llmling.models.demo.instance import Unsatisfiable, instance
from llmling.models.demo.material import Material

TEXT = "Order 42 arrived late. Ann (ann@example.org) wants 3 crates of red paint by 2026-03-01. See docs/orders.md!"


def obj(required: bool = True, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(properties)} if required else schema


STRING: dict[str, Any] = {"type": "string"}
NODE = {"type": "object", "properties": {"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}

PACK: dict[str, Any] = {
    "any": {},
    "string": STRING,
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "object without properties": {"type": "object"},
    "array without items": {"type": "array"},
    "object": obj(title=STRING, summary=STRING, count={"type": "integer"}),
    "optional": obj(False, title=STRING, done={"type": "boolean"}),
    "nested": obj(order=obj(id={"type": "integer"}, buyer=obj(name=STRING, email={**STRING, "format": "email"}))),
    "enum": {"enum": ["low", "mid", "high"]},
    "enum with type": {"type": "string", "enum": ["a", 1, "red"]},
    "enum of mixed": {"enum": [None, 3, {"a": 1}]},
    "const": obj(kind={"const": "order"}, version={"const": 2}),
    "array of strings": {"type": "array", "items": STRING, "minItems": 3},
    "array bounds": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
    "unique": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True},
    "unique strings": {"type": "array", "items": STRING, "minItems": 12, "uniqueItems": True},
    "unique integers": {"type": "array", "items": {"type": "integer"}, "minItems": 5, "uniqueItems": True},
    "tuple": {"type": "array", "prefixItems": [STRING, {"type": "integer"}], "items": False, "minItems": 2},
    "contains": {"type": "array", "contains": {"const": 7}, "minItems": 1},
    "empty array": {"type": "array", "maxItems": 0},
    "minimum": {"type": "integer", "minimum": 100},
    "maximum": {"type": "integer", "maximum": -5},
    "between": {"type": "number", "minimum": 0.1, "maximum": 0.2},
    "exclusive": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "exclusive integers": {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 50, "maximum": 60},
    "multiple of a fraction": {"type": "number", "multipleOf": 0.25, "exclusiveMinimum": 1},
    "length": {"type": "string", "minLength": 50, "maxLength": 60},
    "short": {"type": "string", "maxLength": 3},
    "long": {"type": "string", "minLength": 500},
    "exact length": {"type": "string", "minLength": 8, "maxLength": 8},
    **{
        f"format {name}": {"type": "string", "format": name}
        for name in ("date", "date-time", "time", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "regex")
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{3}-\\d{4}$"},
    "pattern of words": {"type": "string", "pattern": r"^\w+@\w+\.(com|org)$"},
    "pattern with length": {"type": "string", "pattern": "^[a-f0-9]+$", "minLength": 40, "maxLength": 40},
    "pattern negated": {"type": "string", "pattern": "^[^a-z\\s]{2,}$"},
    "pattern group": {"type": "string", "pattern": r"^(?:v\d+\.)?\d+(?:-(alpha|beta))?$"},
    "anyOf": {"anyOf": [{"type": "integer", "minimum": 1000}, {"type": "null"}]},
    "nullable": obj(note={"type": ["string", "null"]}, due={"anyOf": [{"type": "null"}, {"format": "date", **STRING}]}),
    "oneOf": {"oneOf": [obj(cat=STRING), obj(dog=STRING)]},
    "oneOf overlapping": {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    "tagged union": {
        "oneOf": [obj(kind={"const": "a"}, x={"type": "integer"}), obj(kind={"const": "b"}, y={"type": "boolean"})]
    },
    "allOf": {"allOf": [obj(False, a=STRING) | {"additionalProperties": True}, {"required": ["a", "b"]}]},
    "allOf bounds": {"allOf": [{"type": "number", "minimum": 3}, {"type": "integer", "maximum": 4, "multipleOf": 2}]},
    "anyOf twice": {"allOf": [{"anyOf": [{"const": 1}, {"const": 2}]}, {"anyOf": [{"const": 2}, {"const": 3}]}]},
    "ref": {"$defs": {"word": {"type": "string", "minLength": 2}}, **obj(a={"$ref": "#/$defs/word"})},
    "ref with siblings": {"$defs": {"n": {"type": "integer"}}, **obj(a={"$ref": "#/$defs/n", "minimum": 90})},
    "definitions": {"definitions": {"a b": {"type": "integer"}}, **obj(x={"$ref": "#/definitions/a%20b"})},
    "recursive": {"$defs": {"n": {**NODE, "required": ["name", "children"]}}, "$ref": "#/$defs/n"},
    "recursive list": {"$defs": {"n": {"anyOf": [STRING, {"type": "array", "items": {"$ref": "#/$defs/n"}}]}},
                       "type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1},
    "recursive optional": {"$defs": {"n": obj(False, next={"$ref": "#/$defs/n"}, value=STRING)}, "$ref": "#/$defs/n"},
    "root reference": obj(False, parent={"$ref": "#"}, name=STRING),
    "required without property": {"type": "object", "required": ["free"]},
    "additional": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
    "pattern properties": {
        "type": "object", "patternProperties": {"^n_[a-z]$": {"type": "integer"}},
        "additionalProperties": False, "minProperties": 1,
    },
    "property names": {"type": "object", "propertyNames": {"pattern": "^[A-Z]+$"}, "minProperties": 2},
    "maximum of properties": {**obj(False, a=STRING, b=STRING, c=STRING), "maxProperties": 1},
    "dependent": {**obj(False, card=STRING, address=STRING), "dependentRequired": {"card": ["address"]}},
    "if then else": {
        "type": "object", "properties": {"kind": {"enum": ["x", "y"]}}, "required": ["kind"],
        "if": {"properties": {"kind": {"const": "x"}}}, "then": {"required": ["ex"]}, "else": {"required": ["why"]},
    },
    "not": {"type": "string", "not": {"enum": ["", "demo"]}},
    "not a type": {"not": {"type": "string"}},
    "no type but properties": {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "types": {"type": ["integer", "string"]},
    "true and false": obj(False, yes=True) | {"properties": {"yes": True, "no": False}},
    "deep": obj(a=obj(b=obj(c=obj(d=obj(e=obj(f=obj(g={"type": "integer"}))))))),
}  # fmt: skip


@pytest.mark.parametrize("schema", PACK.values(), ids=PACK.keys())
@pytest.mark.parametrize("text", [TEXT, "", "…", "x" * 3000], ids=["prose", "empty", "no words", "one word"])
def test_a_value_is_valid_with_its_formats(schema: dict[str, Any], text: str) -> None:
    value = instance(schema, Material(text), mark="[demo] ")
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)  # pyright: ignore[reportUnknownMemberType]


def test_the_pack_has_at_least_fifty_schemas() -> None:
    assert len(PACK) >= 50


def test_the_same_text_gives_the_same_value() -> None:
    schema = obj(title=STRING, amounts={"type": "array", "items": {"type": "number"}, "minItems": 3})
    assert instance(schema, Material(TEXT)) == instance(schema, Material(TEXT))


def test_numbers_of_an_object_are_those_of_the_text_in_order() -> None:
    schema = obj(a={"type": "integer"}, name=STRING, b={"type": "number"}, c={"type": "integer"})
    value = instance(schema, Material("Add 2 and 3."))
    assert (value["a"], value["b"], value["c"]) == (2, 3, 2)


def test_values_come_from_the_text() -> None:
    schema = obj(text=STRING, email=STRING, path=STRING, count={"type": "integer"}, color={"enum": ["blue", "red"]})
    assert instance(schema, Material(TEXT)) == {
        "text": TEXT,
        "email": "ann@example.org",
        "path": "docs/orders.md",
        "count": 42,
        "color": "red",
    }


@pytest.mark.parametrize("schema", [False, {"type": "integer", "minimum": 2, "maximum": 1}, {"enum": []}])
def test_a_schema_without_values_is_said_so(schema: Any) -> None:
    with pytest.raises(Unsatisfiable):
        instance(schema, Material(TEXT))
