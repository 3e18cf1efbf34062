"""The one function that fetches an address a manifest names, and the guard that keeps it out of private networks."""

from __future__ import annotations

import asyncio
import codecs
import ipaddress
import re
import socket
from http import HTTPStatus
from typing import TypeAlias

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    ThreadedResolver,
)
from aiohttp.abc import ResolveResult
from yarl import URL

from llmling.errors import LLMlingError
from llmling.runtime.http import USER_AGENT
from llmling.runtime.readable import readable
from llmling.runtime.threads import run_in_thread

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_REDIRECTS = 3
TIMEOUT_S = 10.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXT = re.compile(
    r"text/.*|application/(.*\+)?(json|xml|yaml|x-yaml|toml|javascript)|application/x-ndjson|image/svg\+xml"
)
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)

# Names that lead to the machine itself or to a cloud's metadata service, whatever the resolver says.
_PRIVATE_NAMES = frozenset(
    {
        "localhost",
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".localdomain")
# `is_global` is true for these, but they carry an IPv4 address that a gateway may reach: NAT64, 6to4 and their like.
_EMBEDDING = tuple(
    ipaddress.IPv6Network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "::ffff:0:0:0/96", "fec0::/10")
)


class FetchError(LLMlingError):
    """A page could not be fetched; the message names its address without credentials or query."""


def shown(url: str | URL) -> str:
    """Return a URL as errors and titles may show it: without credentials, query and fragment."""
    address = URL(url)
    return str(address.with_user(None).with_query(None).with_fragment(None)) if address.host else "the address"


def is_public(address: Address) -> bool:
    """Return whether an address lies in the public internet; everything private, local or ambiguous does not."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _EMBEDDING):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def literal_address(host: str) -> Address | None:
    """Return the address a host writes out, also as `127.1`, `0x7f000001`, `017700000001` or `2130706433`."""
    host = host.strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # The C library reads these forms when it connects; so must the guard.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


async def fetch(url: str, *, max_bytes: int, allow_private: bool = False, timeout_s: float = TIMEOUT_S) -> str:
    """Return the text of a page: HTML made readable, any other text as it is.

    Unless `allow_private`, nothing outside the public internet is ever connected to: the host is checked as written,
    the resolved addresses are checked and are the ones connected to, and so again for each of at most 3 redirects.
    `timeout_s` bounds all of it.

    Raises:
        FetchError: It was refused, did not arrive in time, is larger than `max_bytes`, or is not text.
    """
    first = _parsed(url)
    try:
        async with asyncio.timeout(timeout_s):
            connector = TCPConnector(
                resolver=_Resolver(allow_private=allow_private), use_dns_cache=False, force_close=True
            )
            async with ClientSession(
                connector=connector,
                cookie_jar=DummyCookieJar(),
                timeout=ClientTimeout(total=None),
                headers={
                    "User-Agent": USER_AGENT,
                    "Accept": "text/markdown, text/html, text/*, application/json, */*;q=0.1",
                },
            ) as session:
                return await _follow(session, first, max_bytes, allow_private=allow_private)
    except TimeoutError:
        raise FetchError(f"{shown(first)} did not answer within {timeout_s:g} s") from None


async def _follow(session: ClientSession, url: URL, max_bytes: int, *, allow_private: bool) -> str:
    for _ in range(MAX_REDIRECTS + 1):
        if not allow_private:
            _check_host(url)
        try:
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await _text(url, response, max_bytes)
                url = _target(url, response.headers.get("Location", ""))
        except FetchError:
            raise
        except ClientConnectorCertificateError as error:
            raise FetchError(f"{shown(url)} has no valid certificate: {error.certificate_error}") from None
        except (ClientError, OSError, ValueError) as error:
            raise FetchError(f"{shown(url)} could not be reached: {_reason(error)}") from None
    raise FetchError(f"{shown(url)}: more than {MAX_REDIRECTS} redirects")


class _Resolver(ThreadedResolver):
    """Resolves as the machine does; connections go to exactly the addresses it returns."""

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__()
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if not self._allow_private:
            for result in found:
                address = literal_address(result["host"])
                if address is None or not is_public(address):
                    raise FetchError(_refusal(host, result["host"]))
        return found


def _check_host(url: URL) -> None:
    host = (url.raw_host or "").rstrip(".").lower()
    address = literal_address(host)
    if address is not None and not is_public(address):
        raise FetchError(_refusal(shown(url), str(address)))
    if host in _PRIVATE_NAMES or host.endswith(_PRIVATE_SUFFIXES):
        raise FetchError(_refusal(shown(url), host))


def _refusal(what: str, address: str) -> str:
    return (
        f"{what} leads to {address}, which is not in the public internet; "
        "write `allow_private: true` if it is meant to be read"
    )


def _parsed(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError:
        raise FetchError("the address is not a valid URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise FetchError(f"{shown(url)} is not an http or https address")
    return url


def _target(url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location))
    except ValueError:
        raise FetchError(f"{shown(url)} redirects to an address that is not a valid URL") from None
    if not location or target.scheme not in {"http", "https"} or not target.host:
        raise FetchError(f"{shown(url)} redirects to something that is not an http or https address")
    if url.scheme == "https" and target.scheme == "http":
        raise FetchError(f"{shown(url)} redirects from https to http: {shown(target)}")
    return target


async def _text(url: URL, response: ClientResponse, max_bytes: int) -> str:
    if response.status != HTTPStatus.OK:
        raise FetchError(f"{shown(url)} answered {response.status} {response.reason or ''}".rstrip())
    kind = response.content_type if "Content-Type" in response.headers else ""
    if kind and kind != "application/octet-stream" and not _TEXT.fullmatch(kind) and kind not in _HTML:
        raise FetchError(f"{shown(url)} is {kind}, not text")
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > max_bytes:
            raise FetchError(f"{shown(url)} is larger than {max_bytes} bytes; raise `max_bytes` to read it")
    return await run_in_thread(_readable, shown(url), bytes(body), kind, response.charset)


def _readable(url: str, body: bytes, kind: str, charset: str | None) -> str:
    meta = _META_CHARSET.search(body[:2048]) if kind in _HTML else None
    encoding = charset or (meta.group(1).decode("ascii") if meta else "utf-8-sig")
    try:
        codecs.lookup(encoding)
    except LookupError:
        encoding = "utf-8-sig"
    if not kind or kind == "application/octet-stream":
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise FetchError(f"{url} is not text")
        return text
    text = body.decode(encoding, "replace")
    return readable(text) if kind in _HTML else text


def _reason(error: ClientError | OSError | ValueError) -> str:
    inner = error.os_error if isinstance(error, ClientConnectorError) else error
    return (isinstance(inner, OSError) and inner.strerror) or str(inner) or type(inner).__name__
