"""Names of tools that every model accepts: letters, digits, `_` and `-`, at most 64."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from llmling.runtime.toolbox import LONGEST_NAME

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def safe_name(prefix: str, name: str) -> str:
    """Return `<prefix>_<name>` with unsafe characters as `_`; one that is too long ends in a digest of it."""
    plain = f"{prefix}_{name}"
    safe = _UNSAFE.sub("_", plain)
    return safe if len(safe) <= LONGEST_NAME else _digested(safe, plain)


def agent_tool_name(agent: str) -> str:
    """Return the name under which a model sees another agent."""
    return safe_name("ask", agent)


def safe_names(prefix: str, names: Sequence[str]) -> dict[str, str]:
    """Return a safe name for each name, no two the same, and the same ones whatever the order.

    Where two would be the same, such as those of `a.b` and `a_b`, the ones that had to change get a digest.
    """
    safe = {name: safe_name(prefix, name) for name in names}
    taken = Counter(safe.values())
    for name, short in safe.items():
        plain = f"{prefix}_{name}"
        if taken[short] > 1 and short != plain:
            safe[name] = _digested(short, plain)
    return safe


def _digested(safe: str, plain: str) -> str:
    digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[: LONGEST_NAME - 9]}_{digest}"
