"""Parallel start and end: every resource is entered and left by one task of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

_CANCEL_GRACE_S = 5.0


def leaf(error: BaseException) -> BaseException:
    """Return the most telling exception inside nested groups: the first one that is not a cancellation."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(inner) for inner in error.exceptions]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
    return next((inner for inner in leaves if not isinstance(inner, asyncio.CancelledError)), leaves[0])


def reason(error: BaseException) -> str:
    """Return one line that says why: the text of the telling exception, or its type when it has none."""
    inner = leaf(error)
    text = " ".join(str(inner).split())
    return text or type(inner).__name__


@dataclass(frozen=True, slots=True)
class Started(Generic[T]):
    """How one start went: the value that entering gave, or the error, and the seconds until then."""

    name: str
    value: T | None
    error: BaseException | None
    seconds: float


class Openable(Protocol):
    """What is opened and closed by methods."""

    async def open(self) -> None:
        """Open it."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class Opened:
    """What has `open` and `aclose`, as a context that a task can own."""

    def __init__(self, resource: Openable) -> None:
        self._resource = resource

    async def __aenter__(self) -> None:
        await self._resource.open()

    async def __aexit__(self, *_: object) -> None:
        await self._resource.aclose()


class _Owner(Generic[T]):
    """The one task that enters a resource, keeps it, and leaves it."""

    def __init__(self, name: str, manager: AbstractAsyncContextManager[T], timeout_s: float | None) -> None:
        self.name = name
        self.outcome: asyncio.Future[Started[T]] = asyncio.get_running_loop().create_future()
        self._manager = manager
        self._timeout_s = timeout_s
        self._leave = asyncio.Event()
        self._began = time.monotonic()
        self.task = asyncio.create_task(self._run(), name=f"lifespan {name}")

    def leave(self) -> None:
        """Ask for the end: a resource that is ready is left, one that is still starting is cancelled."""
        self._leave.set()
        if not self.outcome.done():
            self.task.cancel()

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(Started(self.name, value, error, time.monotonic() - self._began))

    async def _run(self) -> None:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with AsyncExitStack() as stack:
                async with limit:
                    value = await stack.enter_async_context(self._manager)
                self._settle(value, None)
                await self._leave.wait()
        except asyncio.CancelledError as error:
            self._settle(None, error)
            raise
        except Exception as error:  # the border: one resource never takes its siblings down
            if not self.outcome.done():
                late = TimeoutError(f"not ready within {self._timeout_s:g} s") if limit.expired() else None
                self._settle(None, late or leaf(error))
            else:
                doing = "leaving" if self._leave.is_set() else "keeping"
                logger.warning("%s %s failed: %s", doing, self.name, reason(error), exc_info=error)


class Lifespans:
    """Owns resources that are entered side by side, each by a task of its own, and left side by side.

    The task that enters a resource is the task that leaves it, as cancel scopes demand. Leaving gives all of them
    `grace_s` seconds together, then cancels; cancelling the leaving task cancels them at once. No task is left behind.

    Example:
        async with Lifespans() as spans:
            started = await spans.enter_all({"a": connect_a(), "b": connect_b()}, timeout_s=30)
            if (error := started["a"].error) is not None: ...
    """

    def __init__(self, *, grace_s: float = 10.0) -> None:
        self._grace_s = grace_s
        self._owners: dict[str, _Owner[Any]] = {}

    async def __aenter__(self) -> Lifespans:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave(list(self._owners))

    async def leave(self, names: Iterable[str]) -> None:
        """Leave some of them now, side by side, with the same grace; the others stay."""
        owners = [owner for name in names if (owner := self._owners.get(name)) is not None]
        tasks = {owner.task for owner in owners}
        for owner in owners:
            owner.leave()
        try:
            await _wait(tasks, self._grace_s)
        finally:
            # Also reached when the leaving task is cancelled: then there is no more grace.
            await self._force(tasks)
            for owner in owners:
                self._owners.pop(owner.name, None)

    async def _force(self, tasks: set[asyncio.Task[None]]) -> None:
        late = {task for task in tasks if not task.done()}
        for task in late:
            task.cancel()
        await _wait(late, _CANCEL_GRACE_S)
        for task in late:
            if not task.done():
                logger.error("%s ignores its cancellation and is abandoned", task.get_name())

    async def enter_all(
        self,
        managers: Mapping[str, AbstractAsyncContextManager[T]],
        *,
        timeout_s: float | Mapping[str, float | None] | None = None,
        parallel: bool = True,
    ) -> dict[str, Started[T]]:
        """Enter all of them and return how each start went, in the given order, once the last one is settled.

        `timeout_s` bounds each start, in seconds, for all or by name. One that fails leaves the others alone: its
        error, taken out of exception groups, is in its `Started`. With `parallel` False each waits for the one
        before. When this call is cancelled, what has started is left with the `Lifespans`.

        Raises:
            ValueError: A name is already in use here.
        """
        if taken := managers.keys() & self._owners.keys():
            raise ValueError(f"already entered: {', '.join(sorted(taken))}")
        limits = timeout_s if isinstance(timeout_s, Mapping) else dict.fromkeys(managers, timeout_s)
        outcomes: dict[str, asyncio.Future[Started[T]]] = {}
        for name, manager in managers.items():
            owner = _Owner(name, manager, limits.get(name))
            self._owners[name] = owner
            outcomes[name] = owner.outcome
            if not parallel:
                await asyncio.wait({owner.outcome})
        if outcomes:
            await asyncio.wait(outcomes.values())
        return {name: outcome.result() for name, outcome in outcomes.items()}

    @property
    def timings(self) -> dict[str, float]:
        """Seconds from entering to ready, or to the failure, by name; what is still starting is not in it."""
        settled = {name: owner.outcome for name, owner in self._owners.items() if owner.outcome.done()}
        return {name: outcome.result().seconds for name, outcome in settled.items()}


async def _wait(tasks: set[asyncio.Task[None]], timeout_s: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_s)
