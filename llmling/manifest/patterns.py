"""Whether two patterns of paths have a path in common."""

from __future__ import annotations

import enum
import glob
import os
import re
from typing import TypeAlias


class Wild(enum.Enum):
    """What stands for more than one text."""

    CHAR = "one character, no slash"
    NAME = "any text without a slash"
    PATH = "any text"


Tokens: TypeAlias = tuple[str | Wild, ...]

_DYNAMIC = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_GLOB = re.compile(r"\*\*/?|\*|\?|\[[^\]]+\]")


def of_template(path: str, folder: str) -> Tokens:
    """Return the paths a template with `{{ }}` can give; what is filled in may hold slashes."""
    first = _DYNAMIC.search(path)
    if first is None:
        return tuple(os.path.normpath(os.path.join(folder, path)))  # noqa: PTH118
    head, slash, tail = path[: first.start()].rpartition("/")
    start = os.path.normpath(os.path.join(folder, head or ("/" if slash else "."))).rstrip("/")  # noqa: PTH118
    tokens: list[str | Wild] = [*start, "/", *tail]
    position = first.start()
    for match in _DYNAMIC.finditer(path):
        tokens += [*path[position : match.start()], Wild.PATH]
        position = match.end()
    return (*tokens, *path[position:])


def of_glob(path: str, folder: str) -> Tokens:
    """Return the paths a glob matches."""
    if not glob.has_magic(path):
        return tuple(os.path.normpath(os.path.join(folder, path)))  # noqa: PTH118
    text = path if path.startswith("/") else f"{folder.rstrip('/')}/{path.removeprefix('./')}"
    tokens: list[str | Wild] = []
    position = 0
    for match in _GLOB.finditer(text):
        tokens += text[position : match.start()]
        found = match.group()
        tokens.append(Wild.PATH if found.startswith("**") else Wild.NAME if found == "*" else Wild.CHAR)
        position = match.end()
    return (*tokens, *text[position:])


def sample(tokens: Tokens) -> str:
    """Return one path that fits."""
    return "".join(token if isinstance(token, str) else "x0" for token in tokens)


def fixed(tokens: Tokens) -> str:
    """Return the text before the first wildcard."""
    end = next((index for index, token in enumerate(tokens) if isinstance(token, Wild)), len(tokens))
    return "".join(str(token) for token in tokens[:end])


def overlap(one: Tokens, other: Tokens) -> bool:
    """Return whether some path fits both patterns."""
    todo = [(0, 0)]
    seen = {(0, 0)}
    while todo:
        i, j = todo.pop()
        if i == len(one) and j == len(other):
            return True
        for state in _steps(one, other, i, j):
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return False


def _steps(one: Tokens, other: Tokens, i: int, j: int) -> list[tuple[int, int]]:
    a = one[i] if i < len(one) else None
    b = other[j] if j < len(other) else None
    steps: list[tuple[int, int]] = []
    if a is Wild.PATH or a is Wild.NAME:
        steps.append((i + 1, j))
        if b is not None and (a is Wild.PATH or b != "/"):
            steps.append((i, j + 1))
    if b is Wild.PATH or b is Wild.NAME:
        steps.append((i, j + 1))
        if a is not None and (b is Wild.PATH or a != "/"):
            steps.append((i + 1, j))
    if not steps and a is not None and b is not None and _same(a, b):
        steps.append((i + 1, j + 1))
    return steps


def _same(a: str | Wild, b: str | Wild) -> bool:
    if isinstance(a, Wild):
        return b != "/"
    return b is Wild.CHAR and a != "/" if isinstance(b, Wild) else a == b
