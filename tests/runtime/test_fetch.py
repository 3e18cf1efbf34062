from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from llmling.runtime.fetch import FetchError, fetch, is_public, literal_address, shown

PUBLIC = "93.184.216.34"


@dataclass(slots=True)
class Internet:
    """The network as the operating system gives it: every connection is seen, public addresses end at our listener."""

    port: int
    names: dict[str, list[list[str]]] = field(default_factory=dict[str, list[list[str]]])
    connected: list[str] = field(default_factory=list[str])

    def resolve(self, host: str) -> list[str]:
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass(slots=True)
class Site:
    """A real listener on the loopback; `routes` maps a path to what it answers."""

    port: int
    routes: dict[str, web.Response | str]
    hits: list[web.Request] = field(default_factory=list[web.Request])
    closing: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async def answer(request: web.Request) -> web.StreamResponse:
        it.hits.append(request)
        found = it.routes[request.path]
        if found == "hang":
            await it.closing.wait()
        if isinstance(found, str):
            raise web.HTTPFound(found, headers={"Set-Cookie": "tracked=1"})
        return found

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it = Site(runner.addresses[0][1], {})
    yield it
    it.closing.set()
    await runner.cleanup()


@pytest.fixture
def internet(site: Site, monkeypatch: pytest.MonkeyPatch) -> Internet:
    net = Internet(site.port, {"public.example": [[PUBLIC]]})
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def spy(self: socket.socket, address: Any) -> None:
        net.connected.append(address[0])
        connect(self, ("127.0.0.1", net.port) if address[0] == PUBLIC else address)

    def lookup(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002
        found = net.resolve(host) if host in net.names else [host]
        with contextlib.suppress(OSError):
            numeric = (family, type, proto, socket.AI_NUMERICHOST)
            return [entry for address in found for entry in getaddrinfo(address, port, *numeric)]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket.socket, "connect", spy)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return net


PRIVATE_URLS = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0177.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://127.127.127.127:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://a.localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fec0::1]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/",
    "http://0xa9fea9fe/latest/",
    "http://2852039166/latest/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata.google.internal./",
    "http://metadata/",
    "http://instance-data/latest/",
    "http://printer.local/",
    "http://public.example@127.0.0.1:{port}/",
    "http://public.example:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@public.example/",
    "http://127.0.0.1:{port}\\@public.example/",
    "http://127.0.0.1%2f@localhost:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
]


@pytest.mark.parametrize("url", PRIVATE_URLS)
async def test_nothing_private_is_connected_to(site: Site, internet: Internet, url: str) -> None:
    internet.names["localhost"] = [["127.0.0.1"]]
    with pytest.raises(FetchError):
        await fetch(url.format(port=site.port), max_bytes=1000)
    assert internet.connected == []
    assert site.hits == []


@pytest.mark.parametrize("url", PRIVATE_URLS)
async def test_no_redirect_leads_there_either(site: Site, internet: Internet, url: str) -> None:
    internet.names["localhost"] = [["127.0.0.1"]]
    site.routes = {"/": "/second", "/second": url.format(port=site.port)}
    with pytest.raises(FetchError):
        await fetch("http://public.example/", max_bytes=1000)
    assert set(internet.connected) == {PUBLIC}


@pytest.mark.parametrize(
    "answer", ["127.0.0.1", "::1", "169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "224.0.0.1", "0.0.0.0"]
)
async def test_names_that_resolve_to_private_addresses_are_refused(internet: Internet, answer: str) -> None:
    internet.names["rebind.example"] = [[PUBLIC, answer]]
    with pytest.raises(FetchError, match=r"rebind\.example leads to .* which is not in the public internet"):
        await fetch("http://rebind.example/", max_bytes=1000)
    assert internet.connected == []


async def test_a_flipping_resolver_is_asked_once_per_connection(site: Site, internet: Internet) -> None:
    internet.names["rebind.example"] = [[PUBLIC], ["127.0.0.1"]]
    site.routes = {"/": "/again"}
    with pytest.raises(FetchError, match=r"leads to 127\.0\.0\.1"):
        await fetch("http://rebind.example/", max_bytes=1000)
    assert internet.connected == [PUBLIC]


async def test_allow_private_reads_it(site: Site) -> None:
    site.routes["/x.md"] = web.Response(text="# Hé", content_type="text/markdown", charset="utf-8")
    assert await fetch(f"http://127.0.0.1:{site.port}/x.md", max_bytes=1000, allow_private=True) == "# Hé"


async def test_three_redirects_are_followed_and_four_are_not(site: Site, internet: Internet) -> None:
    site.routes = {f"/{n}": f"/{n + 1}" for n in range(4)} | {"/4": web.Response(text="there")}
    assert await fetch("http://public.example/1", max_bytes=1000) == "there"
    assert all("Cookie" not in hit.headers for hit in site.hits)
    with pytest.raises(FetchError, match=r"public\.example/4: more than 3 redirects"):
        await fetch("http://public.example/0", max_bytes=1000)


@pytest.mark.parametrize("target", ["ftp://public.example/x", "file:///etc/passwd", "gopher://public.example", ""])
async def test_redirects_stay_on_the_web(site: Site, internet: Internet, target: str) -> None:
    site.routes = {"/": web.Response(status=302, headers={"Location": target})}
    with pytest.raises(FetchError, match="redirects to something that is not an http or https address"):
        await fetch("http://public.example/", max_bytes=1000)


@pytest.mark.parametrize(
    "url", ["ftp://public.example/", "file:///etc/passwd", "//public.example/", "", "http://", "http://[::1"]
)
async def test_only_http_addresses_are_taken(url: str) -> None:
    with pytest.raises(FetchError, match=r"not an http or https address|not a valid URL"):
        await fetch(url, max_bytes=1000)


async def test_credentials_stay_out_of_errors_and_off_other_hosts(site: Site, internet: Internet) -> None:
    internet.names["other.example"] = [[PUBLIC]]
    site.routes = {"/": "http://other.example/there", "/there": web.Response(status=403)}
    with pytest.raises(FetchError) as caught:
        await fetch("http://me:hunter2@public.example/?token=hunter2", max_bytes=1000)
    assert str(caught.value) == "http://other.example/there answered 403 Forbidden"
    assert [hit.headers.get("Authorization") is not None for hit in site.hits] == [True, False]
    assert shown("https://me:hunter2@x.example:1/a?b=c#d") == "https://x.example:1/a"


async def test_a_page_over_the_limit_is_refused(site: Site, internet: Internet) -> None:
    site.routes["/"] = web.Response(text="x" * 1001)
    with pytest.raises(FetchError, match="larger than 1000 bytes; raise `max_bytes`"):
        await fetch("http://public.example/", max_bytes=1000)
    site.routes["/"] = web.Response(text="x" * 1000)
    assert len(await fetch("http://public.example/", max_bytes=1000)) == 1000


async def test_a_small_body_that_unpacks_to_a_large_one_is_refused(site: Site, internet: Internet) -> None:
    bomb = web.Response(body=b"0" * 50_000_000, content_type="text/plain")
    bomb.enable_compression(web.ContentCoding.gzip)
    site.routes["/"] = bomb
    with pytest.raises(FetchError, match="larger than 1000000 bytes"):
        await fetch("http://public.example/", max_bytes=1_000_000)


async def test_a_server_that_hangs_is_given_up(site: Site, internet: Internet) -> None:
    site.routes["/"] = "hang"
    with pytest.raises(FetchError, match=re.escape("http://public.example/ did not answer within 0.2 s")):
        await fetch("http://public.example/", max_bytes=1000, timeout_s=0.2)


async def test_an_unreachable_server_is_named(site: Site, internet: Internet) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        internet.port = unused.getsockname()[1]
        with pytest.raises(FetchError, match=r"public\.example/x could not be reached: .*[Cc]onn"):
            await fetch("http://public.example/x", max_bytes=1000)
    with pytest.raises(FetchError, match=r"nowhere\.example/ could not be reached: Name or service not known"):
        await fetch("http://nowhere.example/", max_bytes=1000)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b'{"a": 1}', "application/json", '{"a": 1}'),
        (b'{"a": 1}', "application/ld+json", '{"a": 1}'),
        ("é".encode("latin-1"), "text/plain; charset=iso-8859-1", "é"),
        ("é".encode(), "text/plain; charset=no-such", "é"),
        ("﻿é".encode(), "text/plain", "é"),
        ("é".encode(), "application/octet-stream", "é"),
        ("<meta charset=latin-1><p>é".encode("latin-1"), "text/html", "é"),
        (b"<html><head><title>T</title></head><body><h1>A</h1><p>b", "application/xhtml+xml", "T\n\n# A\n\nb"),
    ],
)
async def test_text_is_decoded(site: Site, internet: Internet, body: bytes, kind: str, text: str) -> None:
    site.routes["/"] = web.Response(body=body, headers={"Content-Type": kind})
    assert await fetch("http://public.example/", max_bytes=1000) == text


@pytest.mark.parametrize(("body", "kind"), [(b"\x89PNG", "image/png"), (b"a\0b", "application/octet-stream")])
async def test_what_is_not_text_is_refused(site: Site, internet: Internet, body: bytes, kind: str) -> None:
    site.routes["/"] = web.Response(body=body, headers={"Content-Type": kind})
    with pytest.raises(FetchError, match=r"public\.example/ is (image/png, )?not text"):
        await fetch("http://public.example/", max_bytes=1000)


def test_public_addresses_are_public() -> None:
    for text in (PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"):
        assert is_public(ipaddress.ip_address(text))
    assert literal_address("public.example") is None
    assert literal_address("0x7f.1") == ipaddress.ip_address("127.0.0.1")
