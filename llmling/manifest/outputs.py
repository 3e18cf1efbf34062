"""Whether the `output:` of an agent is a JSON Schema, complete in itself; loaded for the first one there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from jsonschema.exceptions import ValidationError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

_VALUES = frozenset({"const", "default", "enum", "examples"})


class SchemaInvalid(ValueError):
    """A JSON Schema cannot be used; `path` leads to the value that is wrong."""

    def __init__(self, message: str, path: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.path = path


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check a JSON Schema and that everything it refers to is in it.

    Raises:
        SchemaInvalid: It is not one, or it refers to something outside itself.
    """
    for fault in faults(schema):
        raise fault


def faults(schema: Mapping[str, Any]) -> Iterator[SchemaInvalid]:
    """Yield every mistake of a JSON Schema; what it refers to is only looked at when the rest is right."""
    kind = validator_for(schema, default=Draft202012Validator)
    found: dict[tuple[str | int, ...], ValidationError] = {}
    for error in kind(kind.META_SCHEMA).iter_errors(dict(schema)):
        found.setdefault(tuple(error.absolute_path), error)
    for path, error in found.items():
        yield SchemaInvalid(error.message, path)
    if found:
        return
    # An empty registry of our own: the default one would fetch `$ref` addresses from the network.
    registry: Registry[Any] = Registry()
    resolver = registry.resolver_with_root(Resource.from_contents(schema, default_specification=DRAFT202012))
    for path, reference in _references(schema, ()):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            message = (
                f"the schema refers to {reference!r}, which is not in it; put it under $defs and write #/$defs/<name>"
            )
            yield SchemaInvalid(message, path)


def _references(node: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(node, Mapping):
        for key, value in cast("Mapping[str, object]", node).items():
            if key == "$ref" and isinstance(value, str):
                yield (*path, key), value
            # A nested $id starts a document of its own, and values are no schemas: the validator knows better there.
            elif key not in _VALUES and not (isinstance(value, Mapping) and "$id" in value):
                yield from _references(cast("object", value), (*path, key))
    elif isinstance(node, list):
        for index, entry in enumerate(cast("list[object]", node)):
            yield from _references(entry, (*path, index))
