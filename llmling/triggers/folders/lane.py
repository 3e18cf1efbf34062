"""A thread of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Lane:
    """Runs blocking work in one thread, one piece after the other."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    async def __call__(self, work: Callable[[], T]) -> T:
        """Return what `work` returns. When cancelled, the piece that runs is finished and its result dropped."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


@contextmanager
def lane(name: str) -> Generator[Lane]:
    """Open a lane; leaving does not wait for a piece that still runs."""
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield Lane(executor)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
