"""JSON without the detours of Python's own way, which take longer than most values do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_decode = json.JSONDecoder().raw_decode


def decoded(body: bytes) -> Any:
    """Return what `json.loads` does, which looks for the encoding first, and for white space on both sides.

    Raises:
        ValueError: It is no JSON.
    """
    if body[:1] != b"{" or body[1:2] == b"\0":
        return json.loads(body)
    text = body.decode("utf-8", "surrogatepass")
    data, end = _decode(text)
    return data if end == len(text) or not text[end:].strip(" \t\n\r") else json.loads(text)


def encoder(*, ascii_only: bool, item: str = ", ", key: str = ": ") -> Callable[[Any], str]:
    """Return what turns plain data into JSON, with these separators; what is not plain data raises a TypeError.

    Python makes a new encoder for each value.
    """
    usual = json.JSONEncoder(ensure_ascii=ascii_only, separators=(item, key))
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return usual.encode
    quoted = json.encoder.encode_basestring_ascii if ascii_only else json.encoder.encode_basestring
    pieces = make(
        markers=None, default=usual.default, encoder=quoted, indent=None, key_separator=key, item_separator=item,
        sort_keys=False, skipkeys=False, allow_nan=True,
    )  # fmt: skip
    return lambda value: "".join(pieces(value, 0))
