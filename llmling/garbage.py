"""Python's garbage collector: kept from walking, again and again, over what stays and over what is only under way."""

from __future__ import annotations

import gc
from _thread import allocate_lock

YOUNG = 20_000

_lock = allocate_lock()
_inside = 0
_was_on = False
_ours = False


def own_process() -> None:
    """Say that this process runs nothing but a command: what is imported in it is then kept for good."""
    global _ours
    _ours = True


def keep() -> None:
    """In a process of our own, keep for good what is there: no collection looks at it any more."""
    if _ours:
        gc.freeze()


class _Held:
    """Several threads may be inside; the last one that leaves sets the collector going."""

    def __init__(self, *, imports: bool) -> None:
        self._imports = imports

    def __enter__(self) -> None:
        global _inside, _was_on
        with _lock:
            if not _inside:
                _was_on = gc.isenabled()
                gc.disable()
            _inside += 1

    def __exit__(self, *_: object) -> None:
        global _inside
        with _lock:
            _inside -= 1
            if _ours and self._imports:
                gc.freeze()
            elif not gc.get_freeze_count():
                # Puts everything among the old objects; else the next collection would begin with a walk over it.
                gc.freeze()
                gc.unfreeze()
            if not _inside and _was_on:
                gc.enable()


def held(*, imports: bool = False) -> _Held:
    """Let the collector wait while inside; in a process of our own, what `imports` made is kept for good."""
    return _Held(imports=imports)


class _Patient:
    """Sets the threshold when it is entered, and sets back what it has set."""

    def __enter__(self) -> None:
        before = gc.get_threshold()
        self._before = before if 0 < before[0] < YOUNG else None
        if self._before is not None:
            gc.set_threshold(YOUNG, *before[1:])

    def __exit__(self, *_: object) -> None:
        if self._before is not None and gc.get_threshold()[0] == YOUNG:
            gc.set_threshold(*self._before)


def patient() -> _Patient:
    """Let the collector look when 20,000 objects have come to be, not 700, unless somebody has set it already.

    Events, deliveries and runs form no cycles. Hundreds of them under way are thousands of objects, which Python would
    search again and again while they live: an eighth of all CPU time of a busy pool.
    """
    return _Patient()
