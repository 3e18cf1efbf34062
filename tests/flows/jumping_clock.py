"""`llmling` in a process whose wall clock is off by as many seconds as the file `$CLOCK_OFF_BY` says at that moment."""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from pathlib import Path
from typing import Any

from llmling_cli.app import main

_true_time, _true_datetime = time.time, dt.datetime


def _off_by() -> float:
    return float(Path(os.environ["CLOCK_OFF_BY"]).read_text())


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _true_datetime)


class _Jumping(_true_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _true_datetime.fromtimestamp(_true_time() + _off_by(), tz)


if __name__ == "__main__":
    # The standard library is the border: all of it that tells the time of day, and none of what measures time.
    time.time = lambda: _true_time() + _off_by()
    dt.datetime = _Jumping
    sys.exit(main())
