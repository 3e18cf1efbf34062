"""The one thread that writes: it takes what has queued up meanwhile and commits it together."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from llmling.engines.place import Place
from llmling.engines.schema import explain
from llmling.engines.transaction import Outcome, Posted, together
from llmling.errors import EngineError

log = logging.getLogger("llmling.engine")
A = TypeVar("A")
T = TypeVar("T")

BATCH = 256
WATCH_S = 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class NotWritable(EngineError):
    """The store cannot be written right now."""


class Writer:
    """Runs operations on its own connection in its own thread, what has queued up meanwhile in one transaction.

    An operation is a function of the connection. It may run more than once (its transaction failed), so it must
    change nothing but the database; what has to happen after the commit is its `committed` callback, or `failed`, with
    the error, when there will be none; one of them is called on the loop even when nobody waits any more.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        place: Place | None = None,
        foreign: Callable[[], None] | None = None,
    ) -> None:
        """`foreign` is called on the loop after another process has written; without it nobody looks."""
        self._connect = connect
        self._place = place
        self._foreign = foreign
        self._queue: queue.SimpleQueue[list[Posted] | None] = queue.SimpleQueue()
        self._fresh: list[Posted] = []
        self._handing_over = False
        self._thread: threading.Thread | None = None
        self._closed = False
        self._give_up_s = 0.0
        self._fault: str | None = None
        self._pause_s = _FIRST_PAUSE_S

    async def open(self) -> None:
        """Start the thread and connect.

        Raises:
            EngineError: The connection cannot be made.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        opened: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a process whose owner forgot to stop the engine must still be able to end.
        self._thread = threading.Thread(target=self._main, args=(opened,), name="llmling-engine-writer", daemon=True)
        self._thread.start()
        await opened

    def submit(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        patient: bool = False,
        committed: Callable[[T], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue an operation; the future has its result once it is committed.

        With `patient`, a store that cannot be written delays the operation, in its order, instead of failing it.
        Cancelling the future does not undo the operation.

        Raises:
            EngineError: The engine is closed.
            NotWritable: From the future: the store cannot be written and `patient` is not set.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(Posted(run, patient, committed, None, future))
        return future

    def post(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        patient: bool = True,
        committed: Callable[[T], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> Posted:
        """Queue an operation that is followed by a call: of `committed`, or of `failed`, which by default logs.

        Raises:
            EngineError: The engine is closed.
        """
        posted = Posted(run, patient=patient, committed=committed, failed=failed or _log_failed, future=None)
        self._put(posted)
        return posted

    def take_back(self, posted: Posted) -> bool:
        """Take back the operation that was queued last; False when another one was, or the thread has it."""
        if not self._fresh or self._fresh[-1] is not posted:
            return False
        self._fresh.pop()
        return True

    async def close(self, give_up_s: float) -> None:
        """Commit what is queued and end the thread; a store that cannot be written is tried for `give_up_s`."""
        if self._thread is None or self._closed:
            return
        self._give_up_s = time.monotonic() + give_up_s
        try:
            # What is committed only now may have to be taken back, which is written, too.
            await asyncio.wait([self.submit(_nothing, patient=True)], timeout=give_up_s)
        finally:
            self._closed = True
            self._hand_over()
            self._queue.put(None)
        await self._ended.wait()
        # The thread has nothing left to do but to return.
        self._thread.join()

    def _put(self, job: Posted) -> None:
        if self._closed or self._thread is None:
            raise EngineError("the engine is stopped")
        self._fresh.append(job)
        if not self._handing_over:
            # Once for all of this turn of the loop: each time may wake the thread, which then wants what the loop has.
            self._handing_over = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._handing_over = False
        jobs, self._fresh = self._fresh, []
        for start in range(0, len(jobs), BATCH):
            self._queue.put(jobs[start : start + BATCH])

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _main(self, opened: asyncio.Future[None]) -> None:
        try:
            connection = self._connect()
        except EngineError as error:
            self._call(_settle, opened, None, error)
            return
        try:
            if self._place is not None:
                self._place.remember()
            self._call(_settle, opened, None, None)
            self._work(connection)
        finally:
            connection.close()
            self._call(self._ended.set)

    def _work(self, connection: sqlite3.Connection) -> None:
        backlog: list[Posted] = []
        version = _data_version(connection) if self._foreign else 0
        looked = time.monotonic()
        closing = False
        while not (closing and not backlog and self._queue.empty()):
            fresh, closing_now = self._collect(backlog, closing)
            closing = closing or closing_now
            jobs = backlog + fresh
            if jobs:
                backlog = self._commit(connection, jobs)
            if closing and backlog and time.monotonic() >= self._give_up_s:
                log.error("%d writes are given up, %s; their deliveries run again", len(backlog), self._fault)
                self._call(self._deliver, [(job, None, NotWritable(self._fault)) for job in backlog])
                return
            if self._foreign and time.monotonic() - looked >= WATCH_S:
                looked = time.monotonic()
                self._look_for_files()
                # Our own commits do not change the value, so a change is somebody else's.
                before, version = version, _data_version(connection, version)
                if version != before:
                    self._call(self._foreign)

    def _collect(self, backlog: list[Posted], closing: bool) -> tuple[list[Posted], bool]:
        jobs: list[Posted] = []
        if backlog:
            wait_s: float | None = self._pause_s
        elif closing:
            wait_s = 0.0
        else:
            wait_s = WATCH_S if self._foreign else None
        try:
            found = self._queue.get(timeout=wait_s) if wait_s != 0.0 else self._queue.get_nowait()
            while found is not None:
                jobs += found
                if len(jobs) >= BATCH:
                    return jobs, False
                found = self._queue.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    @property
    def fault(self) -> str | None:
        """Why the last commit failed, None when it did not."""
        return self._fault

    def _commit(self, connection: sqlite3.Connection, jobs: list[Posted]) -> list[Posted]:
        """Run the jobs in one transaction, tell their outcomes, and return those to be tried again."""
        try:
            if self._place is not None:
                self._place.check()
            outcomes = together(connection, jobs)
        except (sqlite3.Error, EngineError) as error:
            self._fail(error)
            failed: list[Outcome] = [(job, None, NotWritable(self._fault)) for job in jobs if not job.patient]
            self._call(self._deliver, failed)
            return [job for job in jobs if job.patient]
        if self._fault is not None:
            log.warning("the engine can be written again")
            self._fault = None
        self._call(self._deliver, outcomes)
        return []

    def _look_for_files(self) -> None:
        # An idle pool must not look ready when its next commit would be lost.
        if self._place is not None and self._fault is None:
            try:
                self._place.check()
            except EngineError as error:
                self._fail(error)

    def _fail(self, error: sqlite3.Error | EngineError) -> None:
        if self._place is not None and isinstance(error, sqlite3.Error):
            error = explain(self._place.path, error)
        fault = f"engine not writable: {error}"
        if self._fault is None:
            log.error("%s; it is tried again until it can be written", fault)
            self._pause_s = _FIRST_PAUSE_S
        else:
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        self._fault = fault

    def _call(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop was closed under us: nobody is left to tell, what is queued is still committed.
            self._queue.put(None)

    # --- on the loop -------------------------------------------------------------------------------------------------

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for job, result, error in outcomes:
            # Who waits goes on before whatever the callback starts: a sender hears that its event was taken, then it
            # runs.
            if job.future is not None:
                _settle(job.future, result, error)
            try:
                if error is not None:
                    if job.failed is not None:
                        job.failed(error)
                elif job.committed is not None:
                    job.committed(result)
            except Exception:
                log.exception("a mistake in llmling after a commit; the event itself is safe")


def _nothing(connection: sqlite3.Connection) -> None:
    """Wait for what was queued before."""


def _log_failed(error: BaseException) -> None:
    log.error("a write failed: %s", error, exc_info=error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _data_version(connection: sqlite3.Connection, otherwise: int = 0) -> int:
    try:
        return connection.execute("pragma data_version").fetchone()[0]
    except sqlite3.Error as error:
        log.warning("cannot see whether another process has written: %s", error)
        return otherwise
