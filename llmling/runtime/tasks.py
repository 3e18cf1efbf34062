"""An owner of tasks that come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

logger = logging.getLogger("llmling")
T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T], *, name: str) -> tuple[T, asyncio.CancelledError | None]:
    """Await a short work that must not be left half done; return its result and the cancellation that came meanwhile.

    Raises:
        CancelledError: The work failed, and was cancelled meanwhile.
    """
    task = asyncio.create_task(work, name=f"llmling {name}")
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and (failure := task.exception()) is not None:
        raise cancelled from failure
    return task.result(), cancelled


class TaskSet:
    """Owns every task spawned in it: leaving cancels and awaits those that are still at work.

    Unlike a `TaskGroup` a failing task is reported and does not end its siblings, and the set may be left by another
    task than the one that entered it.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cancel()

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Start a task; an exception that it raises is logged."""
        task = asyncio.create_task(work, name=f"llmling {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)

    async def finish(self) -> None:
        """Return when no task is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Cancel every task and return when none is left."""
        while tasks := [task for task in self._tasks if task is not asyncio.current_task()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
