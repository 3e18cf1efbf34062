"""The dashboard: its JSON over HTTP, and its page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from browser import opened
from serving import eventually, free_port

from llmling import AgentPool

MARKUP = "<img src=x onerror=document.title='taken'>"
TOOLS = '''\
def send(to: str) -> str:
    """Send a letter."""
    return "sent to " + to
'''


@pytest.fixture
def manifest(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "bad.yml").write_text("- {match: .*, error: 500}\n")
    (tmp_path / "script.yml").write_text(
        f"- {{match: 'sent to', reply: \"{MARKUP} is done\"}}\n"
        "- {match: .*, tool_calls: [{name: send, arguments: {to: Bob}}]}\n"
    )
    port = free_port()
    bad = {"model": "demo:bad.yml", "retries": {"attempts": 1}, "redelivery": {"attempts": 1}}
    return {
        "engine": {"type": "memory"},
        "agents": {
            "clerk": {
                "model": "demo:script.yml",
                "tools": [{"type": "function", "function": "tools:send", "approval": "always"}],
                "triggers": [{"type": "webhook", "name": "letters", "port": port, "path": "/letters"}],
            },
            "broken": {**bad, "triggers": [{"type": "webhook", "name": "bad", "port": port, "path": "/bad"}]},
        },
    }


def write(folder: Path, data: dict[str, Any]) -> Path:
    path = folder / "agents.yml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


async def post(pool: AgentPool[Any], trigger: str) -> str:
    url = next(state.place for state in pool.report.triggers if state.name == trigger)
    async with aiohttp.ClientSession() as session, session.post(url, json={"text": MARKUP}) as answer:
        assert answer.status == 202
        return (await answer.json())["event_id"]


async def reached(pool: AgentPool[Any], event_id: str, status: str) -> None:
    async def look() -> bool | None:
        record = await pool.inspect(event_id)
        return True if record is not None and record.status == status else None

    await eventually(look, f"{event_id} is {status}")


async def get(url: str, **headers: str) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        body = await (answer.json() if answer.content_type == "application/json" else answer.text())
        return answer.status, body, answer.headers


async def test_status_tells_what_the_pool_is_made_of_and_its_latest_events(
    tmp_path: Path, manifest: dict[str, Any]
) -> None:
    async with AgentPool(write(tmp_path, manifest)) as pool:
        url = str(pool.report.server_url)
        dead = await post(pool, "bad")
        waiting = await post(pool, "letters")
        await reached(pool, dead, "dead")
        await reached(pool, waiting, "waiting")
        status, body, _ = await get(url + "/status")
        assert status == 200
        assert [agent["name"] for agent in body["agents"]] == ["clerk", "broken"]
        assert [trigger["name"] for trigger in body["triggers"]] == ["letters", "bad"]
        assert (body["ready"], body["counts"]) == (True, {"dead": 1, "waiting": 1})
        assert [event["id"] for event in body["events"]] == [waiting, dead]
        assert [event["id"] for event in (await get(url + "/status?status=dead"))[1]["events"]] == [dead]
        status, body, _ = await get(url + "/status?status=gone")
        assert (status, body["error"][:24]) == (400, "unknown status 'gone'; o")


async def test_with_a_token_the_page_shows_nothing_until_it_is_given(tmp_path: Path, manifest: dict[str, Any]) -> None:
    async with AgentPool(write(tmp_path, {**manifest, "server": {"token": "open sesame"}})) as pool:
        url = str(pool.report.server_url)
        status, page, headers = await get(url + "/")
        assert status == 401
        assert "clerk" not in page
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert (await get(url + "/status"))[0] == 401
        assert (await get(url + "/status", Authorization="Bearer open sesame"))[0] == 200
        async with opened(url + "/") as tab:
            await tab.shows("Show the pool")
            await tab.run("document.querySelector('#token').value = 'wrong'")
            await tab.click("Show the pool")
            await tab.shows("the bearer token is not the one", "#notes")
            await tab.run("document.querySelector('#token').value = 'open sesame'")
            await tab.click("Show the pool")
            assert "demo:script.yml" in await tab.shows("clerk", "#agents")


async def test_a_person_reads_and_decides_in_the_page(tmp_path: Path, manifest: dict[str, Any]) -> None:
    async with AgentPool(write(tmp_path, manifest)) as pool:
        dead, waiting = await post(pool, "bad"), await post(pool, "letters")
        await reached(pool, dead, "dead")
        await reached(pool, waiting, "waiting")
        async with opened(f"{pool.report.server_url}/") as tab:
            seen = await tab.shows(waiting, "#events")
            assert dead in seen
            assert "needs approval" in seen
            await tab.click("dead 1")
            await tab.hides(waiting, "#events")
            await tab.click(dead, "tr")
            await tab.shows("answered 500", "#detail")
            await tab.click("Close")
            await tab.click("all 2")
            await tab.click(waiting, "tr")
            await tab.shows("Waits for you", "#detail")
            await tab.click("approve")
            await reached(pool, waiting, "done")
            await tab.click("Close")
            await tab.click("done 1")
            await tab.click(waiting, "tr")
            assert f"{MARKUP} is done" in await tab.shows("is done", "#detail")
            # What events say is text; nothing in it has run.
            assert (await tab.run("document.title")).endswith("agents.yml · llmling")
            assert await tab.run("document.querySelectorAll('img:not(#graph)').length") == 0


async def test_the_page_draws_who_hears_from_whom(tmp_path: Path, manifest: dict[str, Any]) -> None:
    async with AgentPool(write(tmp_path, manifest)) as pool:
        status, drawn, headers = await get(f"{pool.report.server_url}/graph.svg")
        assert (status, headers["Content-Type"]) == (200, "image/svg+xml; charset=utf-8")
        assert all(name in drawn for name in ("letters", "clerk", "bad", "broken"))
        async with opened(f"{pool.report.server_url}/") as tab:
            await tab.shows("letters", "#triggers")

            async def width() -> int | None:
                return await tab.run("document.querySelector('#graph').naturalWidth") or None

            assert await eventually(width, "the picture is drawn") > 100
