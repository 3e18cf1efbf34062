"""Limits of one run."""

from __future__ import annotations

from llmling.errors import LimitExceeded
from llmling.manifest.agents import LimitsConfig
from llmling.messages import Usage

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
