"""What the log of a command looks like: on standard error, for people or as JSON, without secrets."""

from __future__ import annotations

import errno
import json
import logging
import sys
from typing import Literal

from llmling_cli.console import masked, plain

_USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TOLD_EVERY_S = 1.0


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return plain(masked(super().format(record)))


class _JsonFormatter(logging.Formatter):
    default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return masked(json.dumps(entry, ensure_ascii=False))


class _Refusals(logging.Filter):
    """Makes one line a second of the hundred tracebacks of an event loop that cannot take a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._told = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OSError) or error.errno not in _USED_UP or "accept" not in record.getMessage():
            return True
        if record.created - self._told < _TOLD_EVERY_S:
            return False
        self._told = record.created
        record.msg = "no connection is taken until one ends: %s; raise the limits of this process (`ulimit -n`)"
        record.args = (error.strerror,)
        record.exc_info = record.exc_text = None
        return True


def log_to_stderr(log_format: Literal["text", "json"], *, debug: bool) -> None:
    """Send log records to standard error: warnings, and with `debug` everything llmling says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    handler.addFilter(_Refusals())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if debug:
        logging.getLogger("llmling").setLevel(logging.DEBUG)
