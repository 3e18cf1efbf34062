"""What stays the same from run to run of one agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from llmling.asks import Approve
from llmling.frozen import frozen
from llmling.manifest.agents import ContextConfig, LimitsConfig
from llmling.protocols import Approval, Model, RetryPolicy
from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.gate import Gate
from llmling.runtime.hooks import NO_HOOKS, Hooks
from llmling.runtime.output import OutputType
from llmling.runtime.summaries import Summaries


@frozen
class Profile:
    """The model an agent asks, and by which rules."""

    agent: str
    model: Model
    limits: LimitsConfig = LimitsConfig()
    retries: RetryPolicy = RetryPolicy()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request_timeout_s: float = 60.0
    output: OutputType | None = None
    parallel_tools: bool = True
    window: ContextConfig | None = None
    summaries: Summaries = field(default_factory=Summaries)
    plan_every: int | None = None
    gate: Gate | None = None
    hooks: Hooks = NO_HOOKS
    approval: Approval = "destructive"
    approve: Approve | None = None
    clock: Clock = SYSTEM_CLOCK
