"""Many runs of one agent at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from llmling.messages import Message, RunResult


class Runner(Protocol):
    """What can be run many times."""

    async def run(self, prompt: str | Message) -> RunResult:
        """Answer one prompt."""
        ...


async def as_completed(
    agent: Runner,
    prompts: Sequence[str | Message],
    *,
    max_concurrency: int | None = None,
    timeout_s: float | None = None,
) -> AsyncGenerator[tuple[int, RunResult | Exception]]:
    """Yield `(index, outcome)` as the runs end; an outcome is a result or an exception.

    At most `max_concurrency` run at once, each for at most `timeout_s`. Leaving the loop cancels the rest.
    """
    limit = asyncio.Semaphore(max_concurrency or max(1, len(prompts)))
    outcomes: asyncio.Queue[tuple[int, RunResult | Exception]] = asyncio.Queue()

    async def one(index: int, prompt: str | Message) -> None:
        async with limit:
            try:
                async with asyncio.timeout(timeout_s):
                    outcome: RunResult | Exception = await agent.run(prompt)
            except TimeoutError:
                outcome = TimeoutError(f"prompt {index} took longer than timeout_s ({timeout_s:g} s)")
            except Exception as error:  # noqa: BLE001 - every failure is an outcome the caller gets
                outcome = error
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
) -> list[RunResult | Exception]:
    """Run every prompt and return the outcomes in the order of the prompts.

    Raises:
        Exception: The first failure, unless `return_exceptions`; the other runs are cancelled then.
    """
    results: list[RunResult | Exception | None] = [None] * len(prompts)
    outcomes = as_completed(agent, prompts, max_concurrency=max_concurrency, timeout_s=timeout_s)
    try:
        async for index, outcome in outcomes:
            if isinstance(outcome, Exception) and not return_exceptions:
                raise outcome
            results[index] = outcome
    finally:
        await outcomes.aclose()
    return [result for result in results if result is not None]
