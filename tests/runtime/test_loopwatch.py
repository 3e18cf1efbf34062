"""A blocked event loop is named, with the line that blocks it."""

from __future__ import annotations

import logging
import threading

import pytest

from llmling.runtime.loopwatch import LoopWatch
from llmling.testing import until


class Heard(logging.Handler):
    """Keeps what is logged, and says so to whoever waits in any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.blocked = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.blocked.set()


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def test_what_blocks_is_shown_once_and_that_it_goes_on(heard: Heard) -> None:
    logger = logging.getLogger("llmling")
    logger.addHandler(heard)
    try:
        with LoopWatch(late_s=0.2):
            for blocks in (1, 2):
                heard.blocked.clear()
                assert heard.blocked.wait(60), "the culprit of the test"
                heard.blocked.clear()
                await until(heard.blocked.is_set)
                assert len(heard.texts) == 2 * blocks
    finally:
        logger.removeHandler(heard)
    assert all(
        "the event loop is blocked for" in text and "the culprit of the test" in text for text in heard.texts[::2]
    )
    assert all("it was blocked for" in text for text in heard.texts[1::2])
    assert "llmling loop watch" not in {thread.name for thread in threading.enumerate()}
