"""Python's collector of cycles, while a pool serves: it looks at fewer events that are only under way."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

YOUNG = 20_000


@contextmanager
def patient_collector() -> Generator[None]:
    """Let the collector look when 20,000 objects have come to be, not 700, unless somebody has set it already.

    Events, deliveries and runs form no cycles. Hundreds of them under way are thousands of objects, which Python would
    search again and again while they live: an eighth of all CPU time of a busy pool.
    """
    before = gc.get_threshold()
    if not 0 < before[0] < YOUNG:
        yield
        return
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        if gc.get_threshold()[0] == YOUNG:
            gc.set_threshold(*before)
