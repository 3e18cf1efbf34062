"""What the predecessor's webhook did: it never came up, answered 422, and was open to the network."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
from pathlib import Path

import aiohttp
import pytest
from serving import free_port
from stage import Stage

from llmling.errors import ManifestError
from llmling.protocols import ModelRequest

ONE = """
server: false
agents:
  clerk:
    model: demo
    triggers: [{type: webhook, name: hook, port: PORTOPTIONS}]
"""


def hook(options: str = "") -> str:
    """Return the manifest with further keys of the trigger."""
    return ONE.replace("OPTIONS", f", {options}" if options else "")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_the_pool_comes_up_and_a_post_runs_the_agent(stage: Stage) -> None:
    async with asyncio.timeout(20):
        async with stage.pool(hook()) as pool:
            assert [trigger.name for trigger in pool.report.triggers] == ["hook"]
            status, body = await stage.post({"text": "Where is the report?"})
            assert status == 202
            (record,) = await stage.settled(1)
            assert "Where is the report?" in await stage.content(pool, record)
    assert record.id == body["event_id"]
    assert (record.event.type, record.event.data) == ("dev.llmling.webhook.received", {"text": "Where is the report?"})


async def test_it_listens_on_this_machine_only(stage: Stage) -> None:
    async with stage.pool(hook()):
        assert (await stage.post({}))[0] == 202
        with socket.socket() as probe:
            # What listens on every address also listens on this one.
            assert probe.connect_ex(("127.0.0.2", stage.port)) != 0


def test_another_address_needs_a_secret(stage: Stage) -> None:
    with pytest.raises(ManifestError) as caught:
        stage.pool(hook("host: 0.0.0.0"))
    (problem,) = caught.value.problems
    assert problem.code == "LL213"
    assert "allow_unauthenticated" in problem.message
    stage.pool(hook("host: 0.0.0.0, allow_unauthenticated: true"))
    stage.pool(hook("host: 0.0.0.0, auth: {type: github, secret: a-long-enough-secret}"))


async def test_two_triggers_share_one_port(stage: Stage) -> None:
    other = "  other:\n    model: demo\n    triggers: [{type: webhook, name: two, port: PORT, path: /two}]\n"
    async with stage.pool(hook() + other):
        assert (await stage.post({}))[0] == 202
        assert (await stage.post({}, "/two"))[0] == 202
        await stage.settled(2)
    assert {record.agent for record in stage.done} == {"clerk", "other"}


async def test_a_secret_comes_from_the_environment_and_githubs_own_signature_is_asked_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "it-is-a-secret-to-everybody")
    body = json.dumps({"action": "opened"}).encode()
    right = hmac.new(b"it-is-a-secret-to-everybody", body, hashlib.sha256).hexdigest()
    literal = hmac.new(b"${HOOK_SECRET}", body, hashlib.sha256).hexdigest()
    tries: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        ({"X-Hub-Signature-256": "sha256=" + "0" * 64}, 401),
        ({"X-Hub-Signature-256": "sha256=" + literal}, 401),
        ({"X-Hub-Signature": right}, 401),
        ({"X-Hub-Signature-256": "sha256=" + right}, 202),
    ]
    async with stage.pool(hook('auth: {type: github, secret: "${HOOK_SECRET}"}')), aiohttp.ClientSession() as session:
        for headers, expected in tries:
            url = f"http://127.0.0.1:{stage.port}/webhook"
            sent = {"Content-Type": "application/json", "X-GitHub-Delivery": "d1", **headers}
            async with session.post(url, data=body, headers=sent) as response:
                assert response.status == expected, headers
        await stage.settled(1)
    assert [record.event.data for record in stage.done] == [{"action": "opened"}]


async def test_what_is_wrong_with_a_post_has_a_status_of_its_own(stage: Stage) -> None:
    async with stage.pool(hook("max_body_bytes: 100, rate_per_s: 1")), aiohttp.ClientSession() as session:

        async def status(method: str, path: str, body: bytes, kind: str = "application/json") -> int:
            url = f"http://127.0.0.1:{stage.port}{path}"
            async with session.request(method, url, data=body, headers={"Content-Type": kind}) as response:
                assert "Traceback" not in await response.text()
                return response.status

        assert await status("POST", "/other", b"{}") == 404
        assert await status("GET", "/webhook", b"") == 405
        assert await status("POST", "/webhook", b"a=1", "application/x-www-form-urlencoded") == 415
        assert await status("POST", "/webhook", b'"' + b"x" * 200 + b'"') == 413
        assert await status("POST", "/webhook", b"not json") == 400
        assert await status("POST", "/webhook", b"plain words", "text/plain") == 202
        assert 429 in [await status("POST", "/webhook", b"{}") for _ in range(3)]


async def test_a_full_inbox_is_told_to_the_sender(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def answer(request: ModelRequest) -> str:
        await go_on.wait()
        return "done"

    manifest = hook().replace("model: demo", "model: demo\n    concurrency: 1\n    inbox: {size: 2, overflow: reject}")
    async with stage.pool(manifest, clerk=answer):
        statuses = [(await stage.post({"n": number}))[0] for number in range(6)]
        taken = statuses.count(202)
        assert 503 in statuses
        assert taken in {2, 3}
        go_on.set()
        await stage.settled(taken)
        assert (await stage.post({"n": 7}))[0] == 202


async def test_the_answer_names_the_event_and_where_to_ask_for_it(stage: Stage) -> None:
    health = free_port()
    manifest = hook().replace("server: false", f"server: {{port: {health}}}")
    async with stage.pool(manifest) as pool:
        for page in ("/healthz", "/readyz"):
            assert (await stage.get(f"http://127.0.0.1:{health}{page}"))[0] == 200
        status, body = await stage.post({"say": "hello"})
        assert status == 202
        assert pool.engine is not None
        await pool.engine.wait(body["event_id"], 30)
        status, page = await stage.get(body["status_url"])
    assert (status, page["id"], page["status"]) == (200, body["event_id"], "done")
    assert "hello" in page["content"]


async def test_the_answer_itself_can_be_the_reply(stage: Stage) -> None:
    async with stage.pool(hook("reply: result")):
        status, body = await stage.post({"say": "hello"})
    assert status == 200
    assert "hello" in body["content"]
