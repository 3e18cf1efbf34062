"""Config of a budget: what may be spent in a calendar day or month."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from llmling.manifest.base import Amount, Config, Count

LIMITS = (
    "usd_per_day",
    "usd_per_month",
    "tokens_per_day",
    "tokens_per_month",
    "requests_per_day",
    "requests_per_month",
)
"""The keys of a budget that bound something."""


class BudgetConfig(Config):
    """What may be spent on model requests; days and months are those of the calendar in UTC."""

    usd_per_day: Amount | None = None
    """Most US dollars in a day."""
    usd_per_month: Amount | None = None
    """Most US dollars in a month."""
    tokens_per_day: Count | None = None
    """Most input and output tokens together in a day."""
    tokens_per_month: Count | None = None
    """Most input and output tokens together in a month."""
    requests_per_day: Count | None = None
    """Most requests to a model in a day, tries included."""
    requests_per_month: Count | None = None
    """Most requests to a model in a month, tries included."""
    mode: Literal["enforce", "audit"] = "enforce"
    """`enforce`: over it no request is made and the run fails; `audit`: it goes on, a warning and a metric say so."""

    @model_validator(mode="after")
    def _bounds_something(self) -> BudgetConfig:
        if not self.limits:
            raise PydanticCustomError("budget", "a budget needs a limit, such as `usd_per_day: 5`")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by key."""
        return {key: value for key in LIMITS if (value := getattr(self, key)) is not None}
