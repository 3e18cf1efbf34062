"""A conversation as Python code holds it: runs of one agent that share a history."""

from __future__ import annotations

import asyncio
from typing import Protocol, Self

from llmling.events import new_id
from llmling.messages import Message, RunResult
from llmling.runtime.context import session_id
from llmling.runtime.conversations import Conversation, Conversations
from llmling.runtime.stream import RunStream


class Conversationalist(Protocol):
    """What can hold a conversation."""

    async def run(
        self, prompt: str | Message, *, wait_for_connections: bool | None = None, session: str | None = None
    ) -> RunResult:
        """Answer a prompt."""
        ...

    def run_stream(
        self, prompt: str | Message, *, wait_for_connections: bool | None = None, session: str | None = None
    ) -> RunStream:
        """Start a run whose events can be read."""
        ...


class Session:
    """A history and the agent that goes on with it; turns queue up, and a failed turn leaves the history as it was.

    Example:
        >>> chat = agent.session("user-7")
        >>> await chat.run("My name is Ada.")
        >>> await chat.run("What is my name?")
    """

    def __init__(
        self,
        agent: Conversationalist,
        conversations: Conversations,
        id: str,  # noqa: A002
        parent: Session | None = None,
    ) -> None:
        self.id = session_id(id)
        self._agent = agent
        self._conversations = conversations
        self._parent = parent
        # What the parent knew of itself when this one was forked; None: nothing was read yet.
        self._copied = None if parent is None else parent._known()
        self._conversation: Conversation | None = None

    async def __aenter__(self) -> Self:
        await self.load()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held: what was said is kept already."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history so far, without instructions, as far as this process has read or written it; see `load`."""
        return self._known() or ()

    async def load(self) -> tuple[Message, ...]:
        """Read the history from the store, where earlier and other processes have left it, and return it.

        Raises:
            EngineError: The store cannot be used.
        """
        return await self._here().load()

    async def run(self, prompt: str | Message, *, wait_for_connections: bool | None = None) -> RunResult:
        """Answer a prompt with the history before it; the same as `agent.run(prompt, session=id)`.

        Raises:
            ValueError: The prompt is empty.
            RunError: The turn failed; the history is unchanged.
            EngineError: The store cannot be used.
        """
        self._here()
        return await self._agent.run(prompt, wait_for_connections=wait_for_connections, session=self.id)

    def run_stream(self, prompt: str | Message, *, wait_for_connections: bool | None = None) -> RunStream:
        """Start a turn whose events can be read as they happen; leaving early cancels it and leaves the history.

        Raises:
            ValueError: The prompt is empty.
        """
        self._here()
        return self._agent.run_stream(prompt, wait_for_connections=wait_for_connections, session=self.id)

    def fork(self, id: str | None = None) -> Session:  # noqa: A002
        """Return a new session that starts from this one's history as it is now.

        It is kept with its first turn. An `id` must be that of a session without history.
        """
        return Session(self._agent, self._conversations, id or f"{self.id}-fork-{new_id()}", self)

    async def clear(self) -> None:
        """Forget the history, here and in the store, once the turns before are over.

        Raises:
            EngineError: The store cannot be used.
        """
        self._parent = self._copied = None
        await self._here().clear()

    def _here(self) -> Conversation:
        """Return the conversation of the running loop, told what it starts from."""
        conversation, before = self._conversations.get(self.id), self._conversation
        if conversation is not before:
            if before is not None and before.start is None:
                self._parent = None
            self._conversation = conversation
            if self._parent is not None:
                conversation.start = self._start
        return conversation

    async def _start(self) -> tuple[Message, ...]:
        """Return what a fork starts from."""
        if self._copied is None and self._parent is not None:
            self._copied = await self._parent.load()
        return self._copied or ()

    def _known(self) -> tuple[Message, ...] | None:
        if self._conversation is None and _in_loop():
            self._here()
        known = self._conversation and self._conversation.known
        return self._copied if known is None else known


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
