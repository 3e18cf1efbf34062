"""Answers to other services, signed as Standard Webhooks describes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import ClientError, ClientResponse, ClientTimeout
from pydantic_core import to_jsonable_python
from yarl import URL

from llmling.errors import SinkError
from llmling.manifest.sinks import HttpSinkConfig
from llmling.protocols import Answer
from llmling.runtime.http import http_session
from llmling.runtime.services import Services

_PREFIX = "whsec_"
_EXCERPT_BYTES = 300
_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


class HttpSink:
    """Posts each answer as JSON `{event_id, delivery_id, agent, content, time}`; `time` is the event's.

    The body is the same on every try, and so is `webhook-id`, the delivery's id: a receiver that remembers ids takes
    an answer once. With a `secret` it is signed: `whsec_<base64>` and plain base64 stand for the bytes they encode, as
    in the Standard Webhooks libraries, any other text for itself. Redirects are not followed.
    """

    def __init__(self, config: HttpSinkConfig, services: Services) -> None:
        self._config = config
        self._clock = services.clock
        self._origin = str(URL(config.url).origin())
        self._key = None if config.secret is None else _key(config.secret.get_secret_value())

    @property
    def name(self) -> str:
        """Short name for messages; only the origin, because paths of webhooks are often secret."""
        return f"http {self._origin}"

    async def send(self, answer: Answer) -> None:
        """Post one answer within `timeout_s`; cancelling it closes the request.

        Raises:
            SinkError: Nobody answered, or not with 2xx; retryable after 408, 425, 429, 5xx and broken connections.
        """
        body = _body(answer)
        try:
            async with http_session().post(
                self._config.url,
                data=body,
                headers=self._headers(answer, body),
                allow_redirects=False,
                timeout=ClientTimeout(total=self._config.timeout_s),
            ) as response:
                await self._judge(response)
        except TimeoutError:
            raise SinkError(f"{self.name} did not answer within {self._config.timeout_s:g} s") from None
        except (ClientError, OSError) as error:
            raise SinkError(f"{self.name} could not be reached: {str(error) or type(error).__name__}") from None

    def _headers(self, answer: Answer, body: bytes) -> dict[str, str]:
        # Header values are ASCII; ids of ordinary agents stay as they are.
        delivery_id = quote(answer.delivery_id, safe=_PRINTABLE, errors="replace")
        time = str(int(self._clock.unix()))
        ours = {"Content-Type": "application/json", "webhook-id": delivery_id, "webhook-timestamp": time}
        if self._key is not None:
            signature = hmac.digest(self._key, f"{delivery_id}.{time}.".encode() + body, hashlib.sha256)
            ours["webhook-signature"] = "v1," + base64.b64encode(signature).decode("ascii")
        taken = {name.lower() for name in ours}
        return {name: value for name, value in self._config.headers.items() if name.lower() not in taken} | ours

    async def _judge(self, response: ClientResponse) -> None:
        status = response.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if status < HTTPStatus.BAD_REQUEST:
            raise SinkError(
                f"{self.name} redirects ({status}{_target(response)}); write the final address, none is followed",
                retryable=False,
            )
        retryable = status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        excerpt = await _excerpt(response)
        raise SinkError(
            f"{self.name} answered {status} {response.reason or ''}".rstrip() + excerpt, retryable=retryable
        )


def _target(response: ClientResponse) -> str:
    try:
        return f" to {response.url.join(URL(response.headers['Location'])).origin()}"
    except (KeyError, ValueError):
        return ""


async def _excerpt(response: ClientResponse) -> str:
    raw = await response.content.read(_EXCERPT_BYTES)
    text = " ".join("".join(char if char.isprintable() else " " for char in raw.decode("utf-8", "replace")).split())
    return f": {text}" if text else ""


def _body(answer: Answer) -> bytes:
    content = answer.text if isinstance(answer.content, str) else to_jsonable_python(answer.content, by_alias=True)
    data = {
        "event_id": answer.event.id,
        "delivery_id": answer.delivery_id,
        "agent": answer.agent,
        "content": content,
        "time": answer.event.time.isoformat(),
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix(_PREFIX)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return secret.encode()
