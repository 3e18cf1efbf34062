"""Who may post: signatures of webhook senders and bearer tokens, as pure functions.

Every comparison takes constant time, and no reason tells a secret or the value that was expected.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from llmling.manifest.triggers import (
    LOOPBACK,
    AuthConfig,
    BearerAuth,
    GithubAuth,
    HmacAuth,
    StandardAuth,
    StripeAuth,
)


@dataclass(frozen=True, slots=True)
class Verified:
    """The verdict on one request.

    `reason` says what is wrong and how to mend it. `delivery_id` is an id the signature covers, and
    `signed_material_hash` the SHA-256 of all that it covers, in hex; None where there is none.
    """

    ok: bool
    reason: str = ""
    delivery_id: str | None = None
    signed_material_hash: str | None = None


OPEN = Verified(ok=True)
"""The verdict where everybody may post."""


def verify(auth: AuthConfig, headers: Mapping[str, str], body: bytes, now: float) -> Verified:
    """Judge one request; `headers` ignore case, `body` is exactly what came, `now` is Unix seconds."""
    if auth.type == "none":
        return OPEN
    match auth:
        case HmacAuth():
            return _hex_hmac(auth.secret.get_secret_value(), auth.header, headers, body, prefix_needed=False)
        case GithubAuth():
            return _hex_hmac(auth.secret.get_secret_value(), "X-Hub-Signature-256", headers, body, prefix_needed=True)
        case StripeAuth():
            return _stripe(auth, headers, body, now)
        case StandardAuth():
            return _standard(auth, headers, body, now)
        case BearerAuth():
            return _bearer(auth.token.get_secret_value(), headers)


def challenge(auth: AuthConfig) -> dict[str, str]:
    """Return the headers that go with a 401."""
    return {"WWW-Authenticate": 'Bearer realm="llmling"'} if isinstance(auth, BearerAuth) else {}


def foreign_page(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site sends this from a browser; without a secret nothing else tells it apart."""
    origin = headers.get("Origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).hostname not in LOOPBACK
    except ValueError:
        return True


def _raw(text: str) -> bytes:
    # aiohttp keeps bytes of a header that are not UTF-8 as lone surrogates.
    return text.encode("utf-8", "surrogateescape")


def _hex_hmac(secret: str, header: str, headers: Mapping[str, str], body: bytes, *, prefix_needed: bool) -> Verified:
    given = headers.get(header)
    if given is None:
        return Verified(ok=False, reason=f"the header {header} is missing; sign the body with HMAC-SHA256")
    value = given.strip()
    prefixed = value[:7].lower() == "sha256="
    if prefix_needed and not prefixed:
        return Verified(ok=False, reason=f"the header {header} should read sha256=<hex>")
    expected = hmac.digest(secret.encode(), body, "sha256").hex()
    if not hmac.compare_digest(_raw((value[7:] if prefixed else value).lower()), expected.encode()):
        return Verified(ok=False, reason=f"the signature in {header} does not match the body; check the secret")
    return Verified(ok=True, signed_material_hash=hashlib.sha256(body).hexdigest())


def _stripe(auth: StripeAuth, headers: Mapping[str, str], body: bytes, now: float) -> Verified:
    header = headers.get("Stripe-Signature")
    if header is None:
        return Verified(ok=False, reason="the header Stripe-Signature is missing")
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    signatures = [value for name, _, value in pairs if name == "v1"]
    if not times or not signatures:
        return Verified(ok=False, reason="the header Stripe-Signature should read t=<unix seconds>,v1=<hex>")
    if (late := _off(times[0], now, auth.tolerance_s)) is not None:
        return Verified(ok=False, reason=late)
    signed = _raw(times[0]) + b"." + body
    expected = hmac.digest(auth.secret.get_secret_value().encode(), signed, "sha256").hex().encode()
    if not _any_equal(expected, signatures):
        return Verified(ok=False, reason="no v1 signature matches time and body; check the secret of the endpoint")
    return Verified(ok=True, signed_material_hash=hashlib.sha256(signed).hexdigest())


def _standard(auth: StandardAuth, headers: Mapping[str, str], body: bytes, now: float) -> Verified:
    family = "webhook" if "webhook-id" in headers else "svix"
    names = [f"{family}-{part}" for part in ("id", "timestamp", "signature")]
    values = [headers.get(name, "") for name in names]
    if not all(values):
        missing = [f"webhook-{name.partition('-')[2]}" for name, value in zip(names, values, strict=True) if not value]
        return Verified(ok=False, reason=f"missing header: {', '.join(missing)}")
    delivery_id, time, signature = values
    if (late := _off(time, now, auth.tolerance_s)) is not None:
        return Verified(ok=False, reason=late)
    signed = _raw(f"{delivery_id}.{time}.") + body
    signatures = [value for version, _, value in (part.partition(",") for part in signature.split()) if version == "v1"]
    matched = False
    for key in _standard_keys(auth):
        # No early end: the time must not tell which of the secrets matched.
        matched |= _any_equal(base64.b64encode(hmac.digest(key, signed, "sha256")), signatures)
    if not matched:
        return Verified(ok=False, reason="no v1 signature matches id, time and body; check the secret")
    return Verified(ok=True, delivery_id=delivery_id, signed_material_hash=hashlib.sha256(signed).hexdigest())


def _standard_keys(auth: StandardAuth) -> list[bytes]:
    texts = [text.removeprefix("whsec_") for text in auth.secret.get_secret_value().split()]
    return [base64.b64decode(text + "=" * (-len(text) % 4), validate=True) for text in texts]


def _bearer(token: str, headers: Mapping[str, str]) -> Verified:
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return Verified(ok=False, reason="send Authorization: Bearer <token>")
    if not hmac.compare_digest(_raw(given.strip()), token.encode()):
        return Verified(ok=False, reason="the bearer token is not the one of this endpoint")
    return Verified(ok=True)


def _any_equal(expected: bytes, candidates: list[str]) -> bool:
    matched = False
    for candidate in candidates:
        matched |= hmac.compare_digest(expected, _raw(candidate))
    return matched


def _off(timestamp: str, now: float, tolerance_s: float) -> str | None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return "the time of the signature is not in Unix seconds"
    age = now - int(timestamp)
    if age > tolerance_s:
        return f"the signature is {age:.0f} s old; at most {tolerance_s:g} s are allowed: sign at sending, check clocks"
    if age < -tolerance_s:
        return f"the signature is {-age:.0f} s in the future; at most {tolerance_s:g} s are allowed: check the clocks"
    return None
