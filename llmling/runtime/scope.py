"""What is true around one run and needed far below it, without a parameter on every way down."""

from __future__ import annotations

from contextvars import ContextVar

from llmling.events import Event
from llmling.records import RunInfo

current_event: ContextVar[Event | None] = ContextVar("llmling_event", default=None)
"""The event the running task works on; None outside of a run."""

current_request: ContextVar[RunInfo | None] = ContextVar("llmling_request", default=None)
"""The run that asks its model; None when nobody may be kept waiting for a person, since an engine keeps the run."""
