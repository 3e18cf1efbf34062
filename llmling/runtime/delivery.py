"""One delivery from the engine: run the agent, send the answer, name what follows, and say how it ended."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from llmling.errors import DecisionNeeded, LLMlingError, ModelError, RunError
from llmling.manifest.agents import RedeliveryConfig
from llmling.masking import masked
from llmling.messages import Message, RunResult
from llmling.protocols import Again, Answer, Dead, Delivery, Done, Settlement, Step, Waiting, Work
from llmling.records import gone
from llmling.runtime.context import RunContext, ScopedJournal
from llmling.runtime.node import CallableNode, Dropped, Node, hop_limit
from llmling.runtime.spans import event_place
from llmling.runtime.tracing import below
from llmling.runtime.waiting import AskedJournal, Counter, waiting_reason

if TYPE_CHECKING:
    from llmling.runtime.connection import Connection

logger = logging.getLogger("llmling.delivery")
# Of its own, so that whoever shows waiting events to a person can silence it.
waiting_logger = logging.getLogger("llmling.delivery.waiting")


class Deliveries:
    """Runs deliveries on the nodes of a pool; what an engine is started with.

    `nodes` may change meanwhile: a delivery runs on the node of its agent's name at that moment.
    """

    def __init__(
        self, nodes: Mapping[str, Node], redelivery: Mapping[str, RedeliveryConfig], max_hops: int, counter: Counter
    ) -> None:
        self._nodes = nodes
        self._redelivery = redelivery
        self._max_hops = max_hops
        self._counter = counter
        self._past: WeakSet[Node] = WeakSet()
        self._coming: asyncio.Event | None = None
        self.runs: dict[tuple[str, str], int] = {}

    def update(self, redelivery: Mapping[str, RedeliveryConfig], max_hops: int, past: Iterable[Node]) -> None:
        """Go on by other rules; `past` are nodes that have left the pool, whose runs still end."""
        self._redelivery = redelivery
        self._max_hops = max_hops
        self._past.update(past)

    @contextmanager
    def coming(self) -> Generator[None]:
        """Let deliveries of agents that are not there wait for the end, since they may be there then."""
        self._coming = over = asyncio.Event()
        try:
            yield
        finally:
            self._coming = None
            over.set()

    async def __call__(self, work: Work) -> Settlement:
        """Run one delivery to its settlement; only a defect of llmling itself raises."""
        with below(event_place(work.event)):
            return await self._settle(work)

    async def _settle(self, work: Work) -> Settlement:
        while work.delivery.agent not in self._nodes and self._coming is not None:
            await self._coming.wait()
        node = self._nodes.get(work.delivery.agent)
        if node is None:
            return Dead(gone(work.delivery.agent))
        asked = AskedJournal(work.journal)
        work = Work(work.delivery, work.event, work.attempt, asked)
        context = RunContext(work.event, work.journal, key=work.delivery.id)
        try:
            result = await node.answer(work.delivery.message, context)
            if node.sinks:
                await self._send(node, result, work)
            successors: Sequence[Delivery] = ()
            if node.connections:
                successors = await self._successors(node, result.message, work, work.delivery.id, work.delivery.hops)
        except DecisionNeeded as error:
            reason = waiting_reason(asked.asks, error, work.event.id, self._counter)
            waiting_logger.warning("event %s waits for a decision, agent %r: %s", work.event.id, node.name, reason)
            return self._ended(node, Waiting(reason, context.meter.cost_usd))
        except LLMlingError as error:
            reason = masked(await _reason(error, work, context.meter.asked))
            settlement = self._failed(error, reason, work, context.meter.cost_usd)
            if isinstance(settlement, Again):
                last = work.attempt >= self._policy(node.name).attempts
                then = "no try is left" if last else f"next try in {settlement.after_s:.1f} s"
                logger.warning(
                    "event %s, agent %r, try %d failed: %s; %s", work.event.id, node.name, work.attempt, reason, then
                )
            return self._ended(node, settlement)
        settlement = Done(result.response, tuple(successors), context.meter.usage, context.meter.cost_usd, result.model)
        return self._ended(node, settlement)

    def _ended(self, node: Node, settlement: Settlement) -> Settlement:
        key = (node.name, type(settlement).__name__.lower())
        self.runs[key] = self.runs.get(key, 0) + 1
        return settlement

    def _policy(self, agent: str) -> RedeliveryConfig:
        return self._redelivery.get(agent, RedeliveryConfig())

    def _failed(self, error: LLMlingError, reason: str, work: Work, cost_usd: float | None) -> Settlement:
        # What is not a failure of the run itself (a part still down, a full disk) may pass, so it is tried again.
        retryable = error.retryable if isinstance(error, RunError) else True
        if not retryable:
            return Dead(reason, cost_usd)
        policy = self._policy(work.delivery.agent)
        ceiling = min(policy.max_backoff_s, policy.backoff_s * 2 ** (work.attempt - 1))
        after_s = random.uniform(ceiling / 2, ceiling)
        if isinstance(error, ModelError) and error.retry_after_s is not None:
            after_s = max(after_s, error.retry_after_s)
        return Again(reason, after_s, cost_usd)

    async def _send(self, node: Node, result: RunResult, work: Work) -> None:
        answer = Answer(result.response, result.content, result.message, work.event, node.name, work.delivery.id)
        for index, sink in enumerate(node.sinks):
            key = f"sink {index}:sent"
            if work.journal.recorded(key) is None:
                # Whoever sends it again after a crash sends the same answer; and who is cut off from its engine waits
                # here, until somebody else runs this.
                await work.journal.flush()
                await sink.send(answer)
                await work.journal.record(Step(key, "sent", {"sink": sink.name}))

    async def _successors(self, node: Node, answer: Message, work: Work, path: str, hops: int) -> list[Delivery]:
        deliveries: list[Delivery] = []
        connections = tuple(node.connections)
        for index, connection in enumerate(connections):
            part = _part(connections, connection.target, index)
            deliveries.extend(await self._follow(connection, answer, work, f"{path}/{part}", hops))
        return deliveries

    async def _follow(
        self, connection: Connection, answer: Message, work: Work, path: str, hops: int
    ) -> list[Delivery]:
        target = connection.target
        try:
            message = await connection.shape(answer, work.event)
        except Exception as error:  # noqa: BLE001 - the border to conditions and transforms of the user
            reason = masked(f"connection {connection.source.name} >> {target.name}: {type(error).__name__}: {error}")
            logger.warning("event %s: %s", work.event.id, reason)
            return [_next(work, path, target, answer, hops + 1, reason)]
        if message is None:
            return []
        if hops + 1 > self._max_hops:
            reason = hop_limit(connection.source.name, target.name, self._max_hops)
            return [_next(work, path, target, message, hops + 1, reason)]
        if self._nodes.get(target.name) is target or target in self._past:
            return [_next(work, path, target, message, hops + 1)]
        return await self._inline(target, message, work, path, hops + 1)

    async def _inline(self, target: Node, message: Message, work: Work, path: str, hops: int) -> list[Delivery]:
        # A callable or an agent from outside the manifest has no name another process could find: it is run here,
        # as part of this delivery, and repeated with it, an agent from its steps.
        try:
            inner = RunContext(work.event, ScopedJournal(work.journal, f"{path}: "), key=path)
            result = await target.answer(message, inner)
        except Dropped:
            return []
        except (asyncio.CancelledError, DecisionNeeded):
            raise
        except Exception as error:  # noqa: BLE001 - a failing target never fails its source
            reason = f"{type(error).__name__}: {error}" if isinstance(target, CallableNode) else str(error)
            return [_next(work, path, target, message, hops, masked(reason))]
        return await self._successors(target, result.message, work, path, hops)


_FAILED = "tries:failed"


async def _reason(error: LLMlingError, work: Work, asked: int) -> str:
    """Return why a try failed and what all tries of the delivery have asked of models, however many layers retry."""
    step = work.journal.recorded(_FAILED)
    # Tries given back by an operator count anew.
    if step is not None and step.data["tries"] < work.attempt:
        asked += step.data["requests"]
    await work.journal.record(Step(_FAILED, "failed", {"tries": work.attempt, "requests": asked}))
    if asked == 0:
        return str(error)
    requests = "1 model request" if asked == 1 else f"{asked} model requests"
    tries = "1 try" if work.attempt == 1 else f"{work.attempt} tries"
    return f"{error} [{requests} in {tries} of the delivery]"


def _next(work: Work, path: str, target: Node, message: Message, hops: int, dead: str | None = None) -> Delivery:
    """Return a delivery that follows; key and priority of its event go with it."""
    before = work.delivery
    return Delivery(
        path,
        before.event_id,
        target.name,
        message,
        hops,
        dead,
        order_key=before.order_key,
        priority=before.priority,
    )


def _part(connections: Sequence[Connection], target: Node, index: int) -> str:
    # Two edges to one target are two deliveries; the position keeps their ids apart and the same on every attempt.
    first = next(number for number, other in enumerate(connections) if other.target is target)
    return target.name if first == index else f"{target.name}.{index}"
