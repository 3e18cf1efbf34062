"""A pool full of canaries: after it has served, failed and been asked about, none is in anything it left or said."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
from aiohttp import web
from serving import Serve, free_port, llmling, post, until

from llmling import Agent, Message, masking
from llmling.messages import ToolCallPart
from llmling.testing import ScriptedModel

CANARIES = {
    "HOOK": "canary-hook-4f1c",  # no name of a credential: what it fills makes it one
    "MAIL_TOKEN": "canary-mail-77aa",
    "LLMLING_TOKEN": "canary-page-90e2",
    "SINK": "canary-sink-b3d8",
}
MANIFEST = """
server: {port: ADMIN, token: "${LLMLING_TOKEN}"}
agents:
  clerk:
    model: demo:clerk.yml
    redelivery: {attempts: 2, backoff_s: 0}
    knowledge: [notes.md]
    triggers: [{type: webhook, name: hook, port: PORT, auth: {type: bearer, token: "${HOOK}"}}]
    tools: [tools:settings, tools:crash, {type: function, function: "tools:send", approval: always}]
    sinks: [{type: http, url: "http://127.0.0.1:SINK/", headers: {Authorization: "Bearer ${SINK}"}}]
"""
TOOLS = """
import os

def settings() -> str:
    return repr(dict(os.environ))

def crash() -> str:
    raise RuntimeError("cannot log in with " + os.environ["MAIL_TOKEN"])

def send(text: str) -> str:
    return text
"""
SCRIPT = """
- {match: all of it, times: 1, tool_calls: [{name: settings, arguments: {}}, {name: crash, arguments: {}}]}
- {match: ask, times: 1, tool_calls: [{name: send, arguments: {text: CANARY}}]}
- {reply: Nothing to see.}
"""


async def echo(request: web.Request) -> web.Response:
    return web.Response(status=500, text=f"refused {request.headers['Authorization']}")


async def test_no_secret_is_in_anything_a_pool_leaves_or_says(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    app = web.Application()
    app.router.add_post("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    written = {
        "agents.yml": MANIFEST.replace("PORT", str(port))
        .replace("ADMIN", str(admin))
        .replace("127.0.0.1:SINK", f"127.0.0.1:{runner.addresses[0][1]}"),
        "tools.py": TOOLS,
        "clerk.yml": SCRIPT.replace("CANARY", CANARIES["MAIL_TOKEN"]),
        "notes.md": f"The password of the mail box is {CANARIES['MAIL_TOKEN']}.",
        ".env": "MAIL_TOKEN=canary-file-0001\nOTHER=canary-file-0002\n",
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    said: list[str] = []
    hook, pages = f"http://127.0.0.1:{port}/webhook", f"http://127.0.0.1:{admin}"
    trusted = {"Authorization": f"Bearer {CANARIES['HOOK']}"}
    async with Serve(tmp_path, "agents.yml", env=CANARIES) as serve, aiohttp.ClientSession() as session:
        for token in ("canary-hook-wrong", "", CANARIES["HOOK"] + "x"):
            status, body = await post(session, hook, "x", Authorization=f"Bearer {token}")
            assert status == 401
            said.append(json.dumps(body).replace("canary-hook-wrong", ""))
        status, dead = await post(session, hook, "all of it", **trusted)
        assert status == 202
        await until(lambda: serve.events, "an event that is dead")
        assert "refused ***" in serve.events[0]["error"]
        _, asked = await post(session, hook, "ask", **trusted)
        await until(lambda: [line for line in serve.lines if line["type"] == "waiting"], "an event that waits")
        for path in ("/metrics", "/readyz", f"/events/{dead['event_id']}", f"/events/{asked['event_id']}"):
            async with session.get(pages + path) as refused:
                said.append(await refused.text())
                assert refused.status == (200 if path == "/readyz" else 401)
            page = {"Authorization": f"Bearer {CANARIES['LLMLING_TOKEN']}"}
            async with session.get(pages + path, headers=page) as shown:
                said.append(await shown.text())
                assert shown.status == 200
        said += [json.dumps(serve.lines)]
    said += serve.errors
    assert "cannot log in with ***" in "\n".join(serve.errors)
    for command in (
        ("events", "list", "agents.yml"),
        ("events", "show", "agents.yml", dead["event_id"]),
        ("events", "show", "agents.yml", dead["event_id"], "--trace", "--json"),
        ("events", "show", "agents.yml", asked["event_id"]),
        ("plan", "agents.yml", "--json"),
        ("validate", "agents.yml"),
    ):
        code, out, err = await llmling(tmp_path, *command, env=CANARIES)
        assert code == 0, err
        said += [out, err]
    await runner.cleanup()
    # What a model was scripted to say about a secret it should never have seen is its own.
    script = CANARIES["MAIL_TOKEN"]
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.name not in written}
    assert any(file.name == "pool.db" for file in files)
    for name, canary in {**CANARIES, "dotenv": "canary-file-000"}.items():
        assert [line for line in said if canary in line] == [], name
        if canary != script:
            assert [str(file) for file, data in files.items() if canary.encode() in data] == [], name


async def test_a_model_sees_no_known_secret() -> None:
    def tell() -> str:
        return "the token is canary-tool-51ab"

    model = ScriptedModel([Message("assistant", (ToolCallPart("c1", "tell", {}),)), "ok"])
    with masking.hiding(["canary-tool-51ab"]):
        await Agent[None]("a", model=model, tools=[tell]).run("What is it?")
    assert "the token is ***" in str(model.requests[-1].messages)
    assert "canary" not in str(model.requests[-1].messages)
    assert masking.masked("canary-tool-51ab") == "canary-tool-51ab"
