"""A conversation: runs of one agent that share a history."""

from __future__ import annotations

import asyncio
from typing import Protocol

from llmling.messages import Message, RunResult
from llmling.runtime.context import RunContext
from llmling.runtime.node import as_message, run_event


class Conversationalist(Protocol):
    """What can hold a conversation."""

    name: str

    async def answer(self, message: Message, context: RunContext) -> RunResult:
        """Answer one message in its surroundings."""
        ...


class Session:
    """A history and the agent that goes on with it; turns queue up, and a failed turn leaves the history as it was.

    Example:
        >>> chat = agent.session("user-7")
        >>> await chat.run("My name is Ada.")
        >>> await chat.run("What is my name?")
    """

    def __init__(self, agent: Conversationalist, id: str, messages: tuple[Message, ...] = ()) -> None:  # noqa: A002
        self.id = id
        self._agent = agent
        self._messages = messages
        self._turn = asyncio.Lock()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history so far, without instructions."""
        return self._messages

    async def run(self, prompt: str | Message) -> RunResult:
        """Answer a prompt with the history before it.

        Raises:
            ValueError: The prompt is empty.
            RunError: The turn failed; the history is unchanged.
        """
        message = as_message(prompt)
        async with self._turn:
            event = run_event(self._agent.name, message)
            result = await self._agent.answer(message, RunContext(event, history=self._messages))
            self._messages = tuple(turn for turn in result.messages if turn.role != "system")
        return result

    def fork(self, id: str | None = None) -> Session:  # noqa: A002
        """Return a new session that starts from this one's history."""
        return Session(self._agent, id or f"{self.id}-fork", self._messages)
