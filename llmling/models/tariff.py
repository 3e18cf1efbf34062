"""What an answer costs: two or three multiplications where litellm's table allows it, else litellm's own reckoning."""

from __future__ import annotations

import functools
import importlib
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmling.frozen import frozen
from llmling.manifest.models import Price
from llmling.messages import Usage

logger = logging.getLogger("llmling.models")

_TIER = re.compile(r"^(?:input|output|cache_read_input)_(?:cost_per_token|token_cost)_above_(\d+)k_tokens$")
_BY_OTHER_THINGS = frozenset({
    "off_peak_pricing", "tiered_pricing", "input_cost_per_request", "cost_per_second", "input_cost_per_second",
    "output_cost_per_second", "output_cost_per_reasoning_token", "input_cost_per_character",
    "output_cost_per_character", "citation_cost_per_token",
})  # fmt: skip
"""Entries with one of these are never reckoned here, unless it says the same as the one it stands beside."""
_SAME_AS = {"output_cost_per_reasoning_token": "output_cost_per_token"}
_SAMPLE = (12_345, 1_234, 678)
"""Tokens read, of them from a cache, and written: enough to notice a price that is not a rate for each."""


@frozen
class Tokens:
    """What one answer took. `plain` when nothing else in what the provider said of it can bear on the price.

    `said` is what the provider said, in the words of OpenAI's format.
    """

    read: int
    cached: int
    written: int
    plain: bool
    said: Mapping[str, Any]

    @property
    def usage(self) -> Usage:
        """The usage of one request."""
        return Usage(self.read, self.written, requests=1)


@dataclass(frozen=True, slots=True)
class _Rates:
    """US dollars per token, for exchanges of at most `most_read` tokens."""

    read: float
    cached: float
    written: float
    most_read: float


@dataclass(frozen=True, slots=True)
class Tariff:
    """The price of one model: the user's own, or what litellm's table says under `key`."""

    litellm: Any
    key: str | None
    price: Price | None
    rates: _Rates | None
    free: bool

    def of_tokens(self, tokens: Tokens | None) -> float | None:
        """Return what an answer costs in US dollars, or None when nobody knows."""
        if tokens is None:
            return self.of_usage(Usage(), None)
        if self.price is not None or self.key is None or self.free:
            return self.of_usage(tokens.usage, tokens)
        rates = self.rates
        if rates is not None and tokens.plain and tokens.cached <= tokens.read <= rates.most_read:
            fresh = tokens.read - tokens.cached
            return fresh * rates.read + tokens.cached * rates.cached + tokens.written * rates.written
        return self.of_usage(tokens.usage, self.litellm.Usage(**tokens.said))

    def of_usage(self, used: Usage, said: Any) -> float | None:
        """Return the same of a usage as litellm has it; `said` is None when the provider said nothing."""
        if (price := self.price) is not None:
            return (used.input_tokens * price.input_per_mtok + used.output_tokens * price.output_per_mtok) / 1e6
        if self.key is None or said is None:
            return None
        if self.free:
            return 0.0  # litellm would ask a local server what its model can do, and block the loop
        try:
            return _asked(self.litellm, self.key, said)
        except Exception as error:  # noqa: BLE001 - the border to litellm; an answer is not lost for want of its price
            logger.warning("no price for %s: %s", self.key, error)
            return None


def tariff_of(litellm: Any, key: str | None, price: Price | None) -> Tariff:
    """Return the tariff of the table's entry `key`, or of a price that the user has given."""
    entry: dict[str, Any] = litellm.model_cost[key] if key is not None else {}
    free = key is not None and entry.get("input_cost_per_token") == 0 == entry.get("output_cost_per_token")
    rates = None
    if key is not None and price is None and not free:
        rates = _rates(litellm, key)
    return Tariff(litellm, key, price, rates, free)


@functools.lru_cache(maxsize=256)
def _rates(litellm: Any, key: str) -> _Rates | None:
    """Return the rates litellm reckons with, found by asking it, or None when it reckons with more than rates."""
    entry: Mapping[str, Any] = litellm.model_cost[key]
    others = {name for name in _BY_OTHER_THINGS & entry.keys() if entry[name] != entry.get(_SAME_AS.get(name, ""))}
    if others:
        return None
    tiers = [int(found.group(1)) * 1000 for name in entry if (found := _TIER.match(name))]
    try:
        nothing, read, cached, written, mixed = (
            _asked(litellm, key, _sample(litellm, *tokens))
            for tokens in ((0, 0, 0), (1000, 0, 0), (1000, 1000, 0), (0, 0, 1000), _SAMPLE)
        )
    except Exception as error:  # noqa: BLE001 - the border to litellm; then it is asked for each answer
        logger.debug("no rates for %s: %s", key, error)
        return None
    rates = _Rates(read / 1000, cached / 1000, written / 1000, min(tiers, default=math.inf))
    all_read, of_cache, all_written = _SAMPLE
    sum_of = (all_read - of_cache) * rates.read + of_cache * rates.cached + all_written * rates.written
    return rates if nothing == 0 and math.isclose(mixed, sum_of, rel_tol=1e-9, abs_tol=1e-15) else None


def _sample(litellm: Any, read: int, cached: int, written: int) -> Any:
    details = importlib.import_module("litellm.types.utils").PromptTokensDetailsWrapper(cached_tokens=cached)
    return litellm.Usage(
        prompt_tokens=read,
        completion_tokens=written,
        total_tokens=read + written,
        prompt_tokens_details=details if cached else None,
    )


def _asked(litellm: Any, key: str, usage: Any) -> float:
    provider = litellm.model_cost[key].get("litellm_provider")
    return sum(litellm.cost_per_token(model=key, custom_llm_provider=provider, usage_object=usage))
