"""What every config model shares: frozen, unknown keys refused, `x-` keys left alone, and the field types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from llmling import plugins, templates


class Located(str):
    """A text that remembers how to reach its file's folder from the manifest's: `""` for the manifest itself."""

    __slots__ = ("prefix",)
    prefix: str

    def __new__(cls, text: str, prefix: str = "") -> Located:
        """Return `text` as written in a file whose folder is `prefix`, relative to the manifest's."""
        self = super().__new__(cls, text)
        self.prefix = prefix
        return self


def without_notes(value: Any) -> Any:
    """Drop the keys that start with `x-` from a mapping; anything else passes unchanged."""
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if not (isinstance(key, str) and key.startswith("x-"))}  # pyright: ignore[reportUnknownVariableType]
    return value


class Config(BaseModel):
    """Base of every mapping a user can write."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=False,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )

    @model_validator(mode="before")
    @classmethod
    def _notes(cls, value: Any) -> Any:
        return without_notes(value)


def _truth(value: Any) -> Any:
    # YAML 1.2: only `true` and `false` are booleans; the texts come from `${VAR}`.
    if isinstance(value, bool):
        return value
    if value in {"true", "false"}:
        return value == "true"
    raise PydanticCustomError("bool_type", "should be true or false")


def _template(value: str) -> str:
    try:
        templates.template(value)
    except templates.TemplateInvalid as error:
        raise PydanticCustomError(
            "template", "invalid template: {reason}", {"reason": str(error), "line": error.line}
        ) from None
    return value


def _expression(value: str) -> str:
    try:
        templates.expression(value)
    except templates.TemplateInvalid as error:
        raise PydanticCustomError(
            "expression", "invalid expression: {reason}", {"reason": str(error), "line": error.line}
        ) from None
    return value


def _callable_path(value: str) -> str:
    module, _, name = value.partition(":")
    if not module or not name or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise PydanticCustomError(
            "import_path", "should be written module:function, such as my_module:word_count", {}
        )
    return value


def _relative(value: Any) -> Any:
    if isinstance(value, Located) and value.prefix and not os.path.isabs(value):  # noqa: PTH117
        return os.path.normpath(os.path.join(value.prefix, value))  # noqa: PTH118
    return value


Truth = Annotated[bool, BeforeValidator(_truth, json_schema_input_type=bool)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Template = Annotated[str, AfterValidator(_template)]
Expression = Annotated[str, AfterValidator(_expression)]
CallablePath = Annotated[str, AfterValidator(_callable_path)]
RelativePath = Annotated[str, Field(min_length=1), BeforeValidator(_relative, json_schema_input_type=str)]
"""A path, relative to the manifest's folder once validated, whichever file it was written in."""

T = TypeVar("T")
Named = Annotated[dict[str, T], BeforeValidator(without_notes)]


def plugged(kind: plugins.Kind) -> WrapValidator:
    """Return a validator that also accepts the `type:` of parts other packages bring by entry point."""

    def validate(value: Any, handler: Any) -> Any:
        if isinstance(value, Mapping):
            name: Any = value.get("type")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            if isinstance(name, str) and (config := plugins.config_class(kind, name)) is not None:
                return config.model_validate(value)
        return handler(value)

    return WrapValidator(validate)
