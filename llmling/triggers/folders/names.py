"""File names as text: every name the file system allows, written so that JSON and SQLite can hold it."""

from __future__ import annotations

import re

_LOST = re.compile("[\udc80-\udcff]")
_MARKED = re.compile("\ufffd([89a-f][0-9a-f])")


def storable(name: str) -> str:
    """Return a name as valid Unicode: each byte that is not UTF-8 becomes U+FFFD and its two hex digits."""
    if name.isascii():
        return name
    return _LOST.sub(lambda lost: f"\ufffd{ord(lost.group()) - 0xDC00:02x}", name)


def original(name: str) -> str:
    """Return the name `storable` was given, as the functions of `os` take it."""
    if name.isascii():
        return name
    return _MARKED.sub(lambda marked: chr(0xDC00 + int(marked.group(1), 16)), name)


def shortened(name: str, ending: str, most_bytes: int = 255) -> str:
    """Return `name` + `ending`, with the name cut so that a file system takes the whole."""
    room = most_bytes - len(ending.encode())
    raw = name.encode(errors="surrogateescape")
    if len(raw) > room:
        # A character cut in half is dropped; bytes that never were UTF-8 stay as they are.
        name = (
            raw[:room].decode(errors="ignore")
            if _LOST.search(name) is None
            else raw[:room].decode(errors="surrogateescape")
        )
    return name + ending
