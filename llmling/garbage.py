"""The garbage collector while much is made that stays: it would walk over all of it, again and again."""

from __future__ import annotations

import gc


class _Held:
    """Entered in several threads at once, it ends with the collector on as soon as the first one has left."""

    def __init__(self, *, forever: bool) -> None:
        self._forever = forever

    def __enter__(self) -> None:
        self._was = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._forever:
            gc.freeze()
        if self._was:
            gc.enable()


def held(*, forever: bool = False) -> _Held:
    """Let the collector wait while inside; `forever`: it never looks at what is there at the end, as after imports."""
    return _Held(forever=forever)
