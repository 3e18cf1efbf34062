"""JSON encoders that are made once: Python's own makes a new one for each value, which takes longer than most do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def encoder(*, ascii_only: bool, item: str = ", ", key: str = ": ") -> Callable[[Any], str]:
    """Return what turns plain data into JSON, with these separators; what is not plain data raises a TypeError."""
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
