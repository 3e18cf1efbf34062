"""What tests of traces share: none is left of the test before, and spans are found by their names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmling import tracer
from llmling.runtime.tracing import Span


@pytest.fixture(autouse=True)
def nothing_traced_yet() -> Iterator[None]:
    tracer().clear()
    yield
    tracer().keep(1000)
    tracer().clear()


def named(name: str) -> list[Span]:
    """Return the spans of one name, in the order they ended."""
    return [span for span in tracer().spans() if span.name == name]


def below(span: Span) -> list[str]:
    """Return the names of a span's direct children."""
    return [other.name for other in tracer().spans() if other.parent_id == span.span_id]
