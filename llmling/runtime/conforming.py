"""Values against a JSON Schema, and what does not fit in lines for a model; loaded for the first schema there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonschema.exceptions import ValidationError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from llmling.errors import OutputError, StartupError
from llmling.manifest.outputs import SchemaInvalid, check_schema
from llmling.runtime.output import Mismatch, brief, place_in


def conforming(schema: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return what gives back a value that fits a JSON Schema, and raises `Mismatch` about any other.

    Raises:
        StartupError: The schema is not valid or refers to something outside itself.
    """
    try:
        check_schema(schema)
    except SchemaInvalid as error:
        reason = f"{place_in(error.path)}: {brief(str(error))}"
        raise StartupError(f"output is not a valid JSON Schema: {reason}", usage=True) from None
    kind = validator_for(schema, default=Draft202012Validator)
    # An empty registry of our own: the default one would fetch `$ref` addresses from the network.
    registry: Registry[Any] = Registry()
    validator = kind(schema, registry=registry, format_checker=kind.FORMAT_CHECKER)

    def check(value: Any) -> Any:
        try:
            errors = sorted(validator.iter_errors(value), key=lambda error: place_in(error.absolute_path))
        except RecursionError:
            raise Mismatch("the value is nested too deeply") from None
        except Unresolvable as error:
            raise OutputError(f"the output schema refers to {error.ref!r}, which is not in it") from None
        if errors:
            raise Mismatch(*(_explain(error) for error in errors))
        return value

    return check


def _explain(error: ValidationError) -> str:
    # Of `anyOf` and the like, the branches that came furthest say more than "not valid under any of the schemas".
    branches: Sequence[ValidationError] = error.context or ()
    if branches:
        furthest = max(len(branch.absolute_path) for branch in branches)
        return " or ".join(_explain(branch) for branch in branches if len(branch.absolute_path) == furthest)
    return f"{place_in(error.absolute_path)}: {brief(error.message)}"
