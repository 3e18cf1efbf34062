"""Many runs of one agent at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llmling.messages import Message, RunResult


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch has come: `done` of `total` have answered and `failed` have not.

    `cost_usd` is what the answers have cost, None as long as none has a known price.
    """

    done: int
    failed: int
    total: int
    cost_usd: float | None
    elapsed_s: float

    def after(self, outcome: RunResult | Exception, elapsed_s: float) -> Progress:
        """Return how far it has come with one outcome more."""
        if isinstance(outcome, Exception):
            return replace(self, failed=self.failed + 1, elapsed_s=elapsed_s)
        cost_usd = self.cost_usd if outcome.cost_usd is None else (self.cost_usd or 0.0) + outcome.cost_usd
        return replace(self, done=self.done + 1, cost_usd=cost_usd, elapsed_s=elapsed_s)


class Runner(Protocol):
    """What can be run many times."""

    async def run(self, prompt: str | Message) -> RunResult:
        """Answer one prompt."""
        ...


def as_completed(
    agent: Runner,
    prompts: Sequence[str | Message],
    *,
    max_concurrency: int | None = None,
    timeout_s: float | None = None,
) -> AsyncGenerator[tuple[int, RunResult | Exception]]:
    """Yield `(index, outcome)` as the runs end; an outcome is a result or an exception.

    At most `max_concurrency` run at once, each for at most `timeout_s`. Leaving the loop cancels the rest.

    Raises:
        TypeError: `prompts` is no list; already when it is called.
        ValueError: `max_concurrency` is below 1; likewise.
    """
    given: Any = prompts
    if isinstance(given, str) or not isinstance(given, Collection):
        raise TypeError(f"prompts should be a list, not {type(given).__name__}")
    if max_concurrency is not None and max_concurrency < 1:
        raise ValueError(f"max_concurrency should be at least 1, not {max_concurrency}")
    return _outcomes(agent, prompts, max_concurrency or max(1, len(prompts)), timeout_s)


async def _outcomes(
    agent: Runner, prompts: Sequence[str | Message], at_once: int, timeout_s: float | None
) -> AsyncGenerator[tuple[int, RunResult | Exception]]:
    limit = asyncio.Semaphore(at_once)
    outcomes: asyncio.Queue[tuple[int, RunResult | Exception]] = asyncio.Queue()

    async def one(index: int, prompt: str | Message) -> None:
        async with limit:
            clock = asyncio.timeout(timeout_s)
            try:
                async with clock:
                    outcome: RunResult | Exception = await agent.run(prompt)
            except Exception as error:  # noqa: BLE001 - every failure is an outcome the caller gets
                late = f"prompt {index} took longer than timeout_s ({timeout_s} s)"
                outcome = TimeoutError(late) if clock.expired() else error
        outcomes.put_nowait((index, outcome))

    tasks = [asyncio.create_task(one(index, prompt), name="llmling batch") for index, prompt in enumerate(prompts)]
    try:
        for _ in prompts:
            yield await outcomes.get()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_many(
    agent: Runner,
    prompts: Sequence[str | Message],
    *,
    max_concurrency: int | None = None,
    timeout_s: float | None = None,
    return_exceptions: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
) -> list[RunResult | Exception]:
    """Run every prompt and return the outcomes in the order of the prompts.

    `on_progress` is called on the loop after each of them.

    Raises:
        TypeError: `prompts` is no list.
        ValueError: `max_concurrency` is below 1.
        Exception: The first failure, unless `return_exceptions`, or one of `on_progress`; the other runs are
            cancelled then.
    """
    outcomes = as_completed(agent, prompts, max_concurrency=max_concurrency, timeout_s=timeout_s)
    results: list[RunResult | Exception | None] = [None] * len(prompts)
    progress, started = Progress(0, 0, len(prompts), None, 0.0), time.monotonic()
    try:
        async for index, outcome in outcomes:
            if on_progress is not None:
                progress = progress.after(outcome, time.monotonic() - started)
                on_progress(progress)
            if isinstance(outcome, Exception) and not return_exceptions:
                raise outcome
            results[index] = outcome
    finally:
        await outcomes.aclose()
    return [result for result in results if result is not None]
