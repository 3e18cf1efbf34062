"""A node whose runs Python code starts: as a stream, from sync code, or many together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from llmling import loops
from llmling.events import Event
from llmling.messages import Message, RunResult
from llmling.runtime import batch
from llmling.runtime.context import RunContext, session_id
from llmling.runtime.node import Node, as_message, run_event
from llmling.runtime.stream import Listener, RunStream
from llmling.runtime.sync import refuse_in_loop

Prompt: TypeAlias = "str | Message"


class Runnable(Node):
    """What agents and teams offer beside `run`."""

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop its parts belong to, None when any will do."""
        return None

    @property
    def notice(self) -> str:
        """A line a person should read about its model, such as that it is a demo; else empty."""
        return ""

    async def open(self) -> None:
        """Start its parts; a pool calls this."""

    async def aclose(self) -> None:
        """Stop what is queued, and its parts."""
        await self.close_channels()

    def run_stream(
        self,
        prompt: Prompt,
        *,
        wait_for_connections: bool | None = None,
        event: Event | None = None,
        session: str | None = None,
    ) -> RunStream:
        """Start a run whose events can be read as they happen.

        Use `async with` or iterate it at once; leaving early cancels the run and its HTTP request. `session` is as
        for `run`.

        Raises:
            ValueError: The prompt or the id is empty.
        """
        message = as_message(prompt)
        session = None if session is None else session_id(session)

        async def start(listen: Listener) -> RunResult:
            envelope = self.envelope(message, event or run_event(self.name, message))
            context = RunContext(envelope.event, listen=listen, streaming=True, session=session)
            result = await self.answer(message, context)
            await self.pass_on(result, envelope, wait=wait_for_connections)
            return result

        return RunStream(start)

    def run_sync(self, prompt: Prompt) -> RunResult:
        """Run from code without an event loop, on any thread.

        Raises:
            SyncInAsyncError: Called inside a running event loop; write `await agent.run(...)` there.
            RunError: The run failed.
        """
        refuse_in_loop("run_sync", "await agent.run(...)")
        home = self.home
        if home is not None and home.is_running():
            return asyncio.run_coroutine_threadsafe(self.run(prompt), home).result()
        return loops.run(self._alone(self.run(prompt)))

    async def _alone(self, run: Coroutine[Any, Any, RunResult]) -> RunResult:
        result = await run
        await self._under_way.wait()
        return result

    async def run_many(
        self,
        prompts: Sequence[Prompt],
        *,
        max_concurrency: int | None = None,
        timeout_s: float | None = None,
        return_exceptions: bool = False,
        on_progress: Callable[[batch.Progress], object] | None = None,
    ) -> list[Any]:
        """Run every prompt, at most `max_concurrency` at once; outcomes come in the order of the prompts.

        `on_progress` hears, after each of them, how many have answered and failed, what they cost and how long it
        has taken.

        Raises:
            TypeError: `prompts` is no list.
            ValueError: `max_concurrency` is below 1.
            Exception: The first failure, unless `return_exceptions`, or one of `on_progress`; the other runs are
                cancelled then.
        """
        return await batch.run_many(
            self,
            prompts,
            max_concurrency=max_concurrency,
            timeout_s=timeout_s,
            return_exceptions=return_exceptions,
            on_progress=on_progress,
        )

    def as_completed(
        self, prompts: Sequence[Prompt], *, max_concurrency: int | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[tuple[int, RunResult | Exception]]:
        """Yield `(index, outcome)` as the runs end; leaving the loop cancels the rest.

        Raises:
            TypeError: `prompts` is no list.
            ValueError: `max_concurrency` is below 1.
        """
        return batch.as_completed(self, prompts, max_concurrency=max_concurrency, timeout_s=timeout_s)
