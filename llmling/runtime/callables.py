"""Calling what users wrote: sync functions leave the loop, async ones stay on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llmling.runtime.threads import run_in_thread


async def call_user(function: Callable[..., Any], *args: Any) -> Any:
    """Call a sync or async callable of the user and return what it returns; a sync one runs in our own threads."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await function(*args)
    result = await run_in_thread(function, *args)
    # A lambda around an async function is sync itself and returns the coroutine.
    return await result if inspect.isawaitable(result) else result
