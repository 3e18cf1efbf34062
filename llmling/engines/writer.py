"""The one thread that writes: it takes what has queued up meanwhile and commits it together."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeGuard, TypeVar

from llmling.engines.place import Place
from llmling.engines.schema import explain, primary_code
from llmling.errors import EngineError

log = logging.getLogger("llmling.engine")
A = TypeVar("A")
T = TypeVar("T")

BATCH = 256
WATCH_S = 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
# The fault of the store, not of an operation: everything of the transaction has failed and may succeed later.
_STORE_FAULTS = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
}  # fmt: skip


class NotWritable(EngineError):
    """The store cannot be written right now."""


class OneOfMany(Generic[A, T]):
    """An operation on one item that may be run with all others of its kind that queue up with it.

    `many` returns what comes of each, in their order. Between items of different kinds the order is not kept within a
    transaction: nothing may be queued that has to come after another kind of the same delivery, but is not told of it.
    """

    __slots__ = ("item", "many")

    def __init__(self, many: Callable[[sqlite3.Connection, Sequence[A]], Sequence[T]], item: A) -> None:
        self.many = many
        self.item = item

    def __call__(self, connection: sqlite3.Connection) -> T:
        """Run it alone."""
        return self.many(connection, (self.item,))[0]


@dataclass(slots=True, eq=False)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    patient: bool
    committed: Callable[[Any], None] | None
    failed: Callable[[], None] | None
    future: asyncio.Future[Any] | None


_Many: TypeAlias = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]
_Kinds: TypeAlias = dict[_Many, list[tuple[int, Any]]]
_Outcome: TypeAlias = tuple[_Job, Any, BaseException | None]


class Writer:
    """Runs operations on its own connection in its own thread, what has queued up meanwhile in one transaction.

    An operation is a function of the connection. It may run more than once (its transaction failed), so it must
    change nothing but the database; what has to happen after the commit is its `committed` callback, or `failed` when
    there will be none; one of them is called on the loop even when nobody waits any more.
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
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._fresh: list[_Job] = []
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
        failed: Callable[[], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue an operation; the future has its result once it is committed.

        With `patient`, a store that cannot be written delays the operation, in its order, instead of failing it.
        Cancelling the future does not undo the operation.

        Raises:
            EngineError: The engine is closed.
            NotWritable: From the future: the store cannot be written and `patient` is not set.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Job(run, patient, committed, failed, future))
        return future

    def post(self, run: Callable[[sqlite3.Connection], T], *, committed: Callable[[T], None] | None = None) -> None:
        """Queue an operation that nobody waits for; it is patient.

        Raises:
            EngineError: The engine is closed.
        """
        self._put(_Job(run, patient=True, committed=committed, failed=None, future=None))

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

    def _put(self, job: _Job) -> None:
        if self._closed or self._thread is None:
            raise EngineError("the engine is stopped")
        self._fresh.append(job)
        if len(self._fresh) == 1:
            # Once for all of this turn of the loop: each time may wake the thread, which then wants what the loop has.
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
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
        backlog: list[_Job] = []
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

    def _collect(self, backlog: list[_Job], closing: bool) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
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

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[_Job]:
        """Run the jobs in one transaction, tell their outcomes, and return those to be tried again."""
        try:
            if self._place is not None:
                self._place.check()
            outcomes = _together(connection, jobs)
        except (sqlite3.Error, EngineError) as error:
            self._fail(error)
            failed: list[_Outcome] = [(job, None, NotWritable(self._fault)) for job in jobs if not job.patient]
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

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for job, result, error in outcomes:
            # Who waits goes on before whatever the callback starts: a sender hears that its event was taken, then it
            # runs.
            if job.future is not None:
                _settle(job.future, result, error)
            elif error is not None:
                log.error("a write failed: %s", error, exc_info=error)
            try:
                if error is not None and job.failed is not None:
                    job.failed()
                elif error is None and job.committed is not None:
                    job.committed(result)
            except Exception:
                log.exception("a mistake in llmling after a commit; the event itself is safe")


def _nothing(connection: sqlite3.Connection) -> None:
    """Wait for what was queued before."""


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _together(connection: sqlite3.Connection, jobs: list[_Job]) -> list[_Outcome]:
    """Commit all jobs at once; when one of them fails, again with each of them for itself.

    Raises:
        sqlite3.Error: The store cannot be written; nothing of it happened.
    """
    try:
        connection.execute("begin immediate")
        results = _run(connection, jobs)
        connection.execute("commit")
        return [(job, result, None) for job, result in zip(jobs, results, strict=True)]
    except Exception as error:
        _roll_back(connection)
        if _store_fault(error):
            raise
    try:
        connection.execute("begin immediate")
        outcomes: list[_Outcome] = [_apart(connection, job) for job in jobs]
        connection.execute("commit")
    except sqlite3.Error:
        _roll_back(connection)
        raise
    return outcomes


def _run(connection: sqlite3.Connection, jobs: list[_Job]) -> list[Any]:
    """Run all jobs, items of a kind together, and return what comes of each."""
    results: list[Any] = [None] * len(jobs)
    kinds: _Kinds = {}
    for place, job in enumerate(jobs):
        run = job.run
        if _one_of_many(run):
            kinds.setdefault(run.many, []).append((place, run.item))
        else:
            _run_kinds(connection, kinds, results)
            results[place] = run(connection)
    _run_kinds(connection, kinds, results)
    return results


def _one_of_many(run: Callable[[sqlite3.Connection], Any]) -> TypeGuard[OneOfMany[Any, Any]]:
    return isinstance(run, OneOfMany)


def _run_kinds(connection: sqlite3.Connection, kinds: _Kinds, results: list[Any]) -> None:
    for many, items in kinds.items():
        for (place, _), result in zip(items, many(connection, [item for _, item in items]), strict=True):
            results[place] = result
    kinds.clear()


def _apart(connection: sqlite3.Connection, job: _Job) -> _Outcome:
    connection.execute("savepoint job")
    try:
        result = job.run(connection)
    except Exception as error:
        if _store_fault(error):
            raise
        connection.execute("rollback to job")
        connection.execute("release job")
        return job, None, error
    connection.execute("release job")
    return job, result, None


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("rollback")


def _store_fault(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and primary_code(error) in _STORE_FAULTS


def _data_version(connection: sqlite3.Connection, otherwise: int = 0) -> int:
    try:
        return connection.execute("pragma data_version").fetchone()[0]
    except sqlite3.Error as error:
        log.warning("cannot see whether another process has written: %s", error)
        return otherwise
