"""The webhook trigger over a real listener: statuses in their order, deliveries, what an event carries."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import json
import time

import aiohttp
import pytest
import standardwebhooks
from webhook_door import GITHUB, HOST, JSON, WHSEC, Mailbox, armed, github, hook, raw, stopped

from llmling.errors import EngineError, Full, StartupError
from llmling.manifest.triggers import WebhookTriggerConfig
from llmling.runtime.services import Services
from llmling.server.listener import Listeners
from llmling.triggers.webhook import WebhookTrigger

# --- accepted --------------------------------------------------------------------------------------------------------


async def test_a_post_is_an_event_and_the_answer_says_where_it_is() -> None:
    async with hook() as door:
        status, body, _ = await door.post(b'{"action": "opened", "n": [1, null]}')
        event = door.mailbox.events[0]
    assert status == 202
    assert body == {"event_id": event.id, "status_url": f"http://pool/events/{event.id}"}
    assert (event.source, event.type, event.subject) == ("hook", "dev.llmling.webhook.received", "/webhook")
    assert event.data == {"action": "opened", "n": [1, None]}
    assert event.headers["content-type"] == "application/json"
    assert door.mailbox.keys == {}


async def test_text_is_text_and_no_server_means_no_status_url() -> None:
    async with Listeners() as listeners, aiohttp.ClientSession() as session:
        port = await listeners.bind(HOST, 0, owner="test")
        mailbox = Mailbox()
        trigger = WebhookTrigger(WebhookTriggerConfig(name="h", port=port), Services(listeners=listeners), "a")
        task = await armed(trigger, mailbox)
        async with session.post(f"http://{HOST}:{port}/webhook", data="grüße") as response:
            assert await response.json() == {"event_id": mailbox.events[0].id, "status_url": None}
        assert mailbox.events[0].data == "grüße"
        await stopped(task)


async def test_headers_of_an_event_hold_no_credential_and_only_valid_text() -> None:
    secret = {
        "Authorization": "Bearer x", "Cookie": "x", "Proxy-Authorization": "x", "X-Api-Key": "x",
        "X-Amz-Security-Token": "x",
        "X-Client-Secret": "x", "X-Hub-Signature": "x", "X-Session": "x", "X-Password": "x", "X-Sig": "hex",
    }  # fmt: skip
    body = b"{}"
    auth = {"type": "hmac", "secret": "s", "header": "X-Sig"}
    async with hook(auth=auth) as door:
        signed = {**secret, "X-Sig": github(body)}
        status, _, _ = await door.post(body, {**JSON, **signed, "X-Note": "grün", "X-Event": "push"})
        assert status == 202
        headers = door.mailbox.events[0].headers
        answer = await raw(
            door.port,
            b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nX-Raw: \xff\r\nX-Raw: b\r\n"
            + f"X-Sig: {github(b'hi')}\r\n".encode()
            + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi",
        )
        assert b" 202 " in answer
        json.dumps(door.mailbox.events[1].to_dict(), ensure_ascii=False).encode()
        assert door.mailbox.events[1].headers["x-raw"] == "\ufffd, b"
    assert not {name.lower() for name in secret} & set(headers)
    assert headers["x-event"] == "push"
    assert headers["x-note"] == "grün"


# --- the order of the statuses ---------------------------------------------------------------------------------------


async def test_the_first_fault_answers() -> None:
    """Each step mends one fault of a request that has all of them."""
    mailbox = Mailbox(error=Full("inbox", retry_after_s=2.5))
    good = b'{"a": 1}'
    bad = b'{"a": NaN}'
    async with hook(mailbox, max_body_bytes=20, rate_per_s=1, body_timeout_s=0.2, **GITHUB) as door:
        assert (await door.post(bad * 9, {"Content-Encoding": "gzip"}, method="GET", path="/none"))[0] == 404
        status, _, headers = await door.post(None, {"Content-Encoding": "gzip"}, method="PUT")
        assert (status, headers["Allow"]) == (405, "POST")
        assert (await door.post(bad * 9, {**JSON, "Content-Encoding": "gzip"}))[0] == 415
        status, body, _ = await door.post(bad * 9, {"Content-Type": "application/x-www-form-urlencoded"})
        assert status == 415
        assert "send Content-Type: application/json" in body["error"]
        assert (await door.post(bad * 9))[0] == 413
        slow = b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
        assert b" 408 " in await raw(door.port, slow)
        status, body, _ = await door.post(bad)
        assert status == 401
        assert "X-Hub-Signature-256" in body["error"]
        assert (await door.post(bad, {**JSON, "X-Hub-Signature-256": github(bad)}))[0] == 400
        signed = {**JSON, "X-Hub-Signature-256": github(good)}
        status, body, headers = await door.post(good, signed)  # takes the only token of this second
        assert (status, headers["Retry-After"]) == (503, "3")
        assert "no room for another event of agent 'agent'" in body["error"]
        mailbox.error = None
        status, body, headers = await door.post(good, signed)
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "rate_per_s" in body["error"]
        assert mailbox.events == []


async def test_get_and_head_are_no_way_to_post() -> None:
    async with hook() as door:
        for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH"):
            status, _, headers = await door.post(None, method=method)
            assert (status, headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("error", [EngineError("disk full at /var/x"), Full("read-only", retry_after_s=30)])
async def test_what_cannot_be_stored_is_a_503_and_recovers(error: EngineError) -> None:
    async with hook(Mailbox(error=error)) as door:
        status, body, headers = await door.post()
        assert status == 503
        assert int(headers["Retry-After"]) >= 1
        assert str(error) not in body["error"]
        door.mailbox.error = None
        assert (await door.post())[0] == 202


async def test_draining_answers_503_also_after_the_trigger_left() -> None:
    async with hook() as door:
        door.listeners.draining = True
        status, _, headers = await door.post()
        assert (status, headers["Retry-After"]) == (503, "10")
        assert (await door.post(b"{"))[0] == 400  # still in order
        await stopped(door.task)
        assert (await door.post())[0] == 503
    assert door.mailbox.events == []


async def test_a_bearer_token_is_asked_for() -> None:
    async with hook(auth={"type": "bearer", "token": "t"}) as door:
        status, _, headers = await door.post()
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="llmling"')
        assert (await door.post(headers={**JSON, "Authorization": "Bearer t"}))[0] == 202


async def test_a_web_page_of_another_site_may_not_post_without_auth() -> None:
    async with hook() as door:
        for origin in ("https://evil.example", "null", "http://[broken"):
            assert (await door.post(headers={**JSON, "Origin": origin}))[0] == 401
        assert (await door.post(headers={**JSON, "Origin": "http://localhost:3000"}))[0] == 202
    async with hook(**GITHUB) as door:
        headers = {**JSON, "Origin": "https://github.example", "X-Hub-Signature-256": github(b"{}")}
        assert (await door.post(headers=headers))[0] == 202


async def test_an_empty_text_needs_a_prompt() -> None:
    text = {"Content-Type": "text/plain"}
    async with hook() as door:
        assert (await door.post(b" \n", text))[0] == 400
        assert (await door.post(b'""'))[0] == 400
    async with hook(prompt="Say hello") as door:
        assert (await door.post(b"", text))[0] == 202


# --- deliveries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["webhook-id", "X-GitHub-Delivery", "Idempotency-Key"])
async def test_a_known_delivery_gets_the_same_id_also_over_the_rate(name: str) -> None:
    async with hook(dedupe_window_s=60) as door:
        _, first, _ = await door.post(b"1", {**JSON, name: "d-1"})
        status, again, _ = await door.post(b"2", {**JSON, name: "d-1"})
        assert (status, again) == (200, first)
        assert (await door.post(b"1", {**JSON, name: "d-2"}))[0] == 202
        assert len(door.mailbox.events) == 2
        assert door.mailbox.kept_s == 60


async def test_without_any_id_unsigned_posts_are_each_new_and_signed_ones_are_not() -> None:
    async with hook() as door:
        assert [(await door.post())[0] for _ in range(2)] == [202, 202]
    async with hook(auth={"type": "hmac", "secret": "s"}) as door:
        headers = {**JSON, "X-Signature-256": github(b"{}")}
        assert [(await door.post(headers=headers))[0] for _ in range(2)] == [202, 200]
        assert len(door.mailbox.events) == 1
        other = {**JSON, "X-Signature-256": github(b"[]"), "Idempotency-Key": "x" * 5000}
        assert [(await door.post(b"[]", other))[0] for _ in range(2)] == [202, 200]
        assert max(map(len, door.mailbox.keys)) < 100


async def test_stripe_is_known_by_the_id_in_its_body_not_by_a_header_anyone_may_add() -> None:
    def signed(body: bytes) -> dict[str, str]:
        at = str(int(time.time()))
        digest = hmac.new(b"s", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        return {**JSON, "Stripe-Signature": f"t={at},v1={digest}"}

    async with hook(auth={"type": "stripe", "secret": "s"}) as door:
        body = b'{"id": "evt_1", "attempt": 1}'
        assert (await door.post(body, signed(body)))[0] == 202
        again = b'{"id": "evt_1", "attempt": 2}'
        assert (await door.post(again, signed(again)))[0] == 200
        assert (await door.post(body, {**signed(body), "webhook-id": "new", "Idempotency-Key": "new"}))[0] == 200
        other = b'{"id": "evt_2"}'
        assert (await door.post(other, signed(other)))[0] == 202


async def test_standard_webhooks_of_its_library_are_taken_and_changes_refused() -> None:
    async with hook(auth={"type": "standard", "secret": WHSEC}) as door:
        now = int(time.time())

        def signed(id_: str, body: str, at: int = now) -> dict[str, str]:
            signature = standardwebhooks.Webhook(WHSEC).sign(id_, dt.datetime.fromtimestamp(at, dt.UTC), body)
            return {**JSON, "webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": signature}

        headers = signed("msg_1", '{"a":1}')
        assert (await door.post(b'{"a":1}', headers))[0] == 202
        assert (await door.post(b'{"a":1}', headers))[0] == 200
        assert (await door.post(b'{"a":2}', headers))[0] == 401
        assert (await door.post(b'{"a":1}', {**headers, "webhook-id": "msg_2"}))[0] == 401
        assert (await door.post(b'{"a":1}', signed("msg_3", '{"a":1}', now - 330)))[0] == 401
        assert (await door.post(b'{"a":', signed("msg_4", '{"a":')))[0] == 400
        assert set(door.mailbox.keys) == {"webhook-id:msg_1"}


async def test_a_replay_storm_runs_once() -> None:
    async with hook(**GITHUB) as door:
        headers = {**JSON, "X-Hub-Signature-256": github(b"{}"), "X-GitHub-Delivery": "guid"}
        limit = asyncio.Semaphore(50)

        async def once() -> tuple[int, str]:
            async with limit:
                status, body, _ = await door.post(headers=headers)
                return status, body["event_id"]

        answers = await asyncio.gather(*(once() for _ in range(300)))
    assert sorted(status for status, _ in answers) == [200] * 299 + [202]
    assert len({event_id for _, event_id in answers}) == 1
    assert len(door.mailbox.events) == 1


@pytest.mark.parametrize("id_header", [b"", b"Idempotency-Key: k\r\n"])
async def test_a_sender_that_hangs_up_cuts_neither_the_commit_nor_the_stop(id_header: bytes) -> None:
    mailbox = Mailbox(gate=asyncio.Event())
    assert mailbox.gate is not None
    async with hook(mailbox) as door:
        _, writer = await asyncio.open_connection(HOST, door.port)
        writer.write(
            b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + id_header
            + b"Content-Length: 2\r\n\r\n{}"
        )
        await mailbox.entered.wait()
        writer.transport.abort()
        door.task.cancel()
        await asyncio.wait({door.task})
        assert len(mailbox.events) == 1
        mailbox.gate.set()


# --- starting and stopping -------------------------------------------------------------------------------------------


async def test_two_triggers_share_a_port_but_not_a_path() -> None:
    async with hook() as door:
        services = Services(listeners=door.listeners)
        second = WebhookTrigger(WebhookTriggerConfig(name="two", port=door.port, path="/two"), services, "b")
        mailbox = Mailbox()
        task = await armed(second, mailbox)
        assert (await door.post(path="/two"))[0] == 202
        assert (len(mailbox.events), len(door.mailbox.events)) == (1, 0)
        await stopped(task)
        assert (await door.post(path="/two"))[0] == 404
        clash = WebhookTrigger(WebhookTriggerConfig(name="three", port=door.port), services, "b")
        with pytest.raises(StartupError, match="trigger 'three' and trigger 'hook' both serve POST /webhook"):
            await clash.run(mailbox, lambda: pytest.fail("armed"))
