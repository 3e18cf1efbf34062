"""What is another text in every run and means the same: the event's id and time, the folder, secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from llmling.events import Event
from llmling.masking import SHORTEST, names_credential

ID = "{{ event.id }}"
TIME = "{{ event.time }}"
ISO_TIME = "{{ event.time.isoformat() }}"
FOLDER = "{{ folder }}"

_SHORTEST_ID = 16
_ALIKE = re.compile(
    r"""
    (?P<id>
        \{\{\ event\.id\ \}\}
        | \b[0-9A-HJKMNP-TV-Z]{26}\b
        | \b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b
    )
    | (?P<time>
        \{\{\ event\.time(?:\.isoformat\(\))?\ \}\}
        | \b\d{4}-\d\d-\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?
        | \b\d\d:\d\d:\d\d\b
    )
    """,
    re.VERBOSE,
)
_HALF = re.compile("[\ud800-\udfff]")


def alike(text: str) -> str:
    """Return a text with every id, date and time in it replaced by what all of them are compared as."""
    return _ALIKE.sub(lambda found: f"<{found.lastgroup}>", text)


class Varying:
    """Puts placeholders for what varies, and takes out those of the event and the folder again.

    Secrets are the values of environment variables that look like credentials by their name; they become `${NAME}`
    and stay so.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = str(folder)
        names = {os.path.realpath(folder), os.path.abspath(folder)} - {os.sep}  # noqa: PTH100
        folders = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        self._folders = re.compile(rf"(?:{folders})(?![\w-])") if names else None
        secrets = {
            value: f"${{{name}}}" for name, value in env.items() if names_credential(name) and len(value) >= SHORTEST
        }
        self._secrets = sorted(secrets.items(), key=lambda pair: len(pair[0]), reverse=True)

    def hidden(self, value: Any, event: Event | None) -> Any:
        """Return plain data with placeholders in all its texts."""
        return _mapped(value, lambda text: self._hide(text, event))

    def shown(self, value: Any, event: Event | None) -> Any:
        """Return plain data with the event and the folder of this run where the placeholders are."""
        return _mapped(value, lambda text: self._show(text, event))

    def _hide(self, text: str, event: Event | None) -> str:
        # Half a character cannot be written to a file.
        text = _HALF.sub("\N{REPLACEMENT CHARACTER}", text)
        for secret, name in self._secrets:
            text = text.replace(secret, name)
        for placeholder, real in _facts(event):
            text = text.replace(real, placeholder)
        return text if self._folders is None else self._folders.sub(lambda _: FOLDER, text)

    def _show(self, text: str, event: Event | None) -> str:
        for placeholder, real in _facts(event):
            text = text.replace(placeholder, real)
        return text.replace(FOLDER, self._folder)


def _facts(event: Event | None) -> tuple[tuple[str, str], ...]:
    if event is None:
        return ()
    times = ((ISO_TIME, event.time.isoformat()), (TIME, str(event.time)))
    # An id somebody chose, such as `1`, is also part of other texts.
    return ((ID, event.id), *times) if len(event.id) >= _SHORTEST_ID else times


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in cast("list[Any]", value)]
    return value
