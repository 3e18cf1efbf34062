"""Field types of what goes over the wire: addresses, headers and secrets, as strict as those that use them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PREFIX = "whsec_"


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or _CONTROL.search(value):
        raise PydanticCustomError("wire", "this is no address of a server; write one such as https://example.org/path")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not name or _CONTROL.search(name + text):
            raise PydanticCustomError("wire", "a header needs a name and holds no line break or control character")
    return value


def _given(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise PydanticCustomError("wire", "this secret is empty, so it protects nothing")
    return value


def _base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _of_standard(value: SecretStr) -> SecretStr:
    texts = _given(value).get_secret_value().split()
    try:
        keys = [_base64(text.removeprefix(_PREFIX)) for text in texts]
    except (binascii.Error, ValueError):
        raise PydanticCustomError("wire", "this secret is not base64; copy it as `whsec_...` from the sender") from None
    if not all(keys):
        raise PydanticCustomError("wire", "this secret is empty, so it protects nothing")
    return value


def _of_sink(value: SecretStr) -> SecretStr:
    text = _given(value).get_secret_value()
    if text.startswith(_PREFIX):
        return _of_standard(value)
    return value


Url = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_address)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]
Secret = Annotated[SecretStr, AfterValidator(_given)]
StandardSecret = Annotated[SecretStr, AfterValidator(_of_standard)]
SinkSecret = Annotated[SecretStr, AfterValidator(_of_sink)]
