"""When a model may be asked: every try of every request of a run passes the gate of its agent."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from llmling.errors import BudgetExceeded, EngineError, ModelError, NotAsked
from llmling.events import RUN, Event
from llmling.manifest.budgets import BudgetConfig
from llmling.manifest.models import FallbackModelConfig, LiteLLMModelConfig
from llmling.protocols import Model, ModelRequest, ModelResponse, Store
from llmling.runtime.bounds import Bound, Door, Places, RateLimit
from llmling.runtime.budget import Account, Accounts, Budget, unknown_price
from llmling.runtime.circuit import Circuit, CircuitOpen, Circuits
from llmling.runtime.claims import Claim, Seen, claim_of, rates_of, spent_by
from llmling.runtime.clock import Clock
from llmling.runtime.shares import NO_LIMITS, Limits, Shares

logger = logging.getLogger("llmling.budget")
SIZES = "budget sizes"
_PLACE_MARGIN_S = 5.0
_DOWN = frozenset({HTTPStatus.REQUEST_TIMEOUT})
_SERVER_ERROR = 500
_NOTHING_CLAIMED = Claim()
_NO_ROOM = (
    "since a limit on requests or a budget had no room; raise that limit or limits.timeout_s, or lower `concurrency`"
)


def bounds_of(limits: Limits, clock: Clock) -> tuple[Bound, ...]:
    """Return the bounds that hold limits in this process."""
    places = () if limits.at_once is None else (Places(limits.at_once),)
    rate = () if limits.per_minute is None else (RateLimit(limits.per_minute, clock),)
    return (*places, *rate)


def model_limits(models: Iterable[Any]) -> dict[str, Limits]:
    """Return the limits that configs of models name, by `key_of` the model; of several for one model the strictest."""
    found: dict[str, Limits] = {}
    for model in models:
        if isinstance(model, FallbackModelConfig):
            inner = model_limits(model.models)
        elif isinstance(model, LiteLLMModelConfig) and (model.concurrency or model.requests_per_minute):
            inner = {model.key: Limits(model.concurrency, model.requests_per_minute)}
        else:
            inner = {}
        for key, limits in inner.items():
            found[key] = limits.stricter(found.get(key, NO_LIMITS))
    return found


def agent_budget(name: str, config: BudgetConfig, places: Mapping[str, str] | None = None) -> Budget:
    """Return the budget of an agent."""
    return Budget(f"agent {name!r}", f"agent {name}", config, places or {})


class Bounds:
    """What bounds the model requests of a pool, or of an agent alone: limits of pool and models, budgets, circuits."""

    def __init__(
        self,
        clock: Clock,
        *,
        pool: Limits = NO_LIMITS,
        models: Mapping[str, Limits] | None = None,
        budgets: Sequence[Budget] = (),
        store: Store | None = None,
        circuits: Circuits | None = None,
        shares: Shares | None = None,
    ) -> None:
        """`models` are by `key_of` the model; with `shares` the limits hold over all processes."""
        self.clock = clock
        self.circuits = circuits or Circuits(clock)
        self.door = Door(clock)
        self._limits: Mapping[str, Limits] = {"": pool, **(models or {})}
        self._bounds: dict[str, tuple[Bound, ...]] = {
            key: bounds_of(limits, clock) for key, limits in self._limits.items()
        }
        self.accounts = Accounts(budgets, clock, store)
        self.shares = shares
        self._seen: dict[str, Seen] = {}

    async def open(self) -> None:
        """Take up what earlier processes have spent.

        Raises:
            EngineError: The store cannot be read or written.
        """
        await self.accounts.open()
        if self.accounts.store is not None and self.accounts.all:
            self._seen = {key: Seen(**data) for key, data in (await self.accounts.store.items(SIZES)).items()}

    def become(self, other: Bounds) -> bool:
        """Bound like `other` from now on, counting on what was counted; return whether anything is different.

        Gates that were made before go on as they were.
        """
        same = self._limits == other._limits
        bounds = {key: self._bounds[key] for key in other._limits if self._limits.get(key) == other._limits[key]}
        self._limits, self._bounds = other._limits, {**other._bounds, **bounds}
        self.circuits.become(other.circuits)
        return self.accounts.become(other.accounts) or not same

    @property
    def pool(self) -> tuple[Bound, ...]:
        """The limits of all requests."""
        return self._bounds[""]

    def of_model(self, model: Model) -> tuple[Bound, ...]:
        """The limits of requests to a model."""
        return self.of_key(key_of(model))

    def of_key(self, key: str) -> tuple[Bound, ...]:
        """The limits of requests to the model of that key."""
        return self._bounds.get(key, ())

    def shared(self, model: Model) -> dict[str, Limits]:
        """The limits of requests to a model and of all, by the names under which processes share them."""
        key = key_of(model)
        found = {"pool": self._limits[""], **({f"model {key}": self._limits[key]} if key in self._limits else {})}
        return {name: limits for name, limits in found.items() if limits != NO_LIMITS}

    def gate(self, agent: str, requests_per_minute: int | None = None) -> Gate:
        """Return the gate of an agent."""
        return Gate(agent, Limits(per_minute=requests_per_minute), self)

    def seen(self, agent: str, model: Model) -> Seen:
        """Return the largest calls of an agent to a model so far."""
        return self._seen.setdefault(f"{agent} {key_of(model)}", Seen())

    async def remember(self, agent: str, model: Model, before: Seen) -> None:
        """Keep the largest calls for the next process, when they have become larger."""
        seen = self.seen(agent, model)
        if self.accounts.store is not None and seen.to_dict() != before.to_dict():
            # Without it the next process learns anew; no answer is lost for that.
            with contextlib.suppress(EngineError):
                await self.accounts.store.put(SIZES, {f"{agent} {key_of(model)}": seen.to_dict()})


class Gate:
    """The gate of one agent."""

    def __init__(self, agent: str, limits: Limits, bounds: Bounds) -> None:
        self.agent = agent
        self.shared = bounds
        self._own = {f"agent {agent}": limits} if limits != NO_LIMITS else {}
        self._rate = bounds_of(limits, bounds.clock)
        self._told: set[str] = set()
        own = ("pool", f"agent {agent}")
        self._always = bounds.accounts.of(*own)
        triggers = {a.budget.key for a in bounds.accounts.all if a.budget.key.startswith("trigger ")}
        self._by_trigger = {key: bounds.accounts.of(*own, key) for key in triggers}

    def entry(self, model: Model, request: ModelRequest, event: Event, *, patient: bool = True) -> Entry:
        """Return the way of one try through the gate; without patience it waits for no circuit."""
        return Entry(self, model, request, event, patient)

    def limits(self, model: Model) -> tuple[Bound, ...]:
        """Return the limits that requests to a model fall under."""
        return (*self._rate, *self.shared.pool, *self.shared.of_model(model))

    def limited(self, key: str) -> bool:
        """Whether requests to the model of that key fall under any limit."""
        return bool(self._rate or self.shared.pool or self.shared.of_key(key))

    def shared_limits(self, model: Model) -> dict[str, Limits]:
        """Return the limits that requests to a model share with other processes, by name."""
        return {**self._own, **self.shared.shared(model)}

    def accounts(self, event: Event) -> list[Account]:
        """Return the budgets that requests for an event fall under: of the pool, the agent and the trigger."""
        return self._always if event.type == RUN else self._by_trigger.get(f"trigger {event.source}", self._always)

    async def claim(self, model: Model, request: ModelRequest, accounts: Sequence[Account]) -> Callable[[], Claim]:
        """Return what tells what a try may take of the budgets, as far as it is known by then.

        Raises:
            BudgetExceeded: Money is bounded, and nobody knows what the model costs.
        """
        if all(account.unit == "requests" for account in accounts):
            return lambda: Claim({"requests": 1})
        seen, rates = self.shared.seen(self.agent, model), await rates_of(model)
        if rates.price is None and (rates.priced or seen.silent):
            for account in accounts:
                if account.unit == "usd":
                    self._refuse_unpriced(model, account)
        return lambda: claim_of(request, rates, seen)

    def _refuse_unpriced(self, model: Model, account: Account) -> None:
        reason = unknown_price(model.name, account.budget, account.limit_key)
        if account.budget.enforced:
            raise BudgetExceeded(reason)
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("agent %r: %s; mode is audit, so it goes on and counts nothing", self.agent, reason)


class Entry:
    """One try on its way: it waits for its turn, and says afterwards what it has taken.

    A try that was refused by the provider, or never reached it, has cost nothing. One that was cut off (a timeout, a
    broken connection, a cancellation) may have, so what was reserved for it counts.
    """

    def __init__(self, gate: Gate, model: Model, request: ModelRequest, event: Event, patient: bool) -> None:
        self._gate = gate
        self.over = False
        self._key = key_of(model)
        self._circuit = gate.shared.circuits.of(self._key)
        self._patient = patient
        self._model = model
        self._request = request
        self._event = event
        self._accounts: list[Account] = []
        self._limits: tuple[Bound, ...] = ()
        self._claim = _NOTHING_CLAIMED
        self._place: str | None = None
        self._inside = False

    @property
    def free(self) -> bool:
        """Whether the try may be made at once: its model is up, and nothing is counted. Then `open` is not needed."""
        gate = self._gate
        if gate.accounts(self._event) or gate.limited(self._key):
            return False
        return self._circuit is None or self._circuit.turn(self) == 0

    async def open(self, left_s: float | None = None) -> None:
        """Return when the try may be made; `left_s` is all the time there is.

        Raises:
            BudgetExceeded: A budget is spent, or cannot be kept.
            CircuitOpen: The model is down, and this is not the run to find out whether it is back.
            EngineError: The reservation cannot be written.
        """
        if self._circuit is not None:
            await self._pass_circuit(self._circuit, math.inf if left_s is None else left_s)
        gate, door = self._gate, self._gate.shared.door
        self._accounts, self._limits = gate.accounts(self._event), gate.limits(self._model)
        if not self._accounts and not self._limits:
            return
        while not self._inside:
            claim = await gate.claim(self._model, self._request, self._accounts)
            try:
                self._claim = await door.enter((*self._accounts, *self._limits), claim)
            except BudgetExceeded:
                for account in self._accounts:
                    account.over += account.budget.enforced and account.exhausted
                raise
            reserved, cancelled = False, None
            try:
                await self._share()
                reserved, cancelled = await gate.shared.accounts.reserve(self._accounts, self._claim)
            finally:
                if not reserved:
                    door.leave((*self._accounts, *self._limits), self._claim)
                    await self._unshare()
            self._inside = reserved
            if cancelled is not None:
                # Nothing was asked, so nothing of the reservation counts.
                self._claim.spent.update(dict.fromkeys(self._claim.amounts, 0.0))
                await self.close()
                raise cancelled

    async def _share(self) -> None:
        """Take a place beside the requests of other processes."""
        limits, shares = self._gate.shared_limits(self._model), self._gate.shared.shares
        if shares is not None and limits:
            self._place = await shares.enter(limits, self._request.timeout_s + _PLACE_MARGIN_S)

    async def _unshare(self) -> None:
        place, self._place = self._place, None
        if place is not None and self._gate.shared.shares is not None:
            await self._gate.shared.shares.leave(place)

    async def _pass_circuit(self, circuit: Circuit, left_s: float) -> None:
        """Wait for a provider that asked for patience; for one that is down deliveries wait, until a probe has failed.

        After that the delivery's own tries and their pauses decide, so that a long outage ends in a dead letter.
        """
        probes = circuit.failed_probes
        while (wait_s := circuit.turn(self)) > 0:
            given_up = circuit.down and (self._event.type == RUN or circuit.failed_probes > probes)
            if given_up or not self._patient or left_s <= wait_s < math.inf:
                retry_after_s = wait_s if wait_s < math.inf else None
                raise CircuitOpen(circuit.why, attempts=0, retryable=True, unsent=True, retry_after_s=retry_after_s)
            await circuit.changed(wait_s)

    @property
    def waits_for(self) -> str:
        """What it has been waiting for, for people."""
        return f"since {self._circuit.why}" if self._circuit is not None and self._circuit.open else _NO_ROOM

    def up(self) -> None:
        """Say that there was an answer, of a try that was `free`."""
        self.over = True
        if self._circuit is not None:
            self._circuit.answered(self)
            self._circuit.left(self)

    async def answered(self, response: ModelResponse) -> None:
        """Say what the answer has cost."""
        if self._circuit is not None:
            self._circuit.answered(self)
        if self._accounts:
            seen = self._gate.shared.seen(self._gate.agent, self._model)
            before = dataclasses.replace(seen)
            self._claim.spent.update(spent_by(self._claim, response, seen))
            await self.close()
            await self._gate.shared.remember(self._gate.agent, self._model, before)
        else:
            await self.close()

    async def failed(self, error: ModelError) -> None:
        """Say that there was no answer."""
        if self._circuit is not None and error.attempts and not isinstance(error, NotAsked):
            self._tell(self._circuit, error)
        unsent = error.unsent or not error.attempts
        if self._inside and (unsent or error.status is not None):
            self._claim.spent.update({"usd": 0.0, "tokens": 0.0, "requests": 0.0 if unsent else 1.0})
        await self.close()

    def _tell(self, circuit: Circuit, error: ModelError) -> None:
        if error.status == HTTPStatus.TOO_MANY_REQUESTS:
            if error.retry_after_s:
                circuit.held(self, error.retry_after_s, str(error))
        elif error.retryable and (error.status is None or error.status in _DOWN or error.status >= _SERVER_ERROR):
            circuit.failed(self, self._event.id, str(error))
        else:
            # Whoever refuses is there.
            circuit.answered(self)

    async def close(self) -> None:
        """Give back what was taken; without an answer or a failure, what was reserved counts as spent."""
        self.over = True
        if self._circuit is not None:
            self._circuit.left(self)
        if not self._inside:
            return
        self._inside = False
        for unit, amount in self._claim.cut_off.items():
            self._claim.spent.setdefault(unit, amount)
        held = [(account, *account.reserved(self._claim)) for account in self._accounts]
        self._gate.shared.door.leave((*self._accounts, *self._limits), self._claim)
        spent = self._claim.spent
        try:
            await self._unshare()
        finally:
            await self._gate.shared.accounts.settle(
                [(account, span, spent.get(account.unit, amount) - amount) for account, span, amount in held]
            )


def key_of(model: Model) -> str:
    """Return what tells a model apart from others: its name and, where it has one of its own, its address."""
    return getattr(model, "key", model.name)


@dataclasses.dataclass(slots=True)
class Pass:
    """The gate a run goes through, the event it works on, and why it is late when it has waited for its turn."""

    gate: Gate
    event: Event
    late: ModelError | None = None


current_pass: ContextVar[Pass | None] = ContextVar("llmling_pass", default=None)
"""The gate that requests to models go through right now; None: none."""
