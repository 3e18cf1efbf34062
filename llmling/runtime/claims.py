"""How much one try of a model request may take of a budget, as far as that can be known before it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmling.manifest.models import Price
from llmling.protocols import Model, ModelRequest, ModelResponse
from llmling.runtime.gauge import BYTES_PER_TOKEN, raw, raw_offer

_PER_REQUEST = 16
"""What a provider adds to a request, in tokens."""
_MOST_PER_REQUEST = 1_024
"""What it adds at most, as far as no answer has told: some explain in it how tools are called."""
USUAL_TOKENS = 512
"""The least an answer is taken for that no `max_tokens` bounds: one short answer says nothing of the next."""
LONG_TOKENS = 4_096
"""The least it is taken for while none has been seen, and when it was cut off, since what takes too long is long."""
LONGEST_TOKENS = 131_072
"""The longest answer of a model that says no `most_output_tokens` of its own; few can write more."""


@dataclass(slots=True, eq=False)
class Claim:
    """What one try takes, by unit: what is reserved for it, and the `most` it can come to; infinity: nobody knows.

    `spent` is what it has really taken, once that is known; a unit that is not in it has taken what `cut_off` says,
    or else what was reserved.
    """

    amounts: Mapping[str, float] = field(default_factory=dict[str, float])
    most: Mapping[str, float] = field(default_factory=dict[str, float])
    price: Price | None = None
    input_tokens: float = 0.0
    spent: dict[str, float] = field(default_factory=dict[str, float])
    cut_off: Mapping[str, float] = field(default_factory=dict[str, float])

    def doubt(self, unit: str) -> float:
        """Return by how much it may take more than is reserved for it."""
        amount = self.amounts.get(unit, 0.0)
        return max(0.0, self.most.get(unit, amount) - amount)


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


def claim_of(request: ModelRequest, rates: Rates, seen: Seen) -> Claim:
    """Return what a try of a request may take."""
    estimated = _input_tokens(request)
    read = estimated + seen.more_input
    # No token is shorter than a byte.
    most_read = estimated * BYTES_PER_TOKEN + (seen.more_input if seen.output_tokens is not None else _MOST_PER_REQUEST)
    most_written = _most_output_tokens(request.settings, rates.most_output_tokens)
    longest = LONG_TOKENS if seen.output_tokens is None else max(seen.output_tokens, USUAL_TOKENS)
    written, long = min(most_written, longest), min(most_written, max(longest, LONG_TOKENS))
    if (price := rates.price) is not None:
        usd, most_usd = cost_usd(price, read, written), cost_usd(price, most_read, most_written)
    else:
        usd = seen.usd or 0.0
        most_usd = usd if rates.priced or seen.usd is not None else math.inf
    amounts = {"usd": usd, "tokens": read + written, "requests": 1}
    most = {"usd": most_usd, "tokens": most_read + most_written}
    cut_off = {"tokens": read + long} if price is None else {"tokens": read + long, "usd": cost_usd(price, read, long)}
    return Claim(amounts, most, price, estimated, cut_off=cut_off)


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


@dataclass(frozen=True, slots=True)
class Rates:
    """What is known of a model's calls before they are made; `priced` when the model itself knows its price."""

    price: Price | None = None
    priced: bool = False
    most_output_tokens: int | None = None


async def rates_of(model: Model) -> Rates:
    """Return what a model says of its calls; no price when nobody has told it, or when it cannot say."""
    # Not by a protocol: a model that stands in front of another one passes on what that one has.
    known: Any = model
    if not callable(getattr(model, "price", None)):
        return Rates()
    price: Price | None = await known.price()
    most: int | None = await known.most_output_tokens() if hasattr(model, "most_output_tokens") else None
    return Rates(price, priced=True, most_output_tokens=most)


def _most_output_tokens(settings: Mapping[str, Any], longest: int | None) -> int:
    named = (settings.get(name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"))
    most = next((each for each in named if isinstance(each, int)), longest or LONGEST_TOKENS)
    return most * int(settings.get("n") or 1)


def _input_tokens(request: ModelRequest) -> float:
    return sum(map(raw, request.messages)) + raw_offer(request.tools, request.output_schema) + _PER_REQUEST
