"""What a Python signature tells a model: a JSON Schema, and validation of the arguments it sends back."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from llmling.errors import ToolError

_SECTION = re.compile(r"^(args|arguments|parameters|returns?|yields?|raises|examples?|notes?):\s*$", re.IGNORECASE)
_ARGUMENT = re.compile(r"^\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?:\s*(?P<text>.*)$")


class _PlainSchema(GenerateJsonSchema):
    """Leaves out titles: they repeat the names and cost tokens in every request."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - declared so by pydantic

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Doc:
    """A docstring: its first paragraph, and its `Args:` by name."""

    summary: str
    arguments: Mapping[str, str]


def read_docstring(text: str | None) -> Doc:
    """Read a Google-style docstring; anything else gives its first paragraph only."""
    lines = inspect.cleandoc(text or "").splitlines()
    first: list[str] = []
    for line in lines:
        if not line.strip() or _SECTION.match(line.strip()):
            break
        first.append(line.strip())
    arguments: dict[str, str] = {}
    inside, indent, name = False, None, ""
    for line in lines:
        text, depth = line.strip(), len(line) - len(line.lstrip())
        if depth == 0 and text:
            heading = _SECTION.match(text)
            inside = heading is not None and heading[1].lower() in {"args", "arguments", "parameters"}
            indent = None
        elif inside and text:
            indent = depth if indent is None else indent
            entry = _ARGUMENT.match(text) if depth <= indent else None
            if entry is not None:
                name = entry["name"]
                arguments[name] = entry["text"]
            elif name:
                arguments[name] = f"{arguments[name]} {text}".strip()
    return Doc(" ".join(first), arguments)


def plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what carries the annotations and the docstring: inside partials, callable objects and classes."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return function.__init__
    if not (inspect.isroutine(function) or hasattr(function, "__wrapped__")):
        return type(function).__call__
    return function


class Signature:
    """The parameters of a callable as a model that validates.

    Raises:
        ValueError: `*args` or `**kwargs`, a generator, or an annotation that no JSON Schema can describe.
    """

    def __init__(self, function: Callable[..., Any], label: str) -> None:
        self._function = function
        self._parameters = _parameters(function, label)
        self.doc = read_docstring(plain_function(function).__doc__)
        self._model = self._build(label)
        self.schema = _schema(self._model, label)

    def _build(self, label: str) -> type[BaseModel]:
        hints = _hints(self._function, label)
        fields: dict[str, Any] = {}
        for number, (name, parameter) in enumerate(self._parameters.items()):
            annotation: Any = hints.get(name, Any)
            default = ... if parameter.default is parameter.empty else parameter.default
            if (text := _description(annotation, self.doc.arguments.get(name))) is not None:
                annotation = Annotated[annotation, Field(description=text)]
            # Field names are ours, the parameter's name is an alias: pydantic refuses names like `_x` or `copy`.
            fields[f"p{number}"] = (annotation, Field(default, alias=name))
        try:
            config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
            model = create_model(label, __config__=config, **fields)
            model.model_rebuild(raise_errors=True)
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError) as error:
            message = str(error).splitlines()[0]
            raise ValueError(
                f"tool {label!r}: a parameter cannot be described to a model: {message}; annotate it with a type JSON"
                " can hold (str, int, list, dict, Literal, a pydantic model, ...)"
            ) from error
        return model

    def bind(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Validate what a model sent and return it as positional and keyword arguments.

        Raises:
            ToolError: Something is missing, unknown or of the wrong type; the text names each argument.
        """
        try:
            model = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            known = ", ".join(self._parameters) or "none"
            raise ToolError("; ".join(_complaint(detail, known) for detail in error.errors())) from None
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        gap = False
        for number, (name, parameter) in enumerate(self._parameters.items()):
            field = f"p{number}"
            given = field in model.model_fields_set
            value = getattr(model, field)
            if parameter.kind is parameter.POSITIONAL_ONLY and (given or gap or parameter.default is parameter.empty):
                args.append(value)
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                # Positions after a default that was left out are still positions: fill them with their defaults.
                args.append(parameter.default)
                gap = True
            elif given:
                kwargs[name] = value
        return args, kwargs


def _parameters(function: Callable[..., Any], label: str) -> dict[str, inspect.Parameter]:
    inner = plain_function(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ValueError(f"tool {label!r} is a generator; return a list or a text instead")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ValueError(f"tool {label!r} has no readable signature; wrap it in a function with annotations") from error
    # What a partial has fixed is not the model's to change.
    fixed: set[str] = set()
    layer: Any = function
    while isinstance(layer, functools.partial):
        fixed |= layer.keywords.keys()
        layer = layer.func
    found: dict[str, inspect.Parameter] = {}
    for name, parameter in signature.parameters.items():
        if name in fixed:
            continue
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise ValueError(
                f"tool {label!r} takes {stars}{name}, which cannot be described to a model; name its parameters"
            )
        found[name] = parameter
    return found


def _hints(function: Callable[..., Any], label: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(plain_function(function), include_extras=True)
    except NameError as error:
        raise ValueError(
            f"tool {label!r}: an annotation names something that is not defined at run time: {error};"
            " import it outside `if TYPE_CHECKING`"
        ) from error
    except (AttributeError, SyntaxError, TypeError) as error:
        raise ValueError(
            f"tool {label!r}: an annotation cannot be read: {error}; write a type JSON can hold (str, int, list, ...)"
        ) from error


def _description(annotation: Any, documented: str | None) -> str | None:
    extras = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    if any(isinstance(extra, FieldInfo) and extra.description for extra in extras):
        return None
    return next((extra for extra in extras if isinstance(extra, str)), documented)


def _schema(model: type[BaseModel], label: str) -> dict[str, Any]:
    try:
        schema = model.model_json_schema(by_alias=True, schema_generator=_PlainSchema)
    except PydanticUserError as error:
        raise ValueError(
            f"tool {label!r}: a parameter has no JSON Schema: {str(error).splitlines()[0]}; annotate it with a type"
            " JSON can hold"
        ) from error
    schema.pop("title", None)
    for definition in schema.get("$defs", {}).values():
        definition.pop("title", None)
    schema.setdefault("properties", {})
    return schema


def _complaint(detail: ErrorDetails, known: str) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
        return f"argument {place!r} is not known; this tool takes: {known}"
    if detail["type"] == "missing":
        return f"argument {place!r} is missing"
    given = repr(detail["input"])
    return f"argument {place!r}: {detail['msg']}, not {given if len(given) <= 80 else given[:77] + '...'}"
