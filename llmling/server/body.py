"""The body of a POST: its media type, its size, its pace, and the value it holds."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.helpers import parse_content_type

from llmling.server.reply import Refused

MAX_DEPTH = 100
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_CHARSETS = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii",
    "iso-8859-1": "latin-1", "latin1": "latin-1", "windows-1252": "cp1252",
}  # fmt: skip


def is_json(content_type: str) -> bool:
    """Whether a media type holds JSON."""
    return content_type == "application/json" or content_type.endswith("+json")


def check_media_type(headers: Mapping[str, str]) -> tuple[str, str | None]:
    """Return type and charset; refuse with 415 what is neither JSON nor text, and any compressed body."""
    coding = headers.get("Content-Encoding")
    if coding is not None and coding.strip().lower() not in {"", "identity"}:
        raise Refused(415, "send the body uncompressed, without Content-Encoding")
    written = headers.get("Content-Type")
    if written is None:
        raise Refused(415, "the body has no type; send Content-Type: application/json")
    return _media_type(written)


@lru_cache(64)
def _media_type(written: str) -> tuple[str, str | None]:
    content_type, parameters = parse_content_type(written)
    if not (is_json(content_type) or content_type.startswith("text/")):
        what = "form bodies are not taken" if content_type in _FORMS else "this type of body is not taken"
        raise Refused(415, f"{what}; send Content-Type: application/json (or text/plain)")
    charset = parameters.get("charset")
    if (charset or "utf-8").lower() not in _CHARSETS:
        raise Refused(415, "unknown charset; send the body as UTF-8")
    return content_type, charset


def body_at_hand(
    headers: Mapping[str, str], content: StreamReader, *, max_bytes: int, key: str | None = None
) -> bytes | None:
    """Return a body that came with its head, as small ones do, None when it has to be read; refuses as `read_body`."""
    if not content.is_eof() or content.exception() is not None or "Expect" in headers:
        return None
    body = content.read_nowait()
    check_length(body, max_bytes, key=key)
    return body


def check_length(body: bytes, max_bytes: int, *, key: str | None = None) -> None:
    """Refuse with 413 what is longer than `max_bytes`; `key` is what raises the limit."""
    if len(body) > max_bytes:
        raise _too_long(max_bytes, key)


async def read_body(request: web.BaseRequest, *, max_bytes: int, timeout_s: float, key: str | None = None) -> bytes:
    """Return the whole body as it came.

    Refuses with 413 what is longer than `max_bytes`, by Content-Length before reading a byte; with 408 what is not
    there after `timeout_s`, then also closing the connection; with 400 what is framed wrongly. `key` is what raises
    the limit.
    """
    if (request.content_length or 0) > max_bytes:
        raise _too_long(max_bytes, key)
    try:
        async with asyncio.timeout(timeout_s):
            await _go_on(request)
            body = await _gathered(request.content, max_bytes)
    except TimeoutError:
        late = f"the body took longer than {timeout_s:g} s; send it faster or smaller"
        raise Refused(408, late, linger=False) from None
    except web.RequestPayloadError:
        raise Refused(400, "the body is framed wrongly (chunks or length)", linger=False) from None
    except ConnectionError:
        raise Refused(400, "the connection ended before the body did", linger=False) from None
    check_length(body, max_bytes, key=key)
    return body


def _too_long(max_bytes: int, key: str | None) -> Refused:
    more = f" or raise `{key}:`" if key else ""
    return Refused(413, f"the body is longer than {max_bytes} bytes; send less{more}")


async def _gathered(content: StreamReader, max_bytes: int) -> bytes:
    """Return all of a body, or what shows that it is too long."""
    body = bytearray()
    while len(body) <= max_bytes and (chunk := await content.readany()):
        body += chunk
    return bytes(body)


async def _go_on(request: web.BaseRequest) -> None:
    expect = request.headers.get("Expect")
    if expect is None or request.version != (1, 1):
        return
    if expect.strip().lower() != "100-continue":
        raise Refused(417, "only Expect: 100-continue is known")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun


def parse(body: bytes, content_type: str, charset: str | None) -> Any:
    """Return the JSON value, or the text, of a body; refuses with 400 what is not valid."""
    try:
        text = body.decode(_CHARSETS[(charset or "utf-8").lower()]).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not valid {error.encoding.upper()} at byte {error.start}") from None
    if not is_json(content_type):
        return text
    if not text.strip():
        raise Refused(400, "the body is empty; send a JSON value")
    try:
        value = _decode(text)
    except RecursionError:
        raise Refused(400, f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise Refused(400, f"invalid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise Refused(400, f"invalid JSON: {error}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise Refused(400, f"the JSON is nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refused(400, r"invalid JSON: a \u escape is half of a surrogate pair") from None
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON; send null or a text")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


# `json.loads` would make one for each body.
_decoder: Any = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def _decode(text: str) -> Any:
    # To look for white space around a value takes `decode` as long as to read a short one.
    try:
        value, end = _decoder.scan_once(text, 0)
    except StopIteration:
        return _decoder.decode(text)
    return value if end == len(text) else _decoder.decode(text)


def _deeper(value: Any, levels: int) -> bool:
    layer: list[Any] = [value]
    for _ in range(levels):
        layer = [
            child
            for item in layer
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)  # pyright: ignore[reportUnknownVariableType]
            if isinstance(child, dict | list)
        ]
        if not layer:
            return False
    return True
