"""The pages that take a person's decision, over a real listener."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr
from test_health import State

from llmling.asks import Ask, Decision
from llmling.errors import OutputError
from llmling.manifest.pool import ServerConfig
from llmling.server.health import Health
from llmling.server.listener import Listeners


class Deciding(State):
    """A pool in which the event `e1` asks for a call or a question."""

    def __init__(self, *asks: Ask) -> None:
        super().__init__()
        self.asks = asks
        self.said: list[tuple[str, Decision]] = []

    async def decide(self, event_id: str, decision: Decision) -> Sequence[Ask]:
        self.said.append((event_id, decision))
        if event_id != "e1":
            raise LookupError(event_id)
        if decision.answer == "wrong":
            raise OutputError("The answer contains no JSON.")
        return decision.settles(self.asks)


CALL, QUESTION = Ask("0.0", "a", "send({})", "send"), Ask("0", "a", "Shall we?")
JSON = "application/json"


async def posted(
    state: State, path: str, body: str = "", *, token: str = "", **headers: str
) -> tuple[int, dict[str, Any]]:
    config = ServerConfig(token=SecretStr(token) if token else None)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        Listeners() as listeners,
        Health(state, config, listeners) as health,
        aiohttp.ClientSession() as session,
        session.post(f"{health.url}/events/{path}", data=body or None, headers=sent) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("act", "body", "decision"),
    [
        ("approve", "", Decision()),
        ("approve", "{}", Decision()),
        ("deny", "", Decision(approved=False)),
        ("deny", '{"reason": "no"}', Decision(approved=False, reason="no")),
        ("answer", '{"text": "yes"}', Decision(answer="yes")),
    ],
)
async def test_a_decision_is_handed_over(act: str, body: str, decision: Decision) -> None:
    state = Deciding(CALL, QUESTION)
    headers = {"Content_Type": JSON} if body else {}
    status, answer = await posted(state, f"e1/{act}", body, **headers)
    text = "Shall we?" if act == "answer" else "send({})"
    assert (status, answer) == (200, {"event_id": "e1", act: [text]})
    assert state.said == [("e1", decision)]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("e2/approve", "", 404, "there is no such event"),
        ("e1", "", 404, "post to /events/{id}/approve"),
        ("e1/drop", "", 404, "post to /events/{id}/approve"),
        ("/approve", "", 404, ""),
        ("e1/answer", '{"text": "yes"}', 409, "e1 is dead: b: no; `llmling events retry"),
        ("e1/answer", '{"text": "wrong"}', 400, "contains no JSON"),
        ("e1/answer", "", 400, "send {'text': ...} with the answer"),
        ("e1/answer", '{"text": 7}', 400, "'text' should be a text"),
        ("e1/deny", '{"why": "no"}', 400, "unknown key 'why'; send {'reason': ...}"),
        ("e1/approve", '{"reason": "no"}', 400, "unknown key 'reason'; send no body"),
        ("e1/deny", "[]", 400, "send a JSON object"),
        ("e1/deny", "{", 400, "invalid JSON"),
    ],
)
async def test_what_cannot_be_decided_says_why(path: str, body: str, status: int, says: str) -> None:
    got, answer = await posted(Deciding(CALL), path, body, Content_Type=JSON)
    assert got == status
    assert says in answer["error"]


async def test_a_form_is_not_taken() -> None:
    status, answer = await posted(Deciding(CALL), "e1/deny", "reason=no", Content_Type="text/html; charset=x")
    assert (status, answer["error"][:15]) == (415, "unknown charset")


async def test_a_token_guards_the_pages_and_lets_browsers_in() -> None:
    state = Deciding(CALL)
    assert (await posted(state, "e1/approve", token="t0p"))[0] == 401
    assert (await posted(state, "e1/approve", token="t0p", Authorization="Bearer wrong"))[0] == 401
    assert state.said == []
    headers = {"Authorization": "Bearer t0p", "Origin": "https://desk.example"}
    assert (await posted(state, "e1/approve", token="t0p", **headers))[0] == 200


async def test_without_a_token_pages_of_other_sites_are_refused() -> None:
    state = Deciding(CALL)
    status, answer = await posted(state, "e1/approve", Origin="https://evil.example")
    assert (status, answer["error"]) == (401, "web pages of other sites may not post here; set `server.token`")
    assert (await posted(state, "e1/approve", Host="evil.example"))[0] == 421
    assert state.said == []
    assert (await posted(state, "e1/approve", Origin="http://127.0.0.1:8765"))[0] == 200
