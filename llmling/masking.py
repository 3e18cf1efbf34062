"""Keeping secrets out of what people and models read: known values, and arguments whose name says what they are."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from typing import Any, cast

MASK = "***"
_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "AUTHORIZATION")
# Shorter values are masked nowhere: hiding every "1" or "dev" would make texts unreadable and hide nothing.
SHORTEST = 8


_hidden: Counter[str] = Counter()
_seen: tuple[dict[Any, Any] | None, frozenset[str]] = (None, frozenset())


def names_credential(name: str) -> bool:
    """Whether a variable or argument holds a credential, by its name."""
    return name.upper().endswith(_NAMES)


def environment_secrets() -> set[str]:
    """Return the values of environment variables that look like credentials by their name."""
    global _seen
    # Walking the environment takes a hundred times as long as seeing that it is the same; every tool call comes here.
    raw = vars(os.environ).get("_data")
    before, secrets = _seen
    if raw is None or raw != before:
        secrets = frozenset(value for name, value in os.environ.items() if names_credential(name))
        _seen = (None if raw is None else dict(raw)), secrets
    return set(secrets)


@contextlib.contextmanager
def hiding(secrets: Iterable[str]) -> Generator[None]:
    """Let `known_secrets` have these too for as long as it is entered."""
    held = [secret for secret in secrets if len(secret) >= SHORTEST]
    _hidden.update(held)
    try:
        yield
    finally:
        _hidden.subtract(held)


def known_secrets() -> set[str]:
    """Return the secrets of the environment and of the pools that are open in this process."""
    return environment_secrets() | {secret for secret, holders in _hidden.items() if holders > 0}


def masked(text: str, secrets: Iterable[str] | None = None) -> str:
    """Return a text without these secrets (absent: all known ones); those of less than eight characters stay."""
    for secret in sorted(known_secrets() if secrets is None else secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, MASK)
    return text


def masked_arguments(arguments: Mapping[str, Any] | str) -> str:
    """Return the arguments of a call as JSON, without known secrets and what looks like a credential."""
    text = arguments if isinstance(arguments, str) else json.dumps(_without(arguments), ensure_ascii=False)
    return masked(text)


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {name: MASK if _credential(name, inner) else _without(inner) for name, inner in items}
    if isinstance(value, list):
        return [_without(item) for item in cast("list[Any]", value)]
    return value


def _credential(name: str, value: Any) -> bool:
    # A number called `max_tokens` is none.
    return isinstance(value, str) and names_credential(name)
