"""Budgets: what was spent in a calendar day or month, what is reserved meanwhile, and when it is enough."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmling.errors import BudgetExceeded, EngineError
from llmling.manifest.budgets import BudgetConfig
from llmling.protocols import Store
from llmling.runtime.bounds import Bound
from llmling.runtime.claims import Claim
from llmling.runtime.clock import Clock
from llmling.runtime.tasks import to_its_end

logger = logging.getLogger("llmling.budget")
SPACE = "budget"


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget and whose it is: `the pool`, `agent 'clerk'`, `trigger 'orders'`.

    `key` names it in the store; `places` are file, line and column of its limits, by key, as far as known.
    """

    owner: str
    key: str
    config: BudgetConfig
    places: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def enforced(self) -> bool:
        """Whether a request over it is refused."""
        return self.config.mode == "enforce"


@dataclass(frozen=True, slots=True)
class Spent:
    """One limit of a budget in its current period, for people and metrics; `over` counts requests beyond it."""

    owner: str
    unit: str
    period: str
    spent: float
    limit: float
    mode: str
    over: int


@dataclass(frozen=True, slots=True)
class _Share:
    """What one request holds of an account, in the period in which it was taken.

    `doubt` is what it may take beyond `amount`; None when that might not fit, so that it goes alone.
    """

    span: str
    amount: float
    doubt: float | None


class Account(Bound):
    """One limit of one budget: the numbers of its current period.

    `total` is what was spent and what is reserved together: a reservation counts as spent until its request has
    ended, and for good when the process dies meanwhile.

    It starts a request while something is left, and no second one that could go over the limit: several are under way
    only as long as there is room for the most that all of them can take. So what is spent is at most the limit and
    one request, however wrong the reservations are; a request that is cut off counts as reserved.
    """

    def __init__(self, budget: Budget, limit: str, clock: Clock) -> None:
        super().__init__()
        self.budget = budget
        self.limit_key = limit
        self.unit, _, self.period = limit.partition("_per_")
        self.limit = float(budget.config.limits[limit])
        self.over = 0
        self._clock = clock
        self._shares: dict[int, _Share] = {}
        self._warned = ""
        self._begin(self._now_span())

    @property
    def terms(self) -> tuple[float, str]:
        """How much may be spent, and what happens beyond."""
        return self.limit, self.budget.config.mode

    def _begin(self, span: str) -> None:
        self.span = span
        self._stored = self._unwritten = self._reserved = self._doubt = 0.0
        self._holding = self._alone = 0

    def _now_span(self) -> str:
        return f"{self._clock.now().astimezone(dt.UTC):{'%Y-%m-%d' if self.period == 'day' else '%Y-%m'}}"

    def _roll(self) -> None:
        if (span := self._now_span()) != self.span:
            self._begin(span)

    def key(self, span: str) -> str:
        """Return the name of the number of a period in the store."""
        return f"{self.budget.key} {self.unit} {span}"

    @property
    def total(self) -> float:
        """What was spent in the current period, and what is reserved."""
        return self._stored + self._unwritten

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left, whatever becomes of the requests under way."""
        return self.total >= self.limit and (not self._holding or self.total - self._reserved >= self.limit)

    @property
    def state(self) -> Spent:
        """How it stands right now."""
        self._roll()
        budget = self.budget
        return Spent(budget.owner, self.unit, self.period, self.total, self.limit, budget.config.mode, self.over)

    # --- at the door -----------------------------------------------------------------------------------------------

    def wait_s(self) -> float:
        """Return 0 when a request may start, or infinity: until one that holds a reservation has ended.

        Raises:
            BudgetExceeded: It is spent.
        """
        self._roll()
        if not self.budget.enforced:
            return 0.0
        if self.exhausted:
            raise BudgetExceeded(self._message())
        return math.inf if self._alone or self.total + self._doubt >= self.limit else 0.0

    def take(self, claim: Claim) -> None:
        """Reserve what is claimed; in audit mode also over the limit."""
        self._roll()
        if self.total >= self.limit:
            self.over += 1
            if self._warned != self.span:
                self._warned = self.span
                logger.warning("%s; mode is audit, so it goes on", self._message())
        amount, doubt = claim.amounts.get(self.unit, 0.0), claim.doubt(self.unit)
        fits = self.total + self._doubt + amount + doubt <= self.limit
        share = _Share(self.span, amount, doubt if fits else None)
        self._shares[id(claim)] = share
        self._unwritten += amount
        self._reserved += amount
        self._doubt += doubt if fits else 0.0
        self._holding += 1
        self._alone += not fits

    def give(self, claim: Claim) -> None:
        """Put what was spent in the place of the reservation."""
        share = self._shares.pop(id(claim))
        if share.span != self.span:
            return
        self._unwritten += claim.spent.get(self.unit, share.amount) - share.amount
        self._holding -= 1
        self._alone -= share.doubt is None
        self._reserved = self._reserved - share.amount if self._holding else 0.0
        self._doubt = self._doubt - (share.doubt or 0.0) if self._holding else 0.0

    # --- in the store ----------------------------------------------------------------------------------------------

    def reserved(self, claim: Claim) -> tuple[str, float]:
        """Return the period and the amount that a claim holds."""
        share = self._shares[id(claim)]
        return share.span, share.amount

    def written(self, span: str, delta: float, total: float | None) -> None:
        """Note that a difference is in the store, and the number there; None: it is not there and never will be."""
        if span == self.span:
            self._unwritten -= delta
            if total is not None:
                self._stored = total

    def load(self, numbers: Mapping[str, float]) -> None:
        """Begin with what an earlier process left."""
        self._roll()
        self._stored = float(numbers.get(self.key(self.span), 0.0))

    # --- for people ------------------------------------------------------------------------------------------------

    def _message(self) -> str:
        place = self.budget.places.get(self.limit_key, "")
        unit = "USD" if self.unit == "usd" else self.unit
        return (
            f"the budget of {self.budget.owner} is spent: {_amount(self.total)} of {_amount(self.limit)} {unit} in "
            f"{self.span}, which ends {self._end():%Y-%m-%d} 00:00 UTC; raise budget.{self.limit_key} of "
            f"{self.budget.owner}" + (f" ({place})" if place else "")
        )

    def _end(self) -> dt.date:
        if self.period == "day":
            return dt.date.fromisoformat(self.span) + dt.timedelta(days=1)
        return (dt.date.fromisoformat(f"{self.span}-01") + dt.timedelta(days=32)).replace(day=1)


class Accounts:
    """All limits of all budgets, and the store that keeps their numbers; without one they live in this process."""

    def __init__(self, budgets: Iterable[Budget], clock: Clock, store: Store | None = None) -> None:
        self.all = [Account(budget, limit, clock) for budget in budgets for limit in budget.config.limits]
        self.store = store
        self._clock = clock

    async def open(self) -> None:
        """Take up the numbers of earlier processes; those of periods long over are forgotten.

        Raises:
            EngineError: The store cannot be read or written.
        """
        if self.store is None or not self.all:
            return
        numbers = await self.store.items(SPACE)
        for account in self.all:
            account.load(numbers)
        month = f"{self._clock.now().astimezone(dt.UTC) - dt.timedelta(days=62):%Y-%m}"
        if old := [key for key in numbers if key.rpartition(" ")[2] < month]:
            await self.store.remove(SPACE, old)

    def become(self, other: Accounts) -> bool:
        """Keep these limits from now on, with what was counted already; return whether anything is different."""
        before = {(account.budget.key, account.limit_key): account for account in self.all}
        after: list[Account] = []
        different = len(before) != len(other.all)
        for new in other.all:
            account = before.get((new.budget.key, new.limit_key), new)
            different |= account.terms != new.terms
            account.budget, account.limit = new.budget, new.limit
            different |= account is new
            after.append(account)
        self.all = after
        return different

    def of(self, *keys: str) -> list[Account]:
        """Return the limits of the budgets of these keys."""
        return [account for account in self.all if account.budget.key in keys]

    async def reserve(self, accounts: Iterable[Account], claim: Claim) -> tuple[bool, asyncio.CancelledError | None]:
        """Make the reservations of a claim durable; False when other processes have spent the rest meanwhile.

        A cancellation that came while they were written is returned, so that the caller can give them back.

        Raises:
            EngineError: The store cannot be written.
        """
        shares = [(account, *account.reserved(claim)) for account in accounts]
        if self.store is None or not shares:
            return True, None
        below = {a.key(span): a.limit for a, span, _ in shares if a.budget.enforced}
        try:
            adding = self.store.add(SPACE, {a.key(span): n for a, span, n in shares}, below=below)
            (done, totals), cancelled = await to_its_end(adding, name="budget")
        except (EngineError, asyncio.CancelledError):
            for account, span, amount in shares:
                account.written(span, amount, None)
            raise
        for account, span, amount in shares:
            account.written(span, amount, totals[account.key(span)])
        return done, cancelled

    async def settle(self, deltas: list[tuple[Account, str, float]]) -> None:
        """Write what requests have cost more or less than was reserved; what cannot be written stays as reserved."""
        deltas = [each for each in deltas if each[2]]
        if self.store is None or not deltas:
            return
        totals: Mapping[str, float] = {}
        cancelled: asyncio.CancelledError | None = None
        try:
            adding = self.store.add(SPACE, {account.key(span): delta for account, span, delta in deltas})
            (_, totals), cancelled = await to_its_end(adding, name="budget")
        except asyncio.CancelledError as error:
            cancelled = error
        except EngineError as error:
            logger.warning("what a request has cost could not be written, so its reservation counts: %s", error)
        for account, span, delta in deltas:
            account.written(span, delta, totals.get(account.key(span)))
        if cancelled is not None:
            raise cancelled


def unknown_price(model: str, budget: Budget, limit: str) -> str:
    """Return what is wrong with a model that costs nobody knows what, and what to write."""
    return (
        f"the price of model {model!r} is not known, so budget.{limit} of {budget.owner} cannot be kept: write "
        f"`model: {{type: litellm, name: {model}, price: {{input_per_mtok: ..., output_per_mtok: ...}}}}`, with 0 for "
        "a model that costs nothing"
    )


def _amount(value: float) -> str:
    return f"{value:.6g}" if value < 1e6 else f"{value:.0f}"
