"""What a hook looks like: an object with some of five methods, or a function that hears events."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

METHODS: Mapping[str, tuple[str, ...]] = {
    "before_model": ("request", "run"),
    "after_model": ("response", "run"),
    "before_tool": ("call", "run"),
    "after_tool": ("result", "run"),
    "on_event": ("event",),
}
"""The methods a hook may have, and what each is called with."""


def hook_methods(found: Any) -> dict[str, Any]:
    """Return the methods of a hook by name: those it has, or a plain function as its `on_event`.

    A class stands for one object of it, made without arguments.

    Raises:
        ValueError: It is no hook; the text says what is wrong with it.
    """
    hook = _made(found) if isinstance(found, type) else found
    methods = {name: method for name in METHODS if callable(method := getattr(hook, name, None))}
    if not methods and callable(hook):
        methods = {"on_event": hook}
    if not methods:
        raise ValueError(f"has none of the methods of a hook ({', '.join(METHODS)}) and is no function")
    for name, method in methods.items():
        _check_parameters(name, method)
    return methods


def _made(kind: type) -> Any:
    if not any(hasattr(kind, name) for name in METHODS):
        raise ValueError(f"is a class without any method of a hook ({', '.join(METHODS)})")
    try:
        return kind()
    except Exception as error:  # the border to users' code
        raise ValueError(
            f"is a class that cannot be made without arguments: {type(error).__name__}: {error}"
        ) from error


def _check_parameters(name: str, method: Any) -> None:
    wanted = METHODS[name]
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return  # some callables written in C do not tell
    try:
        signature.bind(*wanted)
    except TypeError:
        raise ValueError(f"cannot be called as {name}({', '.join(wanted)}): it takes {signature}") from None
