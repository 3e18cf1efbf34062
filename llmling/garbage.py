"""The garbage collector while much is made that stays: it would walk over all of it, again and again."""

from __future__ import annotations

import gc


class _Held:
    """Entered in several threads at once, it ends with the collector on as soon as the first one has left."""

    def __enter__(self) -> None:
        self._was = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was:
            gc.enable()


def held() -> _Held:
    """Let the collector wait while inside: for imports, and for reading what is kept."""
    return _Held()


def keep() -> None:
    """Keep for good what is there now: no collection looks at it any more."""
    gc.collect()
    gc.freeze()
