"""How much one try of a model request may take of a budget, as far as that can be known before it is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from llmling.manifest.models import Price
from llmling.protocols import Model, ModelRequest, ModelResponse
from llmling.runtime.gauge import raw, raw_offer

_PER_REQUEST = 16
"""What a provider adds to a request, in tokens."""
UNBOUNDED_TOKENS = 4_096
"""The least an answer is taken for that no `max_tokens` bounds: one short answer says nothing of the next."""


@dataclass(slots=True, eq=False)
class Claim:
    """What one try takes, by unit; `open_ended` are the units of which it may take more than that.

    `spent` is what it has really taken, once that is known; a unit that is not in it has taken what was claimed, or
    what `cut_off` says when it never ended.
    """

    amounts: Mapping[str, float] = field(default_factory=dict[str, float])
    open_ended: Collection[str] = ()
    price: Price | None = None
    input_tokens: float = 0.0
    spent: dict[str, float] = field(default_factory=dict[str, float])
    cut_off: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(slots=True)
class Seen:
    """The largest calls of one agent to one model so far; None: no call has been seen.

    `more_input` is by how many tokens its inputs were underestimated at most. `silent` when its answers say nothing
    of their cost.
    """

    output_tokens: int | None = None
    usd: float | None = None
    more_input: float = 0.0
    silent: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; `Seen(**data)` takes it back."""
        return {"output_tokens": self.output_tokens, "usd": self.usd, "more_input": self.more_input}


def claim_of(request: ModelRequest, price: Price | None, seen: Seen, *, priced: bool) -> Claim:
    """Return what a try of a request may take; `priced` when the model itself knows its price."""
    estimated = _input_tokens(request)
    read = estimated + seen.more_input
    written = _most_output_tokens(request.settings)
    if written is None and seen.output_tokens is not None:
        written = max(seen.output_tokens, UNBOUNDED_TOKENS)
    open_ended: set[str] = set() if written is not None else {"tokens"}
    if price is not None:
        usd = cost_usd(price, read, written or 0)
        if written is None and price.output_per_mtok:
            open_ended.add("usd")
    else:
        usd = seen.usd or 0.0
        if not priced and seen.usd is None:
            open_ended.add("usd")
    cut_off: dict[str, float] = {}
    if written is None:
        cut_off["tokens"] = read + UNBOUNDED_TOKENS
        if price is not None:
            cut_off["usd"] = cost_usd(price, read, UNBOUNDED_TOKENS)
    amounts = {"usd": usd, "tokens": read + (written or 0), "requests": 1}
    return Claim(amounts, open_ended, price, estimated, cut_off=cut_off)


def spent_by(claim: Claim, response: ModelResponse, seen: Seen) -> dict[str, float]:
    """Return what an answer has really taken, and remember how large calls get.

    A provider that does not say how many tokens there were is taken at what they can have been.
    """
    usage, price = response.usage, claim.price
    tokens, usd = float(usage.total_tokens), response.cost_usd
    read, written = float(usage.input_tokens), float(usage.output_tokens)
    if not tokens and not response.demo:
        read, written = claim.input_tokens + seen.more_input, raw(response.message)
        tokens = read + written
    if price is not None and (usd is None or not usage.total_tokens):
        usd = 0.0 if response.demo else cost_usd(price, read, written)
    seen.silent = usd is None
    seen.output_tokens = max(seen.output_tokens or 0, int(written))
    seen.usd = None if usd is None else max(seen.usd or 0.0, usd)
    seen.more_input = max(seen.more_input, read - claim.input_tokens)
    return {"tokens": tokens, "requests": 1, **({} if usd is None else {"usd": usd})}


def cost_usd(price: Price, input_tokens: float, output_tokens: float) -> float:
    """Return the price of so many tokens, in US dollars."""
    return (input_tokens * price.input_per_mtok + output_tokens * price.output_per_mtok) / 1e6


def is_priced(model: Model) -> bool:
    """Whether a model can say what it costs before it is asked, by an `async def price() -> Price | None`."""
    # Not by a protocol: a model that stands in front of another one passes on what that one has.
    return callable(getattr(model, "price", None))


async def price_of(model: Model) -> Price | None:
    """Return what a model says it costs; None when nobody has told it, or when it cannot say."""
    if not is_priced(model):
        return None
    price: Price | None = await cast("Any", model).price()
    return price


def _most_output_tokens(settings: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if isinstance(most := settings.get(name), int):
            return most * int(settings.get("n") or 1)
    return None


def _input_tokens(request: ModelRequest) -> float:
    return sum(map(raw, request.messages)) + raw_offer(request.tools, request.output_schema) + _PER_REQUEST
