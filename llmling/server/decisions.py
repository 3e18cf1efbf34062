"""Pages that take a person's decision: `POST /events/{id}/approve`, `/deny` and `/answer`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from aiohttp import web

from llmling.asks import Ask, Decision, why_not
from llmling.errors import OutputError
from llmling.records import EventRecord
from llmling.server.body import body_at_hand, check_media_type, parse, read_body
from llmling.server.reply import Refused, json_reply

MAX_BODY_BYTES = 1_000_000
_BODY_S = 10.0
_ACTS = ("approve", "deny", "answer")


class Decisions:
    """Hands what was posted to `decide(event_id, decision)` and answers with what it settled."""

    def __init__(
        self,
        decide: Callable[[str, Decision], Awaitable[Sequence[Ask]]],
        inspect: Callable[[str], Awaitable[EventRecord | None]],
        file: str,
    ) -> None:
        """`file` is the manifest, for commands in answers."""
        self._decide = decide
        self._inspect = inspect
        self._file = file

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Take one decision.

        404: no such event or page; 400: the body does not fit, or the answer not the agent's `output`; 409: the event
        does not wait for this.
        """
        event_id, _, act = request.path.removeprefix("/events/").rpartition("/")
        if act not in _ACTS or not event_id:
            raise Refused(404, "post to /events/{id}/approve, /events/{id}/deny or /events/{id}/answer")
        decision = _decision(act, await _body(request))
        try:
            asks = await self._decide(event_id, decision)
        except LookupError:
            raise Refused(404, "there is no such event; `llmling events list` shows those that are kept") from None
        except OutputError as error:
            raise Refused(400, str(error)) from None
        if not asks:
            record = await self._inspect(event_id)
            raise Refused(409, "this event is gone" if record is None else why_not(record, decision, self._file))
        return json_reply(200, {"event_id": event_id, act: [ask.text for ask in asks]})


async def _body(request: web.BaseRequest) -> Mapping[str, Any]:
    if not request.body_exists:
        return {}
    content_type, charset = check_media_type(request.headers)
    raw = body_at_hand(request.headers, request.content, max_bytes=MAX_BODY_BYTES)
    if raw is None:
        raw = await read_body(request, max_bytes=MAX_BODY_BYTES, timeout_s=_BODY_S)
    if not raw:
        return {}
    body = parse(raw, content_type, charset)
    if not isinstance(body, dict):
        raise Refused(400, "send a JSON object, with Content-Type: application/json")
    return cast("Mapping[str, Any]", body)


def _decision(act: str, body: Mapping[str, Any]) -> Decision:
    key = {"deny": "reason", "answer": "text"}.get(act)
    if unknown := sorted(body.keys() - {key}):
        raise Refused(400, f"unknown key {unknown[0][:50]!r}; " + (f"send {{{key!r}: ...}}" if key else "send no body"))
    text = "" if key is None else body.get(key, "")
    if not isinstance(text, str):
        raise Refused(400, f"{key!r} should be a text")
    if act == "answer":
        if not text.strip():
            raise Refused(400, "send {'text': ...} with the answer")
        return Decision(answer=text)
    return Decision(approved=act == "approve", reason=text)
