"""What holds for every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_log_goes_to_a_terminal_that_is_gone() -> Iterator[None]:
    """Take away what a command that a test runs in its own process has set up for standard error."""
    yield
    root, plain = logging.getLogger(), logging.StreamHandler.__name__
    for handler in list(root.handlers):
        if type(handler).__name__ == plain:
            root.removeHandler(handler)
