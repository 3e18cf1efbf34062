"""Sandboxed Jinja: templates for prompts and paths, expressions for `when` and `filter`.

Values are only ever inserted, never compiled, so text of an event cannot become a template.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmling.errors import RunError


class TemplateFailed(RunError):
    """A template or expression could not be evaluated with the values at hand."""

    retryable = False


class TemplateInvalid(ValueError):
    """A template or expression does not compile; `line` counts from 1 inside its text."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def _environment(undefined: type[Undefined]) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=undefined, autoescape=False, keep_trailing_newline=True)


_STRICT = _environment(StrictUndefined)
# An expression about a key the event does not have is false, not an error (manifest: "undefined is false").
_LENIENT = _environment(Undefined)


@functools.lru_cache(maxsize=1024)
def template(source: str) -> Callable[[Mapping[str, Any]], str]:
    """Compile a template; the result takes the values in scope and returns text.

    `now` (an aware datetime) is always in scope.

    Raises:
        TemplateInvalid: The text is not valid Jinja.
    """
    try:
        compiled = _STRICT.from_string(source)
    except TemplateSyntaxError as error:
        raise TemplateInvalid(error.message or "invalid template", error.lineno) from None

    def render(values: Mapping[str, Any]) -> str:
        try:
            return compiled.render({"now": dt.datetime.now(dt.UTC).astimezone(), **values})
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise TemplateFailed(f"template {_short(source)} failed: {error}") from error

    return render


@functools.lru_cache(maxsize=1024)
def expression(source: str) -> Callable[[Mapping[str, Any]], bool]:
    """Compile a `when` or `filter` expression; the result takes the values in scope and returns a truth.

    A name or key that does not exist is false.

    Raises:
        TemplateInvalid: The text is not a valid expression.
    """
    try:
        compiled = _LENIENT.compile_expression(source, undefined_to_none=True)
    except TemplateSyntaxError as error:
        raise TemplateInvalid(error.message or "invalid expression", error.lineno) from None

    def evaluate(values: Mapping[str, Any]) -> bool:
        try:
            return bool(compiled(**values))
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Comparing an undefined value raises inside Jinja; that is the documented "undefined is false".
            if "undefined" in str(error).lower() or "NoneType" in str(error):
                return False
            raise TemplateFailed(f"expression {_short(source)} failed: {error}") from error

    return evaluate


def _short(source: str) -> str:
    text = " ".join(source.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")
