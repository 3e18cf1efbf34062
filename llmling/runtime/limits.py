"""Limits of one run, and the rate at which an agent may ask its model."""

from __future__ import annotations

import asyncio
from collections import deque

from llmling.errors import LimitExceeded
from llmling.manifest.agents import LimitsConfig
from llmling.messages import Usage
from llmling.runtime.clock import Clock

LONGEST_RESULT = 200_000
"""Most characters of a tool's answer that a model is shown."""

_NOTE = 60


def shortened(text: str) -> str:
    """Return a tool's answer, cut to `LONGEST_RESULT` characters; the note at its end says so."""
    if len(text) <= LONGEST_RESULT:
        return text
    kept = LONGEST_RESULT - _NOTE
    return f"{text[:kept]}\n[cut after {kept:,} of {len(text):,} characters]"


def clipped(text: str, most: int) -> str:
    """Return a text for people to read, cut to `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def check_limits(agent: str, limits: LimitsConfig, usage: Usage, cost_usd: float | None) -> None:
    """Check what a run has used so far.

    Raises:
        LimitExceeded: A limit is passed; the message names the key to raise.
    """
    if limits.tool_calls is not None and usage.tool_calls > limits.tool_calls:
        raise LimitExceeded(
            f"agent {agent!r} asked for {usage.tool_calls} tool calls, allowed are {limits.tool_calls}: "
            "raise limits.tool_calls"
        )
    if limits.total_tokens is not None and usage.total_tokens > limits.total_tokens:
        raise LimitExceeded(
            f"run of agent {agent!r} used {usage.total_tokens} tokens, allowed are {limits.total_tokens}: "
            "raise limits.total_tokens"
        )
    if limits.cost_usd is not None and cost_usd is not None and cost_usd > limits.cost_usd:
        raise LimitExceeded(
            f"run of agent {agent!r} cost {cost_usd:.4f} USD, allowed are {limits.cost_usd:g}: raise limits.cost_usd"
        )


class RateLimit:
    """Lets at most `count` requests through in any `period_s` seconds; further ones wait their turn."""

    def __init__(self, count: int, clock: Clock, period_s: float = 60.0) -> None:
        self._count = count
        self._clock = clock
        self._period_s = period_s
        self._passed: deque[float] = deque()

    async def wait(self) -> None:
        """Return when one more request may be made; cancelling gives up the turn."""
        while True:
            now = self._clock.monotonic()
            while self._passed and now - self._passed[0] >= self._period_s:
                self._passed.popleft()
            if len(self._passed) < self._count:
                self._passed.append(now)
                return
            # Everyone waits for the same moment; whoever wakes too late looks again.
            await self._clock.sleep(self._passed[0] + self._period_s - now)
            await asyncio.sleep(0)
