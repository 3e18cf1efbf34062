"""The typed event stream of one run."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import field
from typing import Any, Literal, TypeAlias

from llmling.errors import DecisionNeeded
from llmling.frozen import frozen
from llmling.messages import RunResult
from llmling.records import Step

RunEventType: TypeAlias = Literal[
    "run_started",
    "model_request",
    "text_delta",
    "tool_called",
    "tool_result",
    "tool_failed",
    "retry",
    "plan",
    "compacted",
    "handoff",
    "run_completed",
    "run_waiting",
    "run_failed",
]


@frozen
class RunEvent:
    """One thing that happened in a run.

    `message` says it for people, `data` holds the facts; `result` is set on `run_completed`.
    """

    type: RunEventType
    run_id: str
    agent: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    result: RunResult | None = None
    time: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @property
    def text(self) -> str:
        """The piece of text of a `text_delta`, else empty."""
        return self.message if self.type == "text_delta" else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data JSON can hold."""
        return {
            "type": self.type,
            "run_id": self.run_id,
            "agent": self.agent,
            "message": self.message,
            "time": self.time.isoformat(),
            **self.data,
        }

    def as_step(self, number: int) -> Step:
        """Return the event as a step, for a trace; `number` is its place among those of its run."""
        return Step(f"{self.run_id}:{number}", "event", self.as_data())

    def as_data(self) -> dict[str, Any]:
        """Return the event as the data of a step."""
        return {
            "type": self.type,
            "agent": self.agent,
            "message": self.message,
            "data": dict(self.data),
            "run": self.run_id,
            "time": self.time.timestamp(),
        }


def ended(error: BaseException) -> tuple[RunEventType, str]:
    """Return how a run ended that has no answer, and why."""
    if isinstance(error, asyncio.CancelledError):
        return "run_failed", "the run was cancelled"
    return ("run_waiting" if isinstance(error, DecisionNeeded) else "run_failed"), str(error) or type(error).__name__


def completed(run_id: str, agent: str, result: RunResult) -> RunEvent:
    """Return the event of a run's end, with what a reader of plain data wants to know of the result."""
    data = {
        "model": result.model,
        "stop_reason": result.stop_reason,
        "usage": result.usage.to_dict(),
        "cost_usd": result.cost_usd,
        "latency_s": round(result.latency_s, 3),
    }
    return RunEvent("run_completed", run_id, agent, result.response, data, result)


Listener: TypeAlias = Callable[[RunEvent], None]


def silent(event: RunEvent) -> None:
    """Listen to nothing."""


class RunStream:
    """A run whose events can be read while it goes on.

    Use it as `async with agent.run_stream(...) as stream: async for event in stream`, or iterate it at once. Leaving
    the block or the loop early cancels the run and its HTTP request. An error of the run is raised after its
    `run_failed` event. `result` is there once the stream has ended.
    """

    def __init__(self, start: Callable[[Listener], Awaitable[RunResult]]) -> None:
        self._start = start
        # As an `asyncio.Queue` with one reader, which costs a quarter of all that is done for a piece of text.
        self._events: deque[RunEvent | None] = deque()
        self._news: asyncio.Future[None] | None = None
        self._task: asyncio.Task[RunResult] | None = None

    @property
    def result(self) -> RunResult:
        """The outcome of the run.

        Raises:
            RuntimeError: The stream has not ended yet.
            RunError: The run failed.
        """
        if self._task is None or not self._task.done():
            raise RuntimeError("the stream has not ended: read it to its end before asking for the result")
        return self._task.result()

    async def __aenter__(self) -> RunStream:
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    def _begin(self) -> asyncio.Task[RunResult]:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="llmling run_stream")
        return self._task

    async def _run(self) -> RunResult:
        try:
            return await self._start(self._put)
        finally:
            self._put(None)

    def _put(self, event: RunEvent | None) -> None:
        self._events.append(event)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _end(self) -> None:
        task = self._task
        if task is None:
            return
        if not task.done():
            task.cancel()
        # The error of a failed run was raised by the iteration; here it is only collected.
        await asyncio.gather(task, return_exceptions=True)

    async def __aiter__(self) -> AsyncIterator[RunEvent]:
        task = self._begin()
        try:
            while True:
                while not self._events:
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news
                if (event := self._events.popleft()) is None:
                    break
                yield event
            await task
        finally:
            await self._end()
