"""Bytes are read as `json.loads` reads them."""

import json

import pytest

from llmling.encoding import decoded

GOOD = [
    b"{}",
    b'{"a":"\xc3\xbc"}',
    b'{"a":1}\r\n',
    b' {"a":1}',
    b"[1]",
    b'{"a":"\\ud800"}',
    b'\xef\xbb\xbf{"a":1}',
    '{"a":"ü"}'.encode("utf-16-le"),
    '{"a":"ü"}'.encode("utf-16"),
]
BAD = [b"", b"{", b'{"a":1} x', b'{"a":1}\x0b', b'{"a":"\xff"}', b"no"]


@pytest.mark.parametrize("body", GOOD)
def test_json(body: bytes) -> None:
    assert decoded(body) == json.loads(body)


@pytest.mark.parametrize("body", BAD)
def test_no_json(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of one kind or the other, as `json.loads` raises
        decoded(body)
