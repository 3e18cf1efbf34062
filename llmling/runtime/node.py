"""A node of the graph: what agents, teams and callables share, and the operators that join them."""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

from llmling import plugins
from llmling.errors import LimitExceeded, LLMlingError, RunError
from llmling.events import RUN, Event, new_id
from llmling.manifest.agents import InboxConfig
from llmling.messages import Message, RunResult, Usage
from llmling.protocols import Answer, Sink
from llmling.runtime.callables import call_user
from llmling.runtime.channel import Channel, Outstanding
from llmling.runtime.connection import Connection, Envelope
from llmling.runtime.context import RunContext, session_id
from llmling.runtime.tracing import Place, below, current_span, place_of

if TYPE_CHECKING:
    from llmling.runtime.services import Services

logger = logging.getLogger("llmling")
Target: TypeAlias = "Node | Callable[[Message], Any]"

DEFAULT_INBOX = InboxConfig()


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that could not be delivered between nodes, and why."""

    node: str
    message: Message
    reason: str


class Dropped(Exception):
    """A callable returned None: the message ends here."""


class Node(ABC):
    """Something that answers messages and passes its answers on."""

    def __init__(
        self, name: str, *, description: str = "", concurrency: int = 4, inbox: InboxConfig = DEFAULT_INBOX
    ) -> None:
        self.name = name
        self.description = description
        self.connections: list[Connection] = []
        self.sinks: list[Sink] = []
        self.dead_sinks: list[Sink] = []
        self.max_hops = 10
        self.max_messages = 200
        self._under_way = Outstanding()
        self._answers = Outstanding()
        self._concurrency = concurrency
        self._inbox_config = inbox

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @functools.cached_property
    def failures(self) -> deque[Failure]:
        """The newest messages that could not be delivered to it."""
        return deque(maxlen=100)

    @functools.cached_property
    def _inbox(self) -> Channel[Envelope]:
        inbox = self._inbox_config
        return Channel(
            self._settle,
            name=f"inbox of {self.name!r}",
            workers=self._concurrency,
            size=inbox.size,
            overflow=inbox.overflow,
            dropped=self._drop,
        )

    def add_sinks(self, configs: Iterable[Any], services: Services) -> None:
        """Build the sinks of a manifest: those for answers, and those for dead events."""
        for config in configs:
            sinks = self.dead_sinks if getattr(config, "on", "answer") == "dead" else self.sinks
            sinks.append(plugins.create("sinks", config, services))

    # --- joining ---------------------------------------------------------------------------------------------------

    def connect_to(
        self,
        target: Target,
        *,
        when: str | Callable[[Message], Any] | None = None,
        transform: Callable[[Message], Any] | None = None,
        wait: bool = False,
    ) -> Connection:
        """Send every answer of this node to `target` from now on.

        `when` is an expression over `message` and `event`, or a callable; `transform` may change the message or
        drop it by returning None; both may be async. With `wait`, `run` returns when the target has settled too.
        """
        connection = Connection(self, as_node(target), when=when, transform=transform, wait=wait)
        self.connections.append(connection)
        return connection

    def disconnect(self, target: Node) -> None:
        """Stop sending answers to `target`."""
        self.connections = [connection for connection in self.connections if connection.target is not target]

    @overload
    def __rshift__(self, other: Target) -> Node: ...
    @overload
    def __rshift__(self, other: Sequence[Target]) -> Fan: ...
    def __rshift__(self, other: Target | Sequence[Target]) -> Node | Fan:
        """Connect to one target, a list of them, or a callable; returns the other side, so chains read on."""
        if isinstance(other, Sequence):
            targets = cast("Sequence[Target]", other)
            return Fan([self.connect_to(target).target for target in targets])
        return self.connect_to(other).target

    # --- answering -------------------------------------------------------------------------------------------------

    @abstractmethod
    async def answer(self, message: Message, context: RunContext) -> RunResult:
        """Answer one message, without sinks and connections.

        Raises:
            RunError: It failed.
        """

    async def run(
        self,
        prompt: str | Message,
        *,
        wait_for_connections: bool | None = None,
        event: Event | None = None,
        session: str | None = None,
    ) -> RunResult:
        """Answer a prompt and send the answer to sinks and connections.

        `wait_for_connections`: True returns when everything downstream has settled, False at once, None leaves it to
        each connection's own `wait`. A failing target never fails this run. Cancelling it ends the model request.
        `session` is the id of a conversation to go on with; None leaves it to the agent's own `session`.

        Raises:
            ValueError: The prompt or the id is empty.
            RunError: The run failed.
        """
        message = as_message(prompt)
        session = None if session is None else session_id(session)
        event = event or run_event(self.name, message)
        result = await self.answer(message, RunContext(event, session=session))
        if self.sinks or self.connections:
            await self.pass_on(result, self.envelope(message, event), wait=wait_for_connections)
        return result

    def answering(self) -> AbstractContextManager[None]:
        """Count an answer as being made while inside."""
        return self._answers

    def turn_over(self) -> Outstanding:
        """Return the counter of the answers being made; those from now on are counted anew."""
        answers, self._answers = self._answers, Outstanding()
        return answers

    async def submit(self, prompt: str | Message, *, event: Event | None = None) -> None:
        """Queue a message in the inbox and return; failures are recorded in `failures`.

        Raises:
            ValueError: The prompt is empty.
            Full: The inbox is full and configured to refuse.
        """
        message = as_message(prompt)
        await self.take(self.envelope(message, event or run_event(self.name, message)))

    def envelope(self, message: Message, event: Event) -> Envelope:
        """Return a message at the start of its way."""
        span = current_span()
        return Envelope(message, event, Outstanding(), place=span and place_of(span))

    async def take(self, envelope: Envelope) -> None:
        """Put an envelope into the inbox."""
        self.announce(envelope)
        try:
            await self._inbox.put(envelope)
        except BaseException:
            self.settled(envelope)
            raise

    def announce(self, envelope: Envelope) -> None:
        """Count a message as under way to this node."""
        self._under_way.add()
        envelope.tree.add()

    def settled(self, envelope: Envelope) -> None:
        """Count a message as settled."""
        self._under_way.done()
        envelope.tree.done()

    @property
    def busy(self) -> bool:
        """Whether a message to this node is under way."""
        return len(self._under_way) > 0

    async def complete_tasks(self) -> None:
        """Return when every message already sent to this node, in channel, inbox or run, has settled."""
        await self._under_way.wait()

    async def _settle(self, envelope: Envelope) -> None:
        try:
            # The worker's own surroundings are those of whoever happened to fill the inbox first.
            with below(envelope.place):
                result = await self.answer(envelope.message, RunContext(envelope.event))
                await self.pass_on(result, envelope)
        except Dropped:
            pass
        except LLMlingError as error:
            self.fail(envelope.message, str(error))
        except Exception as error:
            logger.exception("node %r failed on a message", self.name)
            self.fail(envelope.message, f"{type(error).__name__}: {error}")
        finally:
            self.settled(envelope)

    def _drop(self, envelope: Envelope, reason: str) -> None:
        self.fail(envelope.message, reason)
        self.settled(envelope)

    def fail(self, message: Message, reason: str) -> None:
        """Record and log a message that could not be delivered."""
        self.failures.append(Failure(self.name, message, reason))
        logger.warning("message for %r failed: %s", self.name, reason)

    async def pass_on(self, result: RunResult, envelope: Envelope, *, wait: bool | None = False) -> None:
        """Send an answer to the sinks and over every connection, as `run` does."""
        if not self.sinks and not self.connections:
            return
        answer = Answer(
            result.response,
            result.content,
            result.message,
            envelope.event,
            self.name,
            f"{envelope.event.id}/{self.name}",
        )
        for sink in self.sinks:
            try:
                await sink.send(answer)
            except RunError as error:
                self.fail(result.message, f"sink {sink.name}: {error}")
        waits: list[Outstanding] = []
        for connection in tuple(self.connections):
            tree = Outstanding(envelope.tree)
            onward = replace(envelope, message=result.message, tree=tree, place=_place(result) or envelope.place)
            await self._send(connection, result.message, onward)
            if wait or (wait is None and connection.wait):
                waits.append(tree)
        for tree in waits:
            await tree.wait()

    async def _send(self, connection: Connection, message: Message, envelope: Envelope) -> None:
        try:
            if envelope.hops + 1 > self.max_hops:
                raise LimitExceeded(hop_limit(self.name, connection.target.name, self.max_hops))
            if envelope.tree.root.total >= self.max_messages:
                raise LimitExceeded(
                    f"this event already caused {self.max_messages} messages: raise limits.max_messages_per_event"
                )
            await connection.send(envelope.next())
        except LLMlingError as error:
            connection.target.fail(message, str(error))

    async def close_channels(self) -> None:
        """Cancel what is queued and under way between this node and its targets."""
        for connection in self.connections:
            for envelope in await connection.channel.aclose():
                connection.target.settled(envelope)
        for envelope in await self._inbox.aclose():
            self.settled(envelope)


class CallableNode(Node):
    """A Python callable as a node: `(Message) -> Message | str | None`, sync or async; None ends the message."""

    def __init__(self, function: Callable[[Message], Any]) -> None:
        super().__init__(getattr(function, "__name__", type(function).__name__))
        self.function = function

    async def answer(self, message: Message, context: RunContext) -> RunResult:
        """Call the callable.

        Raises:
            Dropped: It returned None.
        """
        changed = await call_user(self.function, message)
        if changed is None:
            raise Dropped
        answer = changed if isinstance(changed, Message) else Message.assistant(str(changed), name=self.name)
        return RunResult(answer.text, answer, (message, answer), Usage(), "", self.name, new_id())


class Fan:
    """Several nodes on the right of `>>`; another `>>` connects each of them."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    @overload
    def __rshift__(self, other: Target) -> Node: ...
    @overload
    def __rshift__(self, other: Sequence[Target]) -> Fan: ...
    def __rshift__(self, other: Target | Sequence[Target]) -> Node | Fan:
        """Connect every node of the fan; a callable becomes one shared node."""
        if isinstance(other, Sequence):
            targets = cast("Sequence[Target]", other)
            return Fan([self >> as_node(target) for target in targets])
        shared = as_node(other)
        for node in self.nodes:
            node.connect_to(shared)
        return shared


def _place(result: RunResult) -> Place | None:
    return Place(result.spans[-1].trace_id, result.spans[-1].span_id) if result.spans else None


def as_node(target: Target) -> Node:
    """Return a node as it is, and a callable wrapped into one."""
    return target if isinstance(target, Node) else CallableNode(target)


def reachable(nodes: Iterable[Node]) -> list[Node]:
    """Return these nodes and every node their answers can reach."""
    found: dict[int, Node] = {}
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found[id(node)] = node
            stack.extend(connection.target for connection in node.connections)
    return list(found.values())


def as_message(prompt: str | Message) -> Message:
    """Return a prompt as a message.

    Raises:
        TypeError: It is neither a text nor a message.
        ValueError: It is empty.
    """
    message: Any = Message.user(prompt) if isinstance(prompt, str) else prompt
    if not isinstance(message, Message):
        raise TypeError(f"the prompt should be a text or a Message, not {type(message).__name__}")
    if not message.text.strip():
        raise ValueError("the prompt is empty: pass the text the agent should answer")
    return message


def run_event(agent: str, message: Message) -> Event:
    """Return the event of a run that Python code started."""
    return Event(source="run", type=RUN, subject=agent, data=message.text)


def hop_limit(source: str, target: str, max_hops: int) -> str:
    """Return the reason a message may not go on."""
    return f"hop limit: {source} >> {target} would be hop {max_hops + 1}; raise limits.max_hops or break the cycle"
