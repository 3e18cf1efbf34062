"""Which session a run belongs to, and whose turn it is in it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from llmling.errors import RunError
from llmling.events import new_id
from llmling.messages import Message, RunResult
from llmling.runtime import history
from llmling.runtime.clock import Clock
from llmling.runtime.context import RunContext
from llmling.runtime.history import History, Turn
from llmling.runtime.lease import lease
from llmling.runtime.stores import Keep
from llmling.templates import TemplateFailed, key_template

SHARED = "shared"
"""The id of the one session of an agent with `session: shared`."""
NESTED_S = 5.0
"""Longest wait for a session inside a turn of another one, in seconds."""

Start = Callable[[], Awaitable[tuple[Message, ...]]]


class OpenTurn:
    """A turn that is being taken: `context` holds the history before it."""

    def __init__(self, context: RunContext, conversation: Conversation, key: str) -> None:
        self.context = context
        self.conversation = conversation
        self.over = False
        self._key = key

    async def complete(self, asked: Message, result: RunResult) -> None:
        """Add the turn to the history, once.

        Raises:
            EngineError: It cannot be written.
        """
        await self.conversation.add(Turn(self._key, _own(asked, result)))


_inside: ContextVar[tuple[OpenTurn, ...]] = ContextVar("llmling_turns", default=())


class Conversation:
    """One session as this process knows it; the turns wait here, first come, first served.

    `turns` is None until they were read. `start` gives the messages a fork starts from, None for no fork.
    """

    def __init__(self, agent: str, id: str, keep: Keep, clock: Clock) -> None:  # noqa: A002
        self.id = id
        self.turns: tuple[Turn, ...] | None = None
        self.start: Start | None = None
        self._agent = agent
        self._keep = keep
        self._clock = clock
        self._history = History(keep, agent, id)
        self._queue = asyncio.Lock()

    @property
    def known(self) -> tuple[Message, ...] | None:
        """The history as far as it is known here, None when nothing of it was read or, of a fork, written."""
        rows = self._keep.peek(self._history.space)
        turns = self.turns if rows is None else history.read(rows)
        return None if turns is None or (not turns and self.start is not None) else history.messages_of(turns)

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Hold the session: nobody else, in any process, takes a turn meanwhile.

        Raises:
            RunError: The caller is inside a turn of this session itself, or of another one for too long.
            EngineError: The store cannot be used.
        """
        around = [turn for turn in _inside.get() if not turn.over]
        if any(turn.conversation.is_(self) for turn in around):
            raise RunError(
                f"session {self.id!r} of agent {self._agent!r} is in the middle of the turn that asks for another one: "
                "use another session id, or none"
            )
        async with AsyncExitStack() as held:
            limit = asyncio.timeout(NESTED_S if around else None)
            try:
                async with limit:
                    await held.enter_async_context(self._queue)
                    await held.enter_async_context(lease(self._keep, self._history.name, self._clock))
            except TimeoutError as error:
                if not limit.expired():
                    raise
                # Two agents that ask each other in the middle of their turns would wait for one another for ever.
                raise RunError(
                    f"session {self.id!r} of agent {self._agent!r} was not free within {NESTED_S:g} s, and who asks "
                    "holds a session too: two such agents may be waiting for each other"
                ) from error
            yield

    async def load(self) -> tuple[Message, ...]:
        """Read the history anew and return it.

        Raises:
            EngineError: The store cannot be used.
        """
        self.turns = turns = await self._history.turns()
        return history.messages_of(turns) if turns or self.start is None else await self.start()

    async def clear(self) -> None:
        """Forget the history, when it is its turn."""
        async with self.alone():
            await self._history.clear()
            self.turns, self.start = (), None

    @asynccontextmanager
    async def turn(self, context: RunContext) -> AsyncGenerator[OpenTurn]:
        """Take a turn once the ones before it are over.

        Raises:
            RunError: It is asked for inside a turn of the same session, or a fork has the id of another session.
            EngineError: The store cannot be used.
        """
        async with self.alone():
            self.turns = await self._history.turns()
            await self._begin()
            key = context.key or new_id()
            before: list[Turn] = []
            for turn in self.turns or ():
                # A delivery that is run again after its turn was written must see what it saw at first.
                if turn.key == key:
                    break
                before.append(turn)
            opened = OpenTurn(replace(context, session=self.id, history=history.messages_of(before)), self, key)
            token = _inside.set((*_inside.get(), opened))
            try:
                yield opened
            finally:
                opened.over = True
                _inside.reset(token)

    async def add(self, turn: Turn) -> None:
        """Add a turn to the history."""
        self.turns = await self._history.add(self.turns or (), turn)

    async def _begin(self) -> None:
        """Write what a fork starts from, in one row."""
        if self.start is None:
            return
        if self.turns:
            raise RunError(
                f"session {self.id!r} of agent {self._agent!r} has a history already: fork to another id, or clear it"
            )
        messages = await self.start()
        if messages:
            await self.add(Turn(f"fork {new_id()}", messages))
        self.start = None

    def is_(self, other: Conversation) -> bool:
        """Tell whether this is the same session, as another event loop may know it."""
        return self._keep is other._keep and self._history.name == other._history.name


class Conversations:
    """The sessions of one agent, and the rule by which runs find theirs."""

    def __init__(self, agent: str, rule: str, keep: Keep, clock: Clock) -> None:
        """`rule` is `event`, `shared`, or a template over `event` and `agent`."""
        self._agent = agent
        self._rule = rule
        self._keep = keep
        self._clock = clock
        # A lock belongs to a loop; sessions of another loop are kept apart by the lease.
        self._known: weakref.WeakKeyDictionary[Any, weakref.WeakValueDictionary[str, Conversation]] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, id: str) -> Conversation:  # noqa: A002
        """Return the session of that id; all who ask for it in one loop get the same object."""
        known = self._known.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
        found = known.get(id)
        if found is None:
            found = known[id] = Conversation(self._agent, id, self._keep, self._clock)
        return found

    def of(self, context: RunContext) -> Conversation | None:
        """Return the session of a run, None for one without.

        Raises:
            TemplateFailed: The key of the session cannot be made of this event.
        """
        id_ = self._id(context)
        return None if id_ is None else self.get(id_)

    def _id(self, context: RunContext) -> str | None:
        if context.session is not None:
            return context.session
        if self._rule in {"event", SHARED}:
            return SHARED if self._rule == SHARED else None
        try:
            id_ = key_template(self._rule)({"event": context.event, "agent": self._agent})
        except TemplateFailed as error:
            raise TemplateFailed(f"agent {self._agent!r}, session: {error}") from error
        if not id_.strip():
            raise TemplateFailed(f"agent {self._agent!r}, session: {self._rule!r} is empty for this event")
        return id_


def _own(asked: Message, result: RunResult) -> tuple[Message, ...]:
    """Return what a run added to the exchange: from its own user turn on."""
    for index in range(len(result.messages) - 1, -1, -1):
        if result.messages[index] is asked:
            return result.messages[index:]
    return (asked, result.message)
