"""Makes a value that is valid for a JSON Schema, out of the words of a text; the same text gives the same value."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, TypeAlias, cast
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from llmling.models.demo.material import FORMATS, Material
from llmling.models.demo.merging import merged, types
from llmling.models.demo.patterns import matching

Schema: TypeAlias = Mapping[str, Any]

_DEEP = 4
"""Levels below which optional properties and items are left out, so that schemas that contain themselves end."""
_DEEPEST = 40
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


class Unsatisfiable(ValueError):
    """No value could be made for a schema."""


def instance(schema: Schema, material: Material, *, mark: str = "") -> Any:
    """Return a value for `schema`; `mark` is put before texts the schema leaves free.

    Raises:
        Unsatisfiable: No valid value was found; the schema may have none.
    """
    kind = cast("Any", validator_for)(schema, default=Draft202012Validator)
    validator: Any = kind(schema)
    for variant in range(6):
        maker = _Maker(schema, validator, material, mark, variant)
        try:
            value = maker.make(schema, "", 0)
        except Unsatisfiable:
            continue
        if validator.is_valid(value):
            return value
    raise Unsatisfiable(f"no value found for the schema {str(schema)[:200]}")


class _Maker:
    """One attempt; `variant` 0 fills in everything, later ones only what is required, with other values."""

    def __init__(self, root: Schema, validator: Any, material: Material, mark: str, variant: int) -> None:
        self._root = root
        self._validator = validator
        self._material = material
        self._mark = mark
        self._variant = variant
        self._pick = variant + material.turn
        self._number_at = 0

    def make(self, schema: Any, name: str, depth: int) -> Any:
        if schema is False or depth > _DEEPEST:
            raise Unsatisfiable(name)
        node = self._flat({} if schema is True else schema)
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return self._choose(node, name)
        for key in ("oneOf", "anyOf"):
            if key in node:
                return self._branch(node, key, name, depth)
        if "if" in node:
            return self._conditional(node, name, depth)
        return self._typed(node, name, depth)

    def _flat(self, schema: Schema) -> dict[str, Any]:
        """Return the schema with its references and `allOf` merged into it."""
        node = dict(schema)
        for _ in range(_DEEPEST):
            if "$ref" in node:
                node = merged(self._resolve(node.pop("$ref")), node)
            elif "allOf" in node:
                for part in node.pop("allOf"):
                    node = merged(node, self._flat(part))
            else:
                return node
        raise Unsatisfiable("a reference to itself")

    def _resolve(self, reference: str) -> Schema:
        place: Any = self._root
        if not reference.startswith("#"):
            raise Unsatisfiable(reference)
        for step in reference[1:].split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                place = place[int(key) if isinstance(place, list) else key]
            except (LookupError, ValueError):
                raise Unsatisfiable(reference) from None
        return cast("Schema", {} if place is True else place)

    def _valid(self, node: Schema, value: Any) -> bool:
        return bool(self._validator.evolve(schema=node).is_valid(value))

    def _choose(self, node: Schema, name: str) -> Any:
        rest = {key: value for key, value in node.items() if key != "enum"}
        options = [option for option in node["enum"] if self._valid(rest, option)]
        if not options:
            raise Unsatisfiable(name)
        named = [option for option in options if isinstance(option, str) and self._material.mentions(option)]
        real = [option for option in options if option is not None]
        candidates = named or real or options
        return candidates[self._pick % len(candidates)]

    def _branch(self, node: Schema, key: str, name: str, depth: int) -> Any:
        rest = {word: value for word, value in node.items() if word != key}
        branches = sorted(node[key], key=lambda branch: branch == {"type": "null"})
        turn = self._pick % len(branches)
        for branch in branches[turn:] + branches[:turn]:
            with contextlib.suppress(Unsatisfiable):
                value = self.make(merged(rest, self._flat(branch)) if branch is not True else rest, name, depth + 1)
                if self._valid(node, value):
                    return value
        raise Unsatisfiable(name)

    def _conditional(self, node: Schema, name: str, depth: int) -> Any:
        rest = {word: value for word, value in node.items() if word not in {"if", "then", "else"}}
        both = merged(merged(rest, self._flat(node["if"])), self._flat(node.get("then", {})))
        for candidate in (both, merged(rest, self._flat(node.get("else", {})))):
            with contextlib.suppress(Unsatisfiable):
                value = self.make(candidate, name, depth + 1)
                if self._valid(node, value):
                    return value
        raise Unsatisfiable(name)

    def _typed(self, node: Schema, name: str, depth: int) -> Any:
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(node, depth),
            "array": lambda: self._array(node, name, depth),
            "string": lambda: self._string(node, name),
            "integer": lambda: self._number(node, name, whole=True),
            "number": lambda: self._number(node, name, whole=False),
            "boolean": lambda: self._pick % 2 == 0,
            "null": lambda: None,
        }
        for kind in types(node):
            with contextlib.suppress(Unsatisfiable, KeyError):
                value = makers[kind]()
                if "not" not in node or self._valid({"not": node["not"]}, value):
                    return value
        raise Unsatisfiable(name)

    def _object(self, node: Schema, depth: int) -> dict[str, Any]:
        properties: Schema = node.get("properties", {})
        required = list(node.get("required", ()))
        most = node.get("maxProperties", math.inf)
        made: dict[str, Any] = {}
        numbers = 0
        for key in required:
            schema = self._schema_of(node, key)
            # `add(a, b)` of "Add 2 and 3." gets both.
            self._number_at = numbers
            numbers += isinstance(schema, dict) and cast("Schema", schema).get("type") in ("integer", "number")
            made[key] = self.make(schema, key, depth + 1)
        self._number_at = 0
        if self._variant == 0 and depth < _DEEP:
            for key in properties:
                if key not in made and len(made) < most:
                    with contextlib.suppress(Unsatisfiable):
                        made[key] = self.make(properties[key], key, depth + 1)
        self._add_dependent(node, made, depth)
        for key in self._more_keys(node):
            if len(made) >= node.get("minProperties", 0):
                break
            if key not in made:
                made[key] = self.make(self._schema_of(node, key), key, depth + 1)
        return {key: made[key] for key in (*properties, *made) if key in made}

    def _add_dependent(self, node: Schema, made: dict[str, Any], depth: int) -> None:
        pending = list(made)
        while pending:
            key = pending.pop()
            for needed in node.get("dependentRequired", {}).get(key, ()):
                if needed not in made:
                    made[needed] = self.make(self._schema_of(node, needed), needed, depth + 1)
                    pending.append(needed)

    def _schema_of(self, node: Schema, key: str) -> Any:
        if key in node.get("properties", {}):
            return node["properties"][key]
        for pattern, schema in node.get("patternProperties", {}).items():
            if self._valid({"pattern": pattern}, key):
                return schema
        return node.get("additionalProperties", True)

    def _more_keys(self, node: Schema) -> Iterator[str]:
        yield from node.get("properties", {})
        for pattern in node.get("patternProperties", {}):
            yield from matching(pattern)
        if node.get("additionalProperties", True) is not False:
            names = node.get("propertyNames", {})
            if "enum" in names:
                yield from names["enum"]
            elif "pattern" in names:
                yield from matching(names["pattern"])
            for number in range(1, 100):
                yield f"key{number}"

    def _array(self, node: Schema, name: str, depth: int) -> list[Any]:
        first = node.get("prefixItems", node["items"] if isinstance(node.get("items"), list) else [])
        rest = node.get("items", True) if not isinstance(node.get("items"), list) else node.get("additionalItems", True)
        least, most = node.get("minItems", 0), node.get("maxItems", math.inf)
        wanted = max(least, min(most, len(first) or (0 if depth >= _DEEP or self._variant > 2 else 1)))
        made: list[Any] = []
        if "contains" in node:
            first = [*first, *[node["contains"]] * node.get("minContains", 1)]
            wanted = max(wanted, len(first))
        for index in range(4 * wanted + 20):
            if len(made) >= wanted:
                break
            source = first[index] if index < len(first) else rest
            maker = _Maker(self._root, self._validator, self._material.turned(index), self._mark, self._variant)
            try:
                value = maker.make(source, name, depth + 1)
            except Unsatisfiable:
                if len(made) < least:
                    raise
                break
            if node.get("uniqueItems") and value in made:
                continue
            made.append(value)
        return made

    def _string(self, node: Schema, name: str) -> str:
        least, most = node.get("minLength", 0), node.get("maxLength", math.inf)
        if "pattern" in node:
            for text in matching(node["pattern"], least):
                if least <= len(text) <= most and self._valid(node, text):
                    return text
            raise Unsatisfiable(name)
        if node.get("format") in FORMATS:
            return self._material.formatted(node["format"])
        text = self._material.text_for(name, self._variant)
        if self._mark and len(text) + len(self._mark) <= most:
            text = self._mark + text
        while len(text) < least:
            text += " " + (self._material.words[0] if self._material.words else "demo")
        return text if len(text) <= most else text[: int(most)].strip().ljust(least, "x")

    def _number(self, node: Schema, name: str, *, whole: bool) -> float:
        low, high = _bound(node, "minimum", "exclusiveMinimum", 1), _bound(node, "maximum", "exclusiveMaximum", -1)
        step = Fraction(str(node.get("multipleOf", 1))) if whole or "multipleOf" in node else None
        if whole and step is not None and step.denominator != 1:
            step = Fraction(step.numerator)
        found, turn = self._material.numbers, self._material.turn
        first = self._number_at % max(1, len(found))
        wishes: list[Fraction | float] = [*found[first:], *found[:first], 1 + self._variant, 0]
        if self._variant % 2 and not whole:
            wishes.insert(0, self._variant + 0.5)
        if turn >= max(1, len(found)):
            wishes.insert(0, (low if low is not None else 0 if high is None else high - 2 * turn) + turn * (step or 1))
        strict = {key: node[key] for key in _BOUNDS if key in node}
        for wish in map(Fraction, map(str, wishes)):
            for value in _near(wish, low, high, step):
                number = int(value) if value.denominator == 1 else float(value)
                if self._valid({"type": "integer" if whole else "number", **strict}, number):
                    return number
        raise Unsatisfiable(name)


def _bound(node: Schema, key: str, exclusive: str, inward: int) -> Fraction | None:
    limits = [Fraction(str(node[word])) for word in (key, exclusive) if not isinstance(node.get(word, True), bool)]
    return None if not limits else (max(limits) if inward > 0 else min(limits))


def _near(wish: Fraction, low: Fraction | None, high: Fraction | None, step: Fraction | None) -> Iterator[Fraction]:
    if low is not None and wish < low:
        wish = low
    if high is not None and wish > high:
        wish = high
    if step is not None:
        down = math.floor(wish / step)
        yield from ((down + shift) * step for shift in (0, 1, -1))
        return
    yield wish
    gap = (high - low) / 2 if low is not None and high is not None else Fraction(1, 2)
    yield from (wish + gap, wish - gap)
