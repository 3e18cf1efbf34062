"""Python callables as tools: sync ones in our own threads, async ones on the loop."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeVar, cast, overload

from pydantic_core import PydanticSerializationError, to_jsonable_python

from llmling.errors import ToolError
from llmling.manifest.importing import import_object
from llmling.manifest.tools import FunctionToolConfig
from llmling.protocols import Approval, Tool, ToolSpec
from llmling.runtime.deadline import Limit
from llmling.runtime.services import Services
from llmling.runtime.threads import run_in_thread
from llmling.tools.schema import Signature, plain_function

F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MARK = "__llmling_tool__"


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What `@tool` says about a function; None and False: not said."""

    name: str | None = None
    description: str | None = None
    idempotent: bool = False
    timeout_s: float | None = None
    destructive: bool = False
    approval: Approval | None = None


_UNMARKED = ToolOptions()


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    timeout_s: float | None = None,
    destructive: bool = False,
    approval: Approval | None = None,
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    timeout_s: float | None = None,
    destructive: bool = False,
    approval: Approval | None = None,
) -> F | Callable[[F], F]:
    """Say how a function, sync or async, is offered to models; it stays an ordinary function.

    `idempotent` promises that calling it twice does no harm: it is then repeated after a crash without asking.
    `timeout_s` is the longest time for one call, in seconds. `destructive` says that it destroys or sends something,
    so that `approval: destructive` asks a person first; `approval` is when to ask, whatever the agent says. Without
    options plain `@tool` does.

    Example:
        @tool(idempotent=True)
        def word_count(text: str) -> int:
            return len(text.split())
    """
    options = ToolOptions(name, description, idempotent, timeout_s, destructive, approval)

    def mark(marked: F) -> F:
        return _marked(marked, options)

    return mark if function is None else mark(function)


def _marked(function: Any, options: ToolOptions) -> Any:
    if type(function) in {staticmethod, classmethod}:
        # What a class gives out later is the function inside.
        return type(function)(_marked(function.__func__, options))
    if not callable(function):
        raise TypeError(f"@tool takes a function, not {function!r}; its options have names: @tool(name=...)")
    try:
        setattr(function, _MARK, options)
    except (AttributeError, TypeError):
        # A method of an object, a function written in C: nothing can be written on it, but on a partial of it.
        function = functools.partial(function)
        setattr(function, _MARK, options)
    return function


class FunctionTool:
    """A callable as a tool: name, description and JSON Schema come from it, options win.

    Raises:
        ValueError: It has no usable name, or a signature that cannot be described to a model.
    """

    def __init__(self, function: Callable[..., Any], options: ToolOptions | None = None) -> None:
        options = options or _options(function)
        self.function = function
        self.repeatable = options.idempotent
        self.timeout_s = options.timeout_s
        self.destructive = options.destructive
        self.approval: Approval | None = options.approval
        name = _name(function) if options.name is None else _checked(options.name)
        # Reading a signature takes half a millisecond, and one function may be a tool under several options.
        self._signature = (_known if isinstance(function, FunctionType) else Signature)(function, name)
        self._asynchronous = inspect.iscoroutinefunction(plain_function(function))
        description = options.description or self._signature.doc.summary
        self.spec = ToolSpec(name, description, self._signature.schema)

    def __repr__(self) -> str:
        return f"FunctionTool({self.spec.name!r})"

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Validate the arguments, call the function and return its result as text.

        Cancelling it cancels an async function; a sync one goes on in its thread and its result is discarded.

        Raises:
            ToolError: An argument is wrong, or the call took longer than `timeout_s`.
        """
        args, kwargs = self._signature.bind(arguments)
        try:
            if self.timeout_s is None:
                return to_text(await self._invoke(args, kwargs))
            result = await self._limited(self.timeout_s, args, kwargs)
        except (SystemExit, KeyboardInterrupt) as error:
            # From an async function: it must not end the pool.
            raise ToolError(f"tool {self.spec.name!r} tried to end the program: {type(error).__name__}") from error
        return to_text(result)

    async def _limited(self, timeout_s: float, args: list[Any], kwargs: dict[str, Any]) -> Any:
        limit = Limit(timeout_s)
        try:
            with limit:
                return await self._invoke(args, kwargs)
        except TimeoutError:
            if limit.expired():
                raise ToolError(f"tool {self.spec.name!r} took longer than {timeout_s:g} s (timeout_s)") from None
            raise

    async def _invoke(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if self._asynchronous:
            return await self.function(*args, **kwargs)
        result = await run_in_thread(self.function, *args, **kwargs)
        # A sync wrapper around an async function returns its coroutine.
        return await result if inspect.isawaitable(result) else result


@functools.lru_cache(maxsize=256)
def _known(function: Callable[..., Any], name: str) -> Signature:
    return Signature(function, name)


def to_text(result: Any) -> str:
    """Return a result as the text a model reads: text as it is, None as nothing, data as JSON, the rest by `str`."""
    if result is None:
        return ""
    if isinstance(result, str):
        return str(result)
    try:
        data = to_jsonable_python(result, fallback=str)
    except (PydanticSerializationError, ValueError):
        return str(result)
    return data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)


def as_tool(thing: Callable[..., Any] | Tool) -> Tool:
    """Return a tool as it is, and a callable, with or without `@tool`, as one.

    Raises:
        ValueError: It is neither, or cannot be described to a model.
    """
    spec = getattr(thing, "spec", None)
    if isinstance(spec, ToolSpec) and callable(getattr(thing, "call", None)):
        _checked(spec.name)
        return cast("Tool", thing)
    if callable(thing):
        # Many agents are given the same function.
        return (_function_tool if isinstance(thing, FunctionType) else FunctionTool)(thing, _options(thing))
    raise ValueError(f"{thing!r} is no tool: give a function, or an object with `spec` and `call`")


@functools.lru_cache(maxsize=256)
def _function_tool(function: Callable[..., Any], options: ToolOptions) -> FunctionTool:
    return FunctionTool(function, options)


def function_tool(config: FunctionToolConfig, services: Services) -> Tool:
    """Import the callable of a manifest and make it a tool; keys of the manifest win over `@tool`.

    Raises:
        ValueError: It cannot be imported, is not callable, or cannot be described to a model.
    """
    given = services.tools.get(config.function)
    return describe(config, import_object(config.function, services.folder) if given is None else given)


def describe(config: FunctionToolConfig, found: Any) -> Tool:
    """Make a tool of what a manifest names, a callable or a tool already; keys of the manifest win over `@tool`.

    Raises:
        ValueError: It is neither, or cannot be described to a model.
    """
    if isinstance(getattr(found, "spec", None), ToolSpec):
        if said := sorted(config.model_fields_set - {"type", "function"}):
            raise ValueError(f"{config.function} is a whole tool and says {', '.join(said)} itself; remove it here")
        return as_tool(found)
    if callable(found):
        return FunctionTool(found, _merged(config, _options(found)))
    raise ValueError(f"{config.function} is not callable; name a function")


def _merged(config: FunctionToolConfig, marked: ToolOptions) -> ToolOptions:
    said = config.model_fields_set
    return ToolOptions(
        name=marked.name if config.name is None else config.name,
        description=marked.description if config.description is None else config.description,
        idempotent=config.idempotent if "idempotent" in said else marked.idempotent,
        timeout_s=config.timeout_s if "timeout_s" in said else marked.timeout_s,
        destructive=config.destructive if "destructive" in said else marked.destructive,
        approval=marked.approval if config.approval is None else config.approval,
    )


def _options(function: Callable[..., Any]) -> ToolOptions:
    options = getattr(function, _MARK, None)
    return options if isinstance(options, ToolOptions) else _UNMARKED


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return _checked(getattr(function, "__name__", None) or type(function).__name__)


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name for a tool; give one: @tool(name=...) or `name:` in the manifest")
    return name
