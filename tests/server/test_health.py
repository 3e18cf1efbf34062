"""The pool's pages over a real listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from llmling.asks import Ask, Decision
from llmling.errors import EngineError, StartupError
from llmling.events import Event
from llmling.manifest.pool import ServerConfig
from llmling.messages import Message
from llmling.protocols import DeliveryRecord, EventRecord, Host
from llmling.server.health import FIRST_PORT, Health
from llmling.server.listener import Listeners
from llmling.server.metrics import Sample


def delivery(agent: str, **changes: Any) -> DeliveryRecord:
    values: dict[str, Any] = {
        "id": f"e1/{agent}", "agent": agent, "status": "done", "attempts": 1, "hops": 0,
        "message": Message.user("hi"), "content": f"from {agent}", "error": None, "cost_usd": None,
        "created": 1.0, "finished": 2.0,
    }  # fmt: skip
    return DeliveryRecord(**{**values, **changes})


EVENT = EventRecord(
    id="e1", trigger="hook", agent="a", status="dead", outcome="ran", attempts=1, created=1.0, finished=3.0,
    cost_usd=0.5, error="b: no", event=Event("hook", "t", id="e1"),
    deliveries=(delivery("a"), delivery("b", status="dead", attempts=5, content=None, error="no")),
)  # fmt: skip


class State:
    """What a pool knows, fixed."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.broken = False
        self.served_by: list[Host] = []

    def hosts(self) -> Sequence[Host]:
        return self.served_by

    def ready(self) -> Sequence[str]:
        return self.reasons

    async def counts(self) -> Mapping[str, int]:
        if self.broken:
            raise EngineError("disk gone at /secret/path")
        return {"done": 7, "dead": 1}

    def metrics(self) -> Iterable[Sample]:
        return [Sample("llmling_mcp_up", 1, {"server": "files"})]

    async def inspect(self, event_id: str) -> EventRecord | None:
        return EVENT if event_id == "e1" else None

    async def decide(self, event_id: str, decision: Decision) -> Sequence[Ask]:
        return ()


async def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        text = await response.text()
        return (
            response.status,
            await response.json() if response.content_type == "application/json" else text,
            dict(response.headers),
        )


async def test_the_four_pages_on_the_first_free_port() -> None:
    state = State()
    async with Listeners() as listeners, Health(state, ServerConfig(), listeners) as health:
        assert int(health.url.rpartition(":")[2]) >= FIRST_PORT
        assert (await get(health.url + "/healthz"))[:2] == (200, {"status": "ok"})
        assert (await get(health.url + "/readyz"))[:2] == (200, {"ready": True, "reasons": []})
        status, text, headers = await get(health.url + "/metrics")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert 'llmling_events{status="done"} 7' in text
        assert 'llmling_mcp_up{server="files"} 1' in text
        assert "llmling_ready 1" in text
        assert (await get(health.event_url("e1")))[:2] == (
            200,
            {
                **EVENT.to_dict(),
                "content": "from a",
                "hops": [
                    {"agent": "a", "status": "done", "attempts": 1, "content": "from a", "error": None},
                    {"agent": "b", "status": "dead", "attempts": 5, "content": None, "error": "no"},
                ],
            },
        )
        status, body, _ = await get(health.event_url("e2"))
        assert status == 404
        assert "llmling events list" in body["error"]
        assert (await get(health.url + "/events/"))[0] == 404
        assert (await get(health.url + "/events"))[0] == 404


async def test_where_several_serve_all_are_listed() -> None:
    state = State()
    state.served_by = [Host("h1", "alpha", 7, 1.5), Host("h2", "beta", 8, 2.5, "silent", 20.0)]
    async with Listeners() as listeners, Health(state, ServerConfig(), listeners) as health:
        status, page, _ = await get(health.url + "/readyz")
    assert (status, page["ready"]) == (200, True)
    assert page["hosts"] == [
        {"id": "h1", "name": "alpha", "pid": 7, "started": 1.5, "state": "serving", "silent_s": 0.0},
        {"id": "h2", "name": "beta", "pid": 8, "started": 2.5, "state": "silent", "silent_s": 20.0},
    ]


async def test_not_ready_gives_the_reasons() -> None:
    state = State()
    state.reasons = ["MCP server 'files' is not connected"]
    async with Listeners() as listeners, Health(state, ServerConfig(), listeners) as health:
        assert (await get(health.url + "/readyz"))[:2] == (503, {"ready": False, "reasons": state.reasons})
        state.reasons = []
        listeners.draining = True
        assert (await get(health.url + "/readyz"))[:2] == (503, {"ready": False, "reasons": ["the pool is stopping"]})


async def test_a_token_guards_all_but_the_first_two() -> None:
    config = ServerConfig(token=SecretStr("t0ken"))
    async with Listeners() as listeners, Health(State(), config, listeners) as health:
        for page in ("/metrics", "/events/e1", "/events/none"):
            status, _, headers = await get(health.url + page)
            assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="llmling"')
            assert (await get(health.url + page, {"Authorization": "Bearer t0kem"}))[0] == 401
            assert (await get(health.url + page, {"Authorization": "Bearer t0ken"}))[0] in {200, 404}
        for page in ("/healthz", "/readyz"):
            assert (await get(health.url + page))[0] == 200


class Noted(Listeners):
    """Remembers what is registered: method and path."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: list[tuple[str, str]] = []

    def route(self, host: str, port: int, method: str, path: str, *rest: Any, **more: Any) -> Any:
        self.routes.append((method, path))
        return super().route(host, port, method, path, *rest, **more)


@pytest.mark.parametrize("token", ["", "wrong", "t0ke", "t0ken0", "T0KEN"])
async def test_every_route_that_is_registered_asks_for_the_token_but_two(token: str) -> None:
    config = ServerConfig(token=SecretStr("t0ken"))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    listeners = Noted()
    async with (
        listeners,
        Health(State(), config, listeners) as health,
        aiohttp.ClientSession(headers=headers) as session,
    ):
        assert len(listeners.routes) >= 5
        for method, path in listeners.routes:
            async with session.request(method, health.url + path.replace("*", "e1/approve"), json={}) as answer:
                assert answer.status == (200 if path in {"/healthz", "/readyz"} else 401), (method, path)


async def test_an_empty_token_asks_for_none() -> None:
    async with Listeners() as listeners, Health(State(), ServerConfig(token=SecretStr("")), listeners) as health:
        assert (await get(health.url + "/metrics"))[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("[::1]:8765", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil@127.0.0.2", 421),
        ("[broken", 421),
        ("", 421),
    ],
)
async def test_a_loopback_listener_answers_to_loopback_names_only(host: str, status: int) -> None:
    async with Listeners() as listeners, Health(State(), ServerConfig(), listeners) as health:
        for page in ("/healthz", "/metrics", "/events/e1"):
            assert (await get(health.url + page, {"Host": host}))[0] == status


async def test_an_open_listener_answers_to_any_name() -> None:
    config = ServerConfig(host="0.0.0.0", token=SecretStr("t"))
    async with Listeners() as listeners, Health(State(), config, listeners) as health:
        assert (await get(health.url + "/healthz", {"Host": "pool.example"}))[0] == 200


async def test_a_blocked_loop_is_unhealthy_until_the_heart_beats_again() -> None:
    now = 0.0
    async with Listeners() as listeners, Health(State(), ServerConfig(), listeners, monotonic=lambda: now) as health:
        assert (await get(health.url + "/healthz"))[0] == 200
        now = 5.5
        status, body, _ = await get(health.url + "/healthz")
        assert status == 503
        assert "blocked" in body["error"]
        async with asyncio.timeout(30):
            while (await get(health.url + "/healthz"))[0] != 200:
                pass


async def test_an_engine_that_fails_is_a_503_without_its_text() -> None:
    state = State()
    state.broken = True
    async with Listeners() as listeners, Health(state, ServerConfig(), listeners) as health:
        status, body, headers = await get(health.url + "/metrics")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "secret" not in body["error"]


async def test_ports_others_want_are_left_out_and_a_fixed_one_must_be_free() -> None:
    async with Listeners() as listeners:
        avoid = range(FIRST_PORT, FIRST_PORT + 20)
        async with Health(State(), ServerConfig(), listeners, avoid=avoid) as health:
            assert int(health.url.rpartition(":")[2]) >= FIRST_PORT + 20
        with socket.create_server(("127.0.0.1", 0)) as taken:
            config = ServerConfig(port=taken.getsockname()[1])
            with pytest.raises(StartupError, match=r"is in use \(the pool's `server:`\)"):
                async with Health(State(), config, listeners):
                    pytest.fail("entered")
