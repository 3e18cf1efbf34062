"""Webhook trigger: a POST becomes an event, acknowledged once it is committed."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from aiohttp import web
from multidict import istr

from llmling.errors import EngineError, Full, StartupError
from llmling.events import Event
from llmling.manifest.triggers import (
    LOOPBACK,
    AuthConfig,
    WebhookTriggerConfig,
)
from llmling.protocols import Emit, EventRecord, EventStatus, Receipt
from llmling.runtime.services import Services
from llmling.server.auth import OPEN, Verified, challenge, foreign_page, verify
from llmling.server.body import body_at_hand, check_length, check_media_type, is_json, parse, read_body
from llmling.server.listener import DRAIN_RETRY_S, Answer, url_host
from llmling.server.rate import TokenBucket
from llmling.server.reply import JsonReply, Refused, retry_after

_log = logging.getLogger(__name__)

_SECRET_WORDS = ("auth", "cookie", "credential", "key", "password", "secret", "session", "signature", "token")
_ENGINE_RETRY_S = 5.0
_LONGEST_ID = 200
_USUAL_ID_HEADERS = (istr("webhook-id"), istr("x-github-delivery"), istr("idempotency-key"))
_NOT_DIRECT = (*_USUAL_ID_HEADERS, istr("expect"))
_ID_HEADERS = {"stripe": (), "standard": (), "github": ("x-github-delivery", "webhook-id", "idempotency-key")}
# Above this size parsing would hold up the loop for more than a few milliseconds.
_PARSE_IN_THREAD_BYTES = 262_144


class WebhookTrigger:
    """Takes POSTs at one path of a shared listener.

    The checks come in a fixed order and the first that applies answers: 404 405 415 413 408 401 400, 200 for a known
    delivery, 429, 503, 202. `body_timeout_s` bounds the arrival of one whole body.
    """

    def __init__(
        self, config: WebhookTriggerConfig, services: Services, agent: str, *, body_timeout_s: float = 10.0
    ) -> None:
        self._config = config
        self._services = services
        self._agent = agent
        self._body_timeout_s = body_timeout_s
        self._emit: Emit | None = None
        self._bucket = TokenBucket(config.rate_per_s, services.clock.monotonic) if config.rate_per_s else None

    @property
    def name(self) -> str:
        """Name, unique in the pool."""
        return self._config.name

    @property
    def place(self) -> str:
        """The URL to post to."""
        return f"http://{url_host(self._config.host)}:{self._config.port}{self._config.path}"

    async def run(self, emit: Emit, started: Callable[[], None]) -> None:
        """Serve until cancelled; events that the engine has got by then are still committed.

        Raises:
            StartupError: The port is in use, or another trigger has this path.
        """
        listeners = self._services.listeners
        if listeners is None:
            raise StartupError(f"trigger {self.name!r} needs a pool to listen in; use AgentPool or Agent('file.yml')")
        config = self._config
        self._emit = emit
        try:
            async with listeners.route(
                config.host,
                config.port,
                "POST",
                config.path,
                self._answer,
                owner=f"trigger {self.name!r}",
                # Others have to be looked up, or are waited for.
                direct=self if config.reply == "accepted" and config.auth.type in {"none", "bearer"} else None,
            ):
                started()
                await asyncio.get_running_loop().create_future()
        finally:
            self._emit = None

    def settled(self, event: Event, status: EventStatus, error: str | None) -> None:
        """Do nothing: the sender was answered when its event was committed, or waits by itself."""

    async def _answer(self, request: web.BaseRequest) -> Answer:
        config = self._config
        content_type, charset = check_media_type(request.headers)
        body = body_at_hand(request.headers, request.content, max_bytes=config.max_body_bytes, key="max_body_bytes")
        if body is None:
            body = await read_body(
                request, max_bytes=config.max_body_bytes, timeout_s=self._body_timeout_s, key="max_body_bytes"
            )
        verified = self._authenticated(request.headers, body)
        if len(body) <= _PARSE_IN_THREAD_BYTES:
            data = parse(body, content_type, charset)
        else:
            data = await asyncio.to_thread(parse, body, content_type, charset)
        self._check_said(data, content_type)
        key = delivery_key(config.auth, request.headers, data, verified)
        if key is not None and (receipt := await self._known(key)) is not None:
            return await self._again(receipt)
        self._admit()
        try:
            # A sender that hangs up meanwhile cuts the answer, not the commit.
            receipt = await self._commit(self._event(request.headers, data), key)
        except EngineError as error:
            raise self._not_taken(error) from None
        if not receipt.new:
            return await self._again(receipt)
        return await self._result(receipt) if config.reply == "result" else self._accepted(receipt.event_id)

    # --- the short way, see `Direct` ---------------------------------------------------------------------------------

    def suits(self, headers: Mapping[str, str], length: int) -> bool:
        """Whether a post has no id to look up, and is read in no time."""
        return length <= _PARSE_IN_THREAD_BYTES and not any(map(headers.__contains__, _NOT_DIRECT))

    def begin(self, headers: Mapping[str, str], body: bytes) -> asyncio.Future[Receipt]:
        """Take a post that is all there; the same checks as `_answer`."""
        content_type, charset = check_media_type(headers)
        check_length(body, self._config.max_body_bytes, key="max_body_bytes")
        self._authenticated(headers, body)
        data = parse(body, content_type, charset)
        self._check_said(data, content_type)
        self._admit()
        try:
            receipt = self._commit(self._event(headers, data), None)
        except EngineError as error:
            raise self._not_taken(error) from None
        return receipt if isinstance(receipt, asyncio.Future) else asyncio.ensure_future(receipt)

    def answer(self, done: asyncio.Future[Receipt]) -> JsonReply:
        """Say that a post is an event now."""
        try:
            return self._accepted(done.result().event_id)
        except EngineError as error:
            raise self._not_taken(error) from None

    # --- what both ways share ----------------------------------------------------------------------------------------

    def _event(self, headers: Mapping[str, str], data: Any) -> Event:
        return Event(
            source=self.name,
            type="dev.llmling.webhook.received",
            subject=self._config.path,
            data=data,
            headers=safe_headers(headers, self._config.auth),
        )

    def _check_said(self, data: Any, content_type: str) -> None:
        if self._config.prompt is None and isinstance(data, str) and not data.strip():
            what = "text is empty" if is_json(content_type) else "body is empty"
            raise Refused(400, f"the {what}; send what the agent should read, or give the trigger a `prompt:`")

    def _authenticated(self, headers: Mapping[str, str], body: bytes) -> Verified:
        auth = self._config.auth
        if auth.type == "none":
            if self._config.host in LOOPBACK and foreign_page(headers):
                raise Refused(401, "web pages of other sites may not post here; add `auth:` to the trigger")
            return OPEN
        verified = verify(auth, headers, body, self._services.clock.unix())
        if not verified.ok:
            raise Refused(401, verified.reason, headers=challenge(auth))
        return verified

    async def _known(self, key: str) -> Receipt | None:
        if self._services.engine is None:
            return None
        try:
            return (await self._services.engine.known(self.name, [key])).get(key)
        except EngineError:
            raise _not_writable() from None

    def _admit(self) -> None:
        if self._bucket is not None and (wait_s := self._bucket.take()) > 0:
            raise Refused(
                429, "more posts than `rate_per_s:` allows; send this again later", headers=retry_after(wait_s)
            )
        if self._services.listeners is not None and self._services.listeners.draining:
            raise Refused(503, "the pool is stopping; send this again later", headers=retry_after(DRAIN_RETRY_S))

    def _commit(self, event: Event, key: str | None) -> Awaitable[Receipt]:
        if self._emit is None:
            raise Refused(503, "this trigger is stopping; send this again later", headers=retry_after(DRAIN_RETRY_S))
        return self._emit(event, key=key, keep_key_s=self._config.dedupe_window_s)

    def _not_taken(self, error: EngineError) -> Refused:
        if not isinstance(error, Full):
            _log.error("trigger %r: %s", self.name, error)
            return _not_writable()
        _log.info("trigger %r: %s", self.name, error)
        if isinstance(error.__cause__, EngineError):
            return _not_writable()
        message = f"there is no room for another event of agent {self._agent!r} right now; send this again later"
        return Refused(503, message, headers=retry_after(error.retry_after_s))

    def _accepted(self, event_id: str, status: int = 202) -> JsonReply:
        return JsonReply(status, {"event_id": event_id, "status_url": self._services.status_url(event_id)})

    async def _again(self, receipt: Receipt) -> Answer:
        """Answer a known delivery: 200 with the first event's id and, with `reply: result`, what came of it."""
        if self._config.reply == "result" and self._services.engine is not None:
            record = await self._services.engine.inspect(receipt.event_id)
            if outcome := _outcome(record):
                return JsonReply(200, {"event_id": receipt.event_id, **outcome})
        return self._accepted(receipt.event_id, 200)

    async def _result(self, receipt: Receipt) -> Answer:
        """Wait for the triggered agent, not for those behind it."""
        if receipt.status == "dead":
            return JsonReply(502, {"event_id": receipt.event_id, "error": receipt.error or "the event is dead"})
        if self._services.engine is None:
            return self._accepted(receipt.event_id)
        try:
            record = await self._services.engine.wait_answer(receipt.event_id, self._config.timeout_s)
        except EngineError:
            record = None  # the engine stopped; the event is committed and goes on at the next start
        outcome = _outcome(record)
        if outcome is None:
            return self._accepted(receipt.event_id)
        return JsonReply(502 if "error" in outcome else 200, {"event_id": receipt.event_id, **outcome})


def delivery_key(auth: AuthConfig, headers: Mapping[str, str], data: Any, verified: Verified) -> str | None:
    """Return what makes two posts the same delivery: its id, else the hash of what was signed, else None.

    An id the signature covers beats one anybody on the way could change.
    """
    if verified.delivery_id is not None and (key := _key("webhook-id", verified.delivery_id)) is not None:
        return key
    if auth.type == "stripe":
        own = cast("dict[str, Any]", data).get("id") if isinstance(data, dict) else None
        if (key := _key("stripe", own)) is not None:
            return key
    for name in _ID_HEADERS.get(auth.type, _USUAL_ID_HEADERS):
        if (value := headers.get(name)) is not None and (key := _key(name, value)) is not None:
            return key
    return verified.signed_material_hash and f"signed:{verified.signed_material_hash}"


def _key(kind: str, value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return None
    text = _clean(value.strip())
    return f"{kind}:{text if len(text) <= _LONGEST_ID else hashlib.sha256(text.encode()).hexdigest()}"


def safe_headers(headers: Mapping[str, str], auth: AuthConfig) -> dict[str, str]:
    """Return the headers an event may carry: lower-case names, none that could hold a credential."""
    own = auth.header.lower() if auth.type == "hmac" else None
    kept: dict[str, str] = {}
    for name, value in headers.items():
        lower = _harmless(name)
        if lower is None or lower == own:
            continue
        text = value if value.isascii() else _clean(value)
        kept[lower] = f"{kept[lower]}, {text}" if lower in kept else text
    return kept


@functools.lru_cache(256)
def _harmless(name: str) -> str | None:
    """Return the name of a header in lower case, None when it may hold a credential."""
    lower = _clean(name.lower())
    return None if any(word in lower for word in _SECRET_WORDS) else lower


def _clean(text: str) -> str:
    if text.isascii():
        return text
    # Bytes that are not UTF-8 arrive as lone surrogates, which no store can hold.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _not_writable() -> Refused:
    return Refused(
        503, "events cannot be stored right now; send this again later", headers=retry_after(_ENGINE_RETRY_S)
    )


def _outcome(record: EventRecord | None) -> dict[str, str] | None:
    """Return `{"content"}` or `{"error"}` of the first delivery, None while there is neither or it is not run."""
    if record is None or record.outcome == "coalesced":
        return None
    if not record.deliveries:
        return {"error": record.error or "the event is dead"} if record.status == "dead" else None
    first = record.deliveries[0]
    if first.status == "dead":
        return {"error": first.error or "the event is dead"}
    return {"content": first.content or ""} if first.status == "done" else None
