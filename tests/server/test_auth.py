"""Signatures: valid vectors of each scheme, one change at a time, clocks, rotation."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac

import pytest
import standardwebhooks
from multidict import CIMultiDict
from pydantic import SecretStr, ValidationError

from llmling.manifest.triggers import (
    AuthConfig,
    BearerAuth,
    GithubAuth,
    HmacAuth,
    StandardAuth,
    StripeAuth,
    WebhookTriggerConfig,
)
from llmling.server.auth import Verified, challenge, verify

NOW = 1_700_000_000.0
KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER = "whsec_" + base64.b64encode(KEY[::-1]).decode()
BODY = '{"id":"evt_1","grüße":true}'.encode()


def check(auth: AuthConfig, headers: dict[str, str], body: bytes = BODY, now: float = NOW) -> Verified:
    return verify(auth, CIMultiDict(headers), body, now)


def github(secret: str = "s3cret") -> GithubAuth:
    return GithubAuth(secret=SecretStr(secret))


def stripe(secret: str = "whsec_x") -> StripeAuth:
    return StripeAuth(secret=SecretStr(secret))


def standard(secret: str = SECRET) -> StandardAuth:
    return StandardAuth(secret=SecretStr(secret))


def hex_hmac(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def stripe_header(secret: str = "whsec_x", at: float = NOW, body: bytes = BODY) -> str:
    return f"t={int(at)},v1={hex_hmac(secret, f'{int(at)}.'.encode() + body)},v0=old"


def standard_headers(
    secret: str = SECRET, at: float = NOW, body: bytes = BODY, id_: str = "msg_1", family: str = "webhook"
) -> dict[str, str]:
    time = dt.datetime.fromtimestamp(int(at), dt.UTC)
    signature = standardwebhooks.Webhook(secret).sign(id_, time, body.decode())
    return {f"{family}-id": id_, f"{family}-timestamp": str(int(at)), f"{family}-signature": signature}


def flipped(text: str) -> str:
    return text[:-2] + ("A" if text[-2] != "A" else "B") + text[-1]


def test_github_vector_of_its_documentation() -> None:
    auth = github("It's a Secret to Everybody")
    header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert check(auth, {"x-hub-signature-256": header}, b"Hello, World!").ok
    assert not check(auth, {"X-Hub-Signature-256": header}, b"Hello, World?").ok


def test_standard_webhooks_vector_of_its_specification() -> None:
    auth = standard("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    verified = check(auth, headers, b'{"test": 2432232314}', 1614265330)
    assert verified.ok
    assert verified.delivery_id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@pytest.mark.parametrize("prefix", ["", "sha256=", "SHA256="])
@pytest.mark.parametrize("upper", [False, True])
def test_hmac_with_and_without_prefix_in_any_case(prefix: str, *, upper: bool) -> None:
    auth = HmacAuth(secret=SecretStr("geheim"), header="X-Sig")
    digest = hex_hmac("geheim", BODY)
    verified = check(auth, {"x-sig": prefix + (digest.upper() if upper else digest)})
    assert verified == Verified(ok=True, signed_material_hash=hashlib.sha256(BODY).hexdigest())


REFUSED: list[tuple[str, AuthConfig, dict[str, str], bytes]] = [
    ("hmac missing", HmacAuth(secret=SecretStr("k")), {}, BODY),
    ("hmac empty", HmacAuth(secret=SecretStr("k")), {"X-Signature-256": ""}, BODY),
    ("hmac signature", HmacAuth(secret=SecretStr("k")), {"X-Signature-256": flipped(hex_hmac("k", BODY))}, BODY),
    ("hmac body", HmacAuth(secret=SecretStr("k")), {"X-Signature-256": hex_hmac("k", BODY)}, BODY + b" "),
    ("hmac not ascii", HmacAuth(secret=SecretStr("k")), {"X-Signature-256": "ü\udcff"}, BODY),
    ("github missing", github(), {}, BODY),
    ("github body", github(), {"X-Hub-Signature-256": "sha256=" + hex_hmac("s3cret", BODY)}, BODY[:-1]),
    ("github signature", github(), {"X-Hub-Signature-256": "sha256=" + flipped(hex_hmac("s3cret", BODY))}, BODY),
    ("github secret", github(), {"X-Hub-Signature-256": "sha256=" + hex_hmac("S3cret", BODY)}, BODY),
    ("github no prefix", github(), {"X-Hub-Signature-256": hex_hmac("s3cret", BODY)}, BODY),
    ("stripe missing", stripe(), {}, BODY),
    ("stripe no time", stripe(), {"Stripe-Signature": stripe_header().partition(",")[2]}, BODY),
    ("stripe body", stripe(), {"Stripe-Signature": stripe_header()}, BODY + b"\n"),
    ("stripe time", stripe(), {"Stripe-Signature": stripe_header().replace(str(int(NOW)), str(int(NOW) + 1))}, BODY),
    ("stripe secret", stripe("whsec_y"), {"Stripe-Signature": stripe_header()}, BODY),
    ("stripe v0 only", stripe(), {"Stripe-Signature": stripe_header().replace("v1", "v2")}, BODY),
    ("stripe odd time", stripe(), {"Stripe-Signature": "t=\uff11\uff12,v1=00"}, BODY),
    ("standard missing", standard(), {}, BODY),
    ("standard id", standard(), {**standard_headers(), "webhook-id": "msg_2"}, BODY),
    ("standard time", standard(), {**standard_headers(), "webhook-timestamp": str(int(NOW) - 1)}, BODY),
    ("standard negative time", standard(), {**standard_headers(), "webhook-timestamp": "-5"}, BODY),
    ("standard body", standard(), standard_headers(), BODY.replace(b"1", b"2")),
    ("standard secret", standard(OTHER), standard_headers(), BODY),
    ("standard other version", standard(), {**standard_headers(), "webhook-signature": "v1a,AAAA"}, BODY),
    ("bearer missing", BearerAuth(token=SecretStr("tok")), {}, BODY),
    ("bearer scheme", BearerAuth(token=SecretStr("tok")), {"Authorization": "Basic tok"}, BODY),
    ("bearer token", BearerAuth(token=SecretStr("tok")), {"Authorization": "Bearer tokk"}, BODY),
    ("bearer empty", BearerAuth(token=SecretStr("tok")), {"Authorization": "Bearer "}, BODY),
]


@pytest.mark.parametrize(("name", "auth", "headers", "body"), REFUSED, ids=[case[0] for case in REFUSED])
def test_one_change_is_refused_with_a_reason_that_tells_no_secret(
    name: str, auth: AuthConfig, headers: dict[str, str], body: bytes
) -> None:
    verified = check(auth, headers, body)
    assert not verified.ok
    assert len(verified.reason) > 15
    assert verified.delivery_id is None
    for secret in ("s3cret", "whsec_x", SECRET, hex_hmac("s3cret", body), hex_hmac("k", body)):
        assert secret not in verified.reason


@pytest.mark.parametrize(("seconds", "ok"), [(-299, True), (299, True), (-301, False), (301, False)])
def test_clocks_may_differ_by_the_tolerance(seconds: int, *, ok: bool) -> None:
    at = NOW + seconds
    assert check(stripe(), {"Stripe-Signature": stripe_header(at=at)}).ok is ok
    assert check(standard(), standard_headers(at=at)).ok is ok


def test_svix_names_are_the_standard_under_another_name() -> None:
    verified = check(standard(), standard_headers(family="svix"))
    assert verified.ok
    assert verified.delivery_id == "msg_1"


def test_rotation_accepts_old_and_new_secret_and_refuses_a_removed_one() -> None:
    both = standard(f"{SECRET} {OTHER}")
    assert check(both, standard_headers(SECRET)).ok
    assert check(both, standard_headers(OTHER)).ok
    assert not check(standard(OTHER), standard_headers(SECRET)).ok
    several = {
        **standard_headers(),
        "webhook-signature": standard_headers(OTHER)["webhook-signature"]
        + " "
        + standard_headers()["webhook-signature"],
    }
    assert check(standard(), several).ok
    double = stripe_header("new").rpartition(",v0")[0] + "," + stripe_header("whsec_x").partition(",")[2]
    assert check(stripe(), {"Stripe-Signature": double}).ok


def test_a_secret_without_prefix_or_padding_is_the_same_secret() -> None:
    assert check(standard(SECRET.removeprefix("whsec_").rstrip("=")), standard_headers()).ok


def test_bearer_scheme_ignores_case_and_is_asked_for() -> None:
    auth = BearerAuth(token=SecretStr("tok-ü"))
    assert check(auth, {"authorization": "bearer tok-ü"}).ok
    assert challenge(auth) == {"WWW-Authenticate": 'Bearer realm="llmling"'}
    assert challenge(github()) == {}


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ({"type": "github", "secret": ""}, "empty"),
        ({"type": "hmac", "secret": ""}, "empty"),
        ({"type": "stripe", "secret": ""}, "empty"),
        ({"type": "standard", "secret": ""}, "empty"),
        ({"type": "standard", "secret": "whsec_"}, "empty"),
        ({"type": "standard", "secret": "not base64!"}, "base64"),
        ({"type": "bearer", "token": " "}, "empty"),
    ],
)
def test_secrets_that_protect_nothing_are_refused(auth: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        WebhookTriggerConfig.model_validate({"auth": auth})


def test_several_standard_secrets_are_one_text() -> None:
    assert standard(f"{SECRET}  {OTHER}").secret.get_secret_value() == f"{SECRET}  {OTHER}"
