"""Threads for blocking work of users' code: our own, never the event loop's default executor."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LIMIT = 64

logger = logging.getLogger(__name__)


class Threads:
    """At most `limit` daemon threads, started when needed.

    They are daemons, unlike those of `ThreadPoolExecutor`: a function that never returns cannot keep the
    interpreter from exiting. Calls beyond the limit wait for a free thread.
    """

    def __init__(self, limit: int = LIMIT, *, name: str = "llmling") -> None:
        self._limit = limit
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._count = 0

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `function(*args, **kwargs)`, run in a thread with a copy of the caller's context variables.

        Cancelling returns at once: a call that waits is dropped, one that runs goes on and its result is discarded;
        if it fails later, that is logged. `SystemExit` and `StopIteration` arrive as `RuntimeError`.
        """
        context = contextvars.copy_context()
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(function, *args, **kwargs)
            except (SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit) as error:
                # None of these can pass through a future without ending the event loop or hanging the caller.
                future.set_exception(_contained(error))
            except BaseException as error:  # noqa: BLE001 - a thread's border: it travels to the caller
                future.set_exception(error)
            else:
                future.set_result(result)

        self._submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancelled():
                future.add_done_callback(lambda done: _log_late(function, done))
            raise

    def _submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._work.put(work)
            if self._idle.acquire(blocking=False) or self._count >= self._limit:
                return
            self._count += 1
            name = f"{self._name}-{self._count}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                self._idle.release()
                work = self._work.get()
            work()
            # Hold no reference to arguments and results while waiting.
            del work


def _contained(error: BaseException) -> RuntimeError:
    contained = RuntimeError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    contained.__cause__ = error
    return contained


def _log_late(function: Callable[..., Any], done: Future[Any]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        name = getattr(function, "__qualname__", repr(function))
        logger.warning("%s failed after its caller had gone: %s", name, error, exc_info=error)


_threads = Threads()


async def run_in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work in the threads of this process; see `Threads.run`."""
    return await _threads.run(function, *args, **kwargs)
