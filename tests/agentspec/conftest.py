"""What the tests of Agent Spec share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from spec_reader import LIBRARY, SpecReader


@pytest.fixture(scope="module")
def read_spec() -> Iterator[SpecReader]:
    """Give what reads a document with pyagentspec alone."""
    if not LIBRARY.is_dir():
        assert not os.environ.get("CI"), f"{LIBRARY} is missing"
        pytest.skip(f"pyagentspec is not in {LIBRARY}; `make test` puts it there")
    reader = SpecReader()
    yield reader
    reader.close()
