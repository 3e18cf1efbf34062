"""The switch of tests: while it is set, a model that would leave this machine is not asked."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from llmling.errors import NotAsked

_refusing = False


def refusing() -> bool:
    """Whether real models are refused right now."""
    return _refusing


@contextlib.contextmanager
def no_real_models(refuse: bool = True) -> Generator[None]:
    """Refuse real models inside the block, in the whole process; with `refuse=False` allow them there again."""
    global _refusing
    before, _refusing = _refusing, refuse
    try:
        yield
    finally:
        _refusing = before


def refuse_real(model: str, agent: str) -> None:
    """Raise when real models are refused; called by a model that is about to ask outside.

    Raises:
        NotAsked: They are.
    """
    if _refusing:
        who = f"agent {agent!r}" if agent else "this run"
        raise NotAsked(
            f"{who} would ask {model} for real, and this test forbids it: give it `model: demo`, a demo script, or "
            "`replay:cassette.yml`, recorded with --record; `@pytest.mark.llmling_real_models` allows real models",
            attempts=0,
        )
