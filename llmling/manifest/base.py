"""What every config model shares: frozen, unknown keys refused, `x-` keys left alone, and the field types."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from llmling import plugins, templates
from llmling.manifest.docstrings import below_field


class Located(str):
    """A text that remembers how to reach its file's folder from the manifest's: `""` for the manifest itself.

    `filled` tells that a variable was in it: only then `"8000"` may stand for a number and `"true"` for a truth.
    """

    __slots__ = ("filled", "prefix")
    filled: bool
    prefix: str

    def __new__(cls, text: str, prefix: str = "", *, filled: bool = False) -> Located:
        """Return `text` as written in a file whose folder is `prefix`, relative to the manifest's."""
        self = super().__new__(cls, text)
        self.prefix = prefix
        self.filled = filled
        return self


class LocatedMapping(dict[str, Any]):
    """A mapping that remembers the node it was made from."""

    __slots__ = ("node",)

    def __init__(self, items: Mapping[str, Any], node: object) -> None:
        super().__init__(items)
        self.node = node

    def plus(self, key: str, value: Any) -> LocatedMapping:
        """Return this mapping with one key more."""
        return LocatedMapping({key: value, **self}, self.node)


@dataclass(slots=True)
class Keys:
    """Collects unknown keys of all mappings of one validation, so that one of them hides no other mistake.

    Handed over as pydantic's validation context. `noted` are the nodes whose `x-` keys are notes.
    """

    unknown: list[tuple[type[Config], object, str]] = field(default_factory=list[tuple[type["Config"], object, str]])
    noted: set[int] = field(default_factory=set[int])

    def known(self, config: type[Config], value: LocatedMapping) -> dict[str, Any]:
        """Return the keys the config has and keep the others."""
        self.noted.add(id(value.node))
        fields = config.model_fields
        if value.keys() <= fields.keys():
            return value
        for key in value:
            if key not in fields and not key.startswith("x-"):
                self.unknown.append((config, value.node, key))
        return {key: item for key, item in value.items() if key in fields}


def without_notes(value: Any) -> Any:
    """Drop the keys that start with `x-` from a mapping; anything else passes unchanged."""
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value)
        notes = [key for key in items if isinstance(key, str) and key.startswith("x-")]
        return {key: item for key, item in items.items() if key not in notes} if notes else items
    return value


class Config(BaseModel):
    """Base of every mapping a user can write."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=False,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return its JSON Schema, in which the text below each field describes it."""
        result = handler(schema)
        properties = handler.resolve_ref_schema(result).get("properties", {})
        for name, info in cls.model_fields.items():
            if info.description is None and (text := below_field(cls, name)) is not None and name in properties:
                properties[name]["description"] = text
        return result

    @model_validator(mode="before")
    @classmethod
    def _notes(cls, value: Any, info: ValidationInfo) -> Any:
        context: Any = info.context
        if isinstance(context, Keys) and isinstance(value, LocatedMapping):
            return context.known(cls, value)
        return without_notes(value)


def fresh(make: Callable[[], Any]) -> Any:
    """Return a field whose default is made anew: pydantic would copy one that cannot be hashed, which takes longer."""
    default = make()
    shown = default.model_dump() if isinstance(default, BaseModel) else default
    return Field(default_factory=make, json_schema_extra={"default": shown})


def _truth(value: Any) -> Any:
    # YAML 1.2: only `true` and `false` are booleans; the texts come from `${VAR}`.
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in {"true", "false"} and _filled(value):
        return value == "true"
    raise PydanticCustomError("bool_type", "should be true or false")


def _number(value: Any) -> Any:
    # Other texts are left to pydantic, which says whether a whole number is wanted.
    if isinstance(value, bool) or (isinstance(value, str) and not _filled(value) and _numeric(value)):
        raise PydanticCustomError("number_type", "should be a number")
    return value


def _numeric(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _filled(value: str) -> bool:
    return isinstance(value, Located) and value.filled


def _text_or_mapping(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<mapping>" if isinstance(value, Mapping | BaseModel) else None


def _template(value: str) -> str:
    try:
        templates.check(value)
    except templates.TemplateInvalid as error:
        raise PydanticCustomError(
            "template", "invalid template: {reason}", {"reason": str(error), "line": error.line}
        ) from None
    return value


def _expression(value: str) -> str:
    try:
        templates.expression(value)
    except templates.TemplateInvalid as error:
        reason = str(error)
        if value.strip().startswith("{{"):
            reason = "write it without {{ }}"
        elif not value.strip():
            reason = "it is empty"
        elif reason == "chunk after expression":
            reason = "its end was expected earlier; compare with `==`, join with `and` or `or`"
        raise PydanticCustomError(
            "expression", "invalid expression: {reason}", {"reason": reason, "line": error.line}
        ) from None
    return value


def _callable_path(value: str) -> str:
    module, _, name = value.partition(":")
    if not module or not name or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise PydanticCustomError("import_path", "should be written module:function, such as my_module:word_count", {})
    return value


def _path(value: str) -> str:
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise PydanticCustomError("path", "a path cannot hold control characters")
    return value


def _relative(value: Any) -> Any:
    if isinstance(value, Located) and value.prefix and not value.startswith(("/", "~")):
        return os.path.normpath(os.path.join(value.prefix, value))  # noqa: PTH118
    return value


def _relative_template(value: Any) -> Any:
    # Not normalised: `{{ a }}/../{{ b }}` is for the sink to judge.
    if isinstance(value, Located) and value.prefix and not value.startswith("/"):
        return os.path.join(value.prefix, value)  # noqa: PTH118
    return value


# Loc parts in angle brackets are branches of a union, never keys.
TEXT_OR_MAPPING = Discriminator(_text_or_mapping, "text_or_mapping", "should be a text or a mapping")
Text = Tag("<text>")
InMapping = Tag("<mapping>")

Truth = Annotated[bool, BeforeValidator(_truth, json_schema_input_type=bool)]
# Behind the bounds: bounds of a type with a validator would miss the schema. `true` is no number.
NotTruth = BeforeValidator(_number)
Whole = Annotated[int, NotTruth]
# Thirty years: beyond it, dates and timers overflow.
Seconds = Annotated[float, Field(ge=0, le=1_000_000_000), NotTruth]
PositiveSeconds = Annotated[float, Field(gt=0, le=1_000_000_000), NotTruth]
Cost = Annotated[float, Field(ge=0), NotTruth]
Amount = Annotated[float, Field(gt=0), NotTruth]
Count = Annotated[int, Field(ge=1), NotTruth]
CountFromZero = Annotated[int, Field(ge=0), NotTruth]
Port = Annotated[int, Field(ge=1, le=65535), NotTruth]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:%-]+$")]
Template = Annotated[str, AfterValidator(_template)]
FullTemplate = Annotated[str, Field(min_length=1), AfterValidator(_template)]
Expression = Annotated[str, AfterValidator(_expression)]
CallablePath = Annotated[
    str,
    AfterValidator(_callable_path),
    Field(json_schema_extra={"pattern": r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$"}),
]
RelativePath = Annotated[
    str, Field(min_length=1), AfterValidator(_path), BeforeValidator(_relative, json_schema_input_type=str)
]
"""A path, relative to the manifest's folder once validated, whichever file it was written in."""
RelativeTemplate = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(_template),
    BeforeValidator(_relative_template, json_schema_input_type=str),
]
"""A path with sandboxed Jinja, relative to the manifest's folder once validated."""

T = TypeVar("T")
Named = Annotated[
    dict[str, T], BeforeValidator(without_notes), Field(json_schema_extra={"patternProperties": {"^x-": {}}})
]


class Plugged:
    """Also accepts the `type:` of parts other packages bring by entry point."""

    def __init__(self, kind: plugins.Kind) -> None:
        self.kind: plugins.Kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(self._validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result = handler(schema)
        target = handler.resolve_ref_schema(result)
        for name in plugins.types(self.kind):
            if (config := plugins.config_class(self.kind, name)) is not None:
                target.setdefault("oneOf", []).append(handler(config.__pydantic_core_schema__))
        return result

    def _validate(self, value: Any, handler: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping):
            name: Any = value.get("type")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            if isinstance(name, str) and (config := plugins.config_class(self.kind, name)) is not None:
                return config.model_validate(value, context=info.context)
        return handler(value)


def plugged(kind: plugins.Kind) -> Plugged:
    """Return the annotation of a plug point."""
    return Plugged(kind)
