"""What the members of a team made of its message: answers, failures, and what both have cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from llmling.errors import DecisionNeeded, EngineError, LLMlingError, RunError
from llmling.messages import RunResult, Usage
from llmling.runtime.context import Meter
from llmling.runtime.node import Dropped


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer, or why there is none; `error` is None without a `result` when a callable dropped the message."""

    title: str
    spent: Meter
    result: RunResult | None = None
    error: LLMlingError | None = None

    @property
    def usage(self) -> Usage:
        """What it used, also when it failed."""
        return self.spent.usage if self.result is None else self.result.usage

    @property
    def cost_usd(self) -> float | None:
        """What it cost, also when it failed."""
        return self.spent.cost_usd if self.result is None else self.result.cost_usd


async def attempt(title: str, spent: Meter, answer: Callable[[], Awaitable[RunResult]]) -> Attempt:
    """Return the outcome of one answer, whatever it is."""
    try:
        return Attempt(title, spent, await answer())
    except Dropped:
        return Attempt(title, spent)
    except LLMlingError as error:
        return Attempt(title, spent, error=error)
    except Exception as error:  # noqa: BLE001 - the border to callables of the user
        return Attempt(title, spent, error=RunError(f"{type(error).__name__}: {error}"))


async def gathered(attempts: Sequence[Callable[[], Awaitable[Attempt]]], most: int | None = None) -> list[Attempt]:
    """Return the outcomes in order, at most `most` of them at work at once.

    Raises:
        DecisionNeeded: A person must decide first; until then there is no answer of the whole team.
        EngineError: The engine cannot be written: no failure of a member, and gone when the team is tried again.
        LLMlingError: Nobody answered; an error that may be gone later is raised first.
        Dropped: Nobody answered, and nobody failed.
    """
    limit = asyncio.Semaphore(most or max(1, len(attempts)))

    async def one(work: Callable[[], Awaitable[Attempt]]) -> Attempt:
        async with limit:
            return await work()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(work)) for work in attempts]
    outcomes = [task.result() for task in tasks]
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    for error in errors:
        if isinstance(error, DecisionNeeded | EngineError):
            raise error
    if any(outcome.result is not None for outcome in outcomes):
        return outcomes
    if not errors:
        raise Dropped
    raise next((error for error in errors if isinstance(error, RunError) and error.retryable), errors[0])
