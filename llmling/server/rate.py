"""A token bucket: so many per second, with a small burst."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Lets `rate_per_s` calls per second through, at first and after a pause a burst of one second's worth."""

    def __init__(self, rate_per_s: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate_per_s
        self._burst = max(1.0, rate_per_s)
        self._monotonic = monotonic
        self._tokens = self._burst
        self._at = monotonic()

    def take(self) -> float:
        """Take one token and return 0, or return the seconds until there is one."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
