from __future__ import annotations

import pytest

from llmling.server.rate import TokenBucket


def test_a_burst_of_one_second_then_the_rate() -> None:
    now = 100.0
    bucket = TokenBucket(2.0, lambda: now)
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.5]
    now += 0.5
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(0.5)
    now += 1000
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.5]


def test_a_rate_below_one_lets_single_calls_through() -> None:
    now = 0.0
    bucket = TokenBucket(0.1, lambda: now)
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(10.0)
    now = 10.0
    assert bucket.take() == 0.0
