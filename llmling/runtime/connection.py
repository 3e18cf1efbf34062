"""A directed edge between two nodes, with a bounded channel and a worker of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmling.errors import Full, LLMlingError
from llmling.events import Event
from llmling.frozen import frozen
from llmling.messages import Message
from llmling.runtime.callables import call_user
from llmling.runtime.channel import Channel, Outstanding
from llmling.runtime.tracing import Place, below
from llmling.templates import expression

if TYPE_CHECKING:
    from llmling.runtime.node import Node


@frozen
class Envelope:
    """A message on its way, the event it belongs to, and the counter of everything that event still has under way.

    `place` is what caused it, in the trace of its event.
    """

    message: Message
    event: Event
    tree: Outstanding
    hops: int = 0
    place: Place | None = None

    def next(self) -> Envelope:
        """Return the envelope one hop further."""
        return replace(self, hops=self.hops + 1)


class Connection:
    """Answers of `source` become messages of `target`.

    The channel between them is as large as the target's inbox. When it is full the source waits, except in a cycle:
    there waiting could never end, so the message is refused and recorded.
    """

    def __init__(
        self,
        source: Node,
        target: Node,
        *,
        when: str | Callable[[Message], Any] | None = None,
        transform: Callable[[Message], Any] | None = None,
        wait: bool = False,
        size: int = 1000,
    ) -> None:
        self.source = source
        self.target = target
        self.when = when
        self.transform = transform
        self.wait = wait
        self._condition = expression(when) if isinstance(when, str) else None
        self.channel: Channel[Envelope] = Channel(
            self._carry, name=f"channel {source.name} >> {target.name}", size=size
        )

    def __repr__(self) -> str:
        return f"<Connection {self.source.name} >> {self.target.name}>"

    async def send(self, envelope: Envelope) -> None:
        """Queue a message for the target.

        Raises:
            Full: The channel is full and part of a cycle.
        """
        if self.channel.full and _reaches(self.target, self.source):
            raise Full(f"{self.channel.name} is full and part of a cycle: give the cycle a `when`")
        self.target.announce(envelope)
        try:
            await self.channel.put(envelope)
        except BaseException:
            self.target.settled(envelope)
            raise

    async def shape(self, message: Message, event: Event) -> Message | None:
        """Return the message as the target gets it, or None when this edge is not taken."""
        if self._condition is not None:
            if not self._condition({"message": message, "event": event}):
                return None
        elif callable(self.when) and not await call_user(self.when, message):
            return None
        changed: Any = message if self.transform is None else await call_user(self.transform, message)
        if changed is None:
            return None
        text = changed.text if isinstance(changed, Message) else str(changed)
        # Whatever an agent said is what the next one is asked.
        return Message.user(text, name=self.source.name) if text.strip() else None

    async def _carry(self, envelope: Envelope) -> None:
        try:
            with below(envelope.place):
                message = await self.shape(envelope.message, envelope.event)
            if message is not None:
                await self.target.take(replace(envelope, message=message))
        except LLMlingError as error:
            self.target.fail(envelope.message, f"{self.channel.name}: {error}")
        except Exception as error:  # noqa: BLE001 - the supervised border around callables of the user
            self.target.fail(envelope.message, f"{self.channel.name}: {type(error).__name__}: {error}")
        finally:
            self.target.settled(envelope)


def _reaches(start: Node, goal: Node) -> bool:
    seen: set[int] = set()
    stack = [start]
    while stack:
        node = stack.pop()
        if node is goal:
            return True
        if id(node) not in seen:
            seen.add(id(node))
            stack.extend(connection.target for connection in node.connections)
    return False
