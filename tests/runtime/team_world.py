"""Members, messages and a journal for tests of teams."""

from __future__ import annotations

from typing import Any

from llmling import Agent, Event, Message
from llmling.messages import ToolCallPart, Usage
from llmling.protocols import ModelResponse, Step
from llmling.runtime.context import RunContext
from llmling.testing import ScriptedModel


class KeptJournal:
    """A journal that keeps its steps, as an engine does, over a restart."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}

    def recorded(self, key: str) -> Step | None:
        return self.steps.get(key)

    async def record(self, step: Step, *, committed: bool = False) -> None:
        self.steps[step.key] = step

    def note(self, step: Step) -> None:
        """Nobody reads the trace here, so the steps are those that a restart goes on from."""

    async def flush(self) -> None:
        pass


def surroundings(journal: KeptJournal, data: Any = None) -> RunContext:
    """Return what surrounds one attempt of a delivery."""
    return RunContext(Event(source="test", type="test", subject="", data=data, id="event-1"), journal)


def paid(text: str, cost_usd: float = 0.01, tokens: int = 10) -> ModelResponse:
    """Return an answer with a price."""
    return ModelResponse(Message.assistant(text), Usage(tokens, 0, 1), "m", "stop", cost_usd)


def asks(name: str, **arguments: Any) -> ModelResponse:
    """Return an answer with a price that calls one tool."""
    return ModelResponse(
        Message("assistant", (ToolCallPart("c1", name, arguments),)), Usage(10, 0, 1), "m", "tool_calls", 0.01
    )


def echo(name: str, description: str = "") -> Agent:
    """Return an agent that answers `name(message)`."""
    model = ScriptedModel(lambda request: paid(f"{name}({request.messages[-1].text})"))
    return Agent(name, model=model, description=description)
