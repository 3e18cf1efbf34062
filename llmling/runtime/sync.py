"""The sync face of async methods: it works from any thread, and refuses to block a running event loop."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from llmling import loops
from llmling.errors import SyncInAsyncError

T = TypeVar("T")


def refuse_in_loop(called: str, instead: str, *, above: int = 1) -> None:
    """Do nothing outside a running event loop.

    `above` is how many functions stand between the user's line and the one that calls this.

    Raises:
        SyncInAsyncError: Inside one; the message names the user's line and the method to await there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    caller = traceback.extract_stack(limit=above + 2)[0]
    raise SyncInAsyncError(
        f"{called} was called inside a running event loop at {caller.filename}:{caller.lineno}; write `{instead}` there"
    )


def run_outside_loop(start: Callable[[], Coroutine[Any, Any, T]], *, called: str, instead: str) -> T:
    """Run a coroutine to its end in a loop of its own, for a method that users call directly.

    Raises:
        SyncInAsyncError: Called inside a running event loop.
    """
    refuse_in_loop(called, instead, above=2)
    return loops.run(start())
