"""The way of one agent's deliveries into this process: as many are asked for as it may take."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

from llmling.engines.jetstream.book import Book, token
from llmling.engines.line import OVERTAKEN
from llmling.errors import EngineError
from llmling.protocols import Policy

log = logging.getLogger("llmling.engine")

PRIORITIES: tuple[int, ...] = (-1, 0, 1)
_PULL_S = 30.0
_SECOND = 1_000_000_000


@dataclass(slots=True, eq=False)
class Ticket:
    """A delivery as the queue handed it out; it is this process's for as long as it is renewed.

    An `ahead` one was not handed out: it is run in the place of another ticket, since its priority is higher, and
    stays in the queue until it is settled.
    """

    event_id: str
    delivery_id: str
    turn: int
    reply: str
    deliveries: int
    priority: int
    place: int
    ahead: bool = False
    behind: int = 1
    stood: int | None = None
    renewed: float = field(default_factory=time.monotonic)
    asked: float = 0.0
    run: asyncio.Task[Any] | None = None
    fenced: bool = False
    stopped: bool = False

    def handed_out(self, ticket: Ticket) -> None:
        """Go on as the ticket that the queue has handed out meanwhile."""
        self.reply, self.renewed, self.ahead = ticket.reply, ticket.renewed, False


@dataclass(frozen=True, slots=True)
class Given:
    """What the server counts as handed out of a lane and not settled.

    `again` says whether some of it was handed out more than once, `times` how often anything was; all up to
    `settled_to` is settled, and nothing behind `last` was handed out.
    """

    count: int
    again: bool
    times: int
    settled_to: int
    last: int


class Lane:
    """Asks the queue for deliveries of one agent: one request for each place that is free here.

    The server hands out no more than the agent's `concurrency` to all processes together, in the order of arrival.
    A ticket is a place to run in; what runs in it next is decided here, by priority.
    """

    def __init__(
        self, book: Book, agent: str, policy: Policy, lease_s: float, arrived: Callable[[Lane, Ticket], None]
    ) -> None:
        self.agent = agent
        self.policy = policy
        self.active = 0
        self._book = book
        self._link = book.link
        self._lease_s = lease_s
        self._arrived = arrived
        self._pulls: deque[float] = deque()
        self._subscription: Any = None
        self._inbox = ""
        self._here: list[Ticket] = []
        self._choosing = asyncio.Lock()
        self._overtaken = 0
        self._looked: dict[int, int] = dict.fromkeys(PRIORITIES, 0)

    async def open(self) -> None:
        """Make the agent's place in the queue, and begin to ask.

        Raises:
            EngineError: The server refuses.
        """
        await self._make()
        self._inbox = self._link.inbox()
        self._subscription = await self._link.listen(self._inbox, self._message)
        await self.pull()

    async def change(self, policy: Policy) -> None:
        """Take deliveries by another policy from now on.

        Raises:
            EngineError: The server refuses.
        """
        before, self.policy = self.policy, policy
        if before.concurrency != policy.concurrency:
            await self._make()
            await self.pull()

    async def _make(self) -> None:
        name, stream = token(self.agent), self._book.queue
        config = {
            "durable_name": name,
            "filter_subject": self._book.tickets(self.agent),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(self._lease_s * _SECOND),
            "max_ack_pending": self.policy.concurrency,
            "max_deliver": -1,
            "replay_policy": "instant",
        }
        answer = await self._link.api(
            f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": config}
        )
        if (error := answer.get("error")) is not None:
            raise EngineError(f"NATS cannot hand out deliveries of agent {self.agent!r}: {error['description']}")

    async def close(self) -> None:
        """Ask for nothing more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._link.unlisten(subscription)

    async def pull(self, *, anew: bool = False) -> None:
        """Ask for as many as are free here; `anew` when the server has forgotten what it was asked for."""
        now = time.monotonic()
        if anew:
            self._pulls.clear()
        while self._pulls and self._pulls[0] <= now:
            self._pulls.popleft()
        while self._subscription is not None and self.active + len(self._pulls) < self.policy.concurrency:
            self._pulls.append(now + _PULL_S + 1)
            wanted = json.dumps({"batch": 1, "expires": int(_PULL_S * _SECOND)}).encode()
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._book.queue}.{token(self.agent)}"
            await self._link.tell(subject, wanted, reply=self._inbox)

    async def waiting(self) -> tuple[int, int]:
        """Return how many deliveries nobody has taken yet, and the place of the last one that was taken.

        Raises:
            EngineError: NATS does not say.
        """
        state = await self._state()
        return state["num_pending"], state["delivered"]["stream_seq"]

    async def settled_to(self) -> int:
        """Return up to which place every delivery has been taken and settled, as the server sees it; 0 when not all.

        Raises:
            EngineError: NATS does not say.
        """
        state = await self._state()
        return 0 if state["num_pending"] or state["num_ack_pending"] else state["delivered"]["stream_seq"]

    async def given(self) -> Given:
        """Return what is handed out, as the server sees it.

        Raises:
            EngineError: NATS does not say.
        """
        state = await self._state()
        floor, delivered = state["ack_floor"]["stream_seq"], state["delivered"]
        again = bool(state["num_redelivered"])
        return Given(state["num_ack_pending"], again, delivered["consumer_seq"], floor, delivered["stream_seq"])

    async def tickets(self, last: int) -> dict[int, dict[str, Any]]:
        """Return the tickets that are in the queue up to a place, by their places, as JetStream describes them.

        Raises:
            EngineError: NATS does not say.
        """
        found: dict[int, dict[str, Any]] = {}
        place, subject = 0, self._book.tickets(self.agent)
        while last and (ticket := await self._link.next(self._book.queue, subject, place)) is not None:
            message, place = ticket
            if place > last:
                break
            found[place] = message
        return found

    async def settle_ghost(self, place: int) -> None:
        """Settle a ticket that is not in the queue any more, as far as the server counts it as handed out."""
        # Where it is not, a server that looks at the number in the lane, too, must find none that fits: 0.
        await self._link.tell(f"$JS.ACK.{self._book.queue}.{token(self.agent)}.1.{place}.0.0.0", b"+ACK")

    async def _state(self) -> dict[str, Any]:
        answer = await self._link.api(f"CONSUMER.INFO.{self._book.queue}.{token(self.agent)}")
        if (error := answer.get("error")) is not None:
            raise EngineError(f"NATS does not show the queue of agent {self.agent!r}: {error['description']}")
        return answer

    async def _message(self, message: Any) -> None:
        if self._pulls:
            self._pulls.popleft()
        if message.headers and "Status" in message.headers:
            if message.headers["Status"] == "408":
                await self.pull()
            # All else means that the server cannot right now: the regular look asks again.
            return
        tokens = message.reply.split(".")
        event_id, delivery_id, turn = json.loads(message.data)
        first = 4 if len(tokens) == 9 else 6
        deliveries, place = int(tokens[first]), int(tokens[first + 1])
        priority = int(message.subject.split(".")[-4])
        ticket = Ticket(event_id, delivery_id, turn, message.reply, deliveries, priority, place)
        ticket.behind = int(tokens[first + 4])
        log.debug("delivery %s is handed out for time %d", delivery_id, deliveries)
        self.took_over(ticket)

    def handed(self, ticket: Ticket) -> dict[str, Any]:
        """Return a ticket as another process takes it over."""
        names = ("event_id", "delivery_id", "turn", "reply", "deliveries", "priority", "place")
        return {"agent": self.agent, **{name: getattr(ticket, name) for name in names}}

    def took_over(self, ticket: Ticket) -> None:
        """Have a place more, by a ticket from the queue or from another process."""
        self.active += 1
        self._arrived(self, ticket)

    # --- what runs next ----------------------------------------------------------------------------------------------

    def wait(self, ticket: Ticket) -> None:
        """Let a ticket wait for its start."""
        self._here.append(ticket)

    async def next(self, taken: Container[str], *, look: bool) -> Ticket | None:
        """Return the delivery that starts next: by priority, then by arrival, but the oldest once in eight.

        With `look`, one of a higher priority that waits in the queue goes ahead of those here, unless it is `taken`.
        """
        async with self._choosing:
            if not self._here:
                return None
            oldest = min(self._here, key=lambda each: each.place)
            chosen = min(self._here, key=lambda each: (-each.priority, each.place))
            if self._overtaken >= OVERTAKEN:
                chosen = oldest
            elif look:
                chosen = await self._higher(chosen.priority, taken) or chosen
            self._overtaken = 0 if self._overtaken >= OVERTAKEN else self._overtaken + (chosen is not oldest)
            if not chosen.ahead:
                self._here.remove(chosen)
            return chosen

    async def _higher(self, than: int, taken: Container[str]) -> Ticket | None:
        info = f"$JS.API.CONSUMER.INFO.{self._book.queue}.{token(self.agent)}"
        try:
            for priority in sorted((each for each in PRIORITIES if each > than), reverse=True):
                subject = self._book.tickets(self.agent, priority)
                while found := await self._link.next(self._book.queue, subject, self._looked[priority]):
                    message, place = found
                    self._looked[priority] = place
                    event_id, delivery_id, turn = json.loads(b64decode(message["data"]))
                    if delivery_id not in taken:
                        # Whatever answers will do to know that this process is not cut off.
                        return Ticket(event_id, delivery_id, turn, info, 1, priority, place, ahead=True)
        except EngineError:
            # The next one looks again; nothing is lost but a higher place.
            return None
        return None

    # --- what becomes of a ticket ------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Give a place back."""
        self.active -= 1
        await self.pull()

    async def ack(self, ticket: Ticket) -> None:
        """Take a delivery out of the queue; when that cannot be said now, it comes again and its end is found."""
        if ticket.ahead:
            await self._link.delete(self._book.queue, ticket.place)
        else:
            await self._link.request(ticket.reply, b"+ACK")

    async def give_back(self, ticket: Ticket, after_s: float = 0.0) -> None:
        """Let the queue hand it out again, to anybody; there one that went ahead still is."""
        if ticket.ahead:
            return
        delay = b"" if not after_s else b" " + json.dumps({"delay": int(after_s * _SECOND)}).encode()
        await self._link.tell(ticket.reply, b"-NAK" + delay)
