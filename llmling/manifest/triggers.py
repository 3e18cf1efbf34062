"""Configs of triggers: what makes an agent run by itself."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated, Literal

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Discriminator, Field, model_validator
from pydantic_core import PydanticCustomError

from llmling.manifest.base import (
    TEXT_OR_MAPPING,
    Amount,
    Config,
    Count,
    Expression,
    FullTemplate,
    Host,
    InMapping,
    Port,
    PositiveSeconds,
    RelativePath,
    Seconds,
    Template,
    Text,
    Truth,
    plugged,
)
from llmling.manifest.budgets import BudgetConfig
from llmling.manifest.problems import did_you_mean
from llmling.manifest.prompts import TEMPLATES, TemplateInstructionsConfig
from llmling.manifest.wire import Secret, StandardSecret

CRON_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


_EPOCH = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


TriggerPrompt = Annotated[
    Annotated[Template, Text] | Annotated[TemplateInstructionsConfig, InMapping],
    TEXT_OR_MAPPING,
]


class TriggerBase(Config):
    """What every trigger shares."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    """Name, unique in the pool; absent: `<type>-<n>`."""
    enabled: Truth = True
    """False: the trigger is not armed."""
    prompt: TriggerPrompt | None = None
    """Template of the message the agent gets, with `event` in scope, or a reasoning template such as
    `{prompt: RootCauseAnalyzer}`; absent: the default of the type."""
    filter: Expression | None = None
    """Expression over `event`; when it is false the event is recorded and not run."""
    key: FullTemplate | None = None
    """Template over `event`: events with the same key run one after the other, in the order they came; absent, and for
    an event it gives nothing for: beside others."""
    overlap: Literal["queue", "skip", "coalesce", "parallel"] = "queue"
    """What happens to an event while another one of the trigger, and of the same key, is there: `queue`, it waits;
    `skip`, it is not run; `coalesce`, it takes the place of the one that waits; `parallel`, it runs beside it."""
    priority: Literal["high", "normal", "low"] = "normal"
    """Which events of an agent go first; those behind get every eighth place at least."""
    budget: BudgetConfig | None = None
    """What its events may spend in a day or month, whichever agents work on them."""


class FileTriggerConfig(TriggerBase):
    """Runs the agent for files that appear or change."""

    type: Literal["file"] = "file"
    paths: list[RelativePath] = Field(min_length=1)
    """Folders (with everything below), files or globs; one that does not exist yet is waited for."""
    extensions: list[str] | None = None
    """Endings such as `.md`; absent: any."""
    ignore: list[str] = Field(default=[])
    """Globs of files to leave alone."""
    events: list[Literal["added", "modified", "deleted"]] = Field(default=["added", "modified"], min_length=1)
    """Which changes count."""
    settle_s: Seconds = 1.0
    """How long size and time of a file must stay the same before it is read, in seconds."""
    backlog: Literal["process", "ignore"] = "process"
    """What happens to files that are already there at the very first start."""
    dedupe: Literal["version", "content", "path"] = "version"
    """What makes a file a new event: path, size and time; its content; or its path alone."""
    on_done: Literal["keep", "move", "delete"] = "keep"
    """What happens to the file when its whole event is done; `move` puts it into `.done/` beside it."""
    on_fail: Literal["keep", "move"] = "keep"
    """What happens to it when its event is dead; `move` puts it into `.failed/` with the reason in a file."""
    max_bytes: Count = 10_000_000
    """Largest file; a larger one becomes an event that dies with that reason."""
    poll_s: PositiveSeconds = 30.0
    """Time between full scans, in seconds; a scan also follows every hint of the operating system."""


class HmacAuth(Config):
    """HMAC-SHA256 of the body in a header, as hex with or without `sha256=`."""

    type: Literal["hmac"] = "hmac"
    secret: Secret
    """Secret shared with the sender."""
    header: str = "X-Signature-256"
    """Header that carries the signature."""


class GithubAuth(Config):
    """GitHub's `X-Hub-Signature-256`."""

    type: Literal["github"] = "github"
    secret: Secret
    """Secret of the webhook."""


class StripeAuth(Config):
    """Stripe's `Stripe-Signature`, at most `tolerance_s` old."""

    type: Literal["stripe"] = "stripe"
    secret: Secret
    """Secret of the endpoint."""
    tolerance_s: PositiveSeconds = 300.0
    """Largest age of a signature, in seconds."""


class StandardAuth(Config):
    """Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`."""

    type: Literal["standard"] = "standard"
    secret: StandardSecret
    """Secret, as `whsec_<base64>` or base64; several, separated by spaces, for rotation."""
    tolerance_s: PositiveSeconds = 300.0
    """Largest difference of the clocks, in seconds."""


class BearerAuth(Config):
    """`Authorization: Bearer <token>`."""

    type: Literal["bearer"] = "bearer"
    token: Secret
    """The token."""


class NoAuth(Config):
    """Anyone who reaches the port may post."""

    type: Literal["none"] = "none"


AuthConfig = Annotated[HmacAuth | GithubAuth | StripeAuth | StandardAuth | BearerAuth | NoAuth, Discriminator("type")]

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class WebhookTriggerConfig(TriggerBase):
    """Runs the agent for every POST."""

    type: Literal["webhook"] = "webhook"
    host: Host = "127.0.0.1"
    """Address to listen on; one that others can reach needs `auth` or `allow_unauthenticated: true`."""
    port: Port = 8000
    """Port; several webhooks may share one."""
    path: str = Field(default="/webhook", pattern=r"^/[^\s?#{}*]*$")
    """Path, unique per host and port; it has no parameters and no wildcards."""
    auth: AuthConfig = NoAuth()
    """Who may post; absent: anyone who reaches the port."""
    allow_unauthenticated: Truth = False
    """True: other machines may post without `auth`."""
    max_body_bytes: Count = 1_000_000
    """Largest body; a larger one gets 413."""
    rate_per_s: Amount | None = None
    """Most posts per second; over it the answer is 429."""
    dedupe_window_s: PositiveSeconds = 86_400.0
    """How long a delivery id is remembered, in seconds."""
    reply: Literal["accepted", "result"] = "accepted"
    """`accepted`: 202 at once; `result`: the agent's answer, or 202 after `timeout_s`."""
    timeout_s: PositiveSeconds = 30.0
    """How long `reply: result` waits, in seconds."""

    @model_validator(mode="after")
    def _reachable(self) -> WebhookTriggerConfig:
        if self.host not in LOOPBACK and isinstance(self.auth, NoAuth) and not self.allow_unauthenticated:
            raise PydanticCustomError(
                "unauthenticated",
                "webhook on {host} can be reached by other machines: add `auth:`, or `allow_unauthenticated: true`",
                {"host": self.host, "at": "host"},
            )
        return self


def _cron(value: str) -> str:
    try:
        CronSim(CRON_ALIASES.get(value.strip(), value), _EPOCH)
    except CronSimError as error:
        reason = str(error)[:1].lower() + str(error)[1:]
        if value.strip().startswith("@"):
            reason = did_you_mean(value.strip(), CRON_ALIASES) or f"known: {', '.join(CRON_ALIASES)}"
        elif "number of fields" in reason:
            reason = f'it needs five fields and has {len(value.split())}; such as "0 2 * * *"'
        raise PydanticCustomError("cron", "invalid cron expression: {reason}", {"reason": reason}) from None
    return value


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(value, zoneinfo.available_timezones()) or "write one such as Europe/Berlin or UTC"
        raise PydanticCustomError(
            "timezone", 'unknown time zone "{name}"; {hint}', {"name": value, "hint": hint}
        ) from None
    return value


class ScheduleTriggerConfig(TriggerBase):
    """Runs the agent at times: a cron expression or every so many seconds."""

    type: Literal["schedule"] = "schedule"
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    """Cron expression of five fields, or @daily and the like."""
    every_s: PositiveSeconds | None = None
    """Time between ticks, in seconds."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """Time zone of `cron`."""
    catch_up: Literal["none", "last", "all"] = "last"
    """Which ticks that were missed while the pool was down are run at its next start."""

    @model_validator(mode="after")
    def _one_rhythm(self) -> ScheduleTriggerConfig:
        if (self.cron is None) == (self.every_s is None):
            raise PydanticCustomError("schedule", "a schedule needs either `cron` or `every_s`")
        if self.prompt is None:
            raise PydanticCustomError("schedule_prompt", "a schedule needs `prompt`")
        if isinstance(self.prompt, TemplateInstructionsConfig):
            spec = TEMPLATES[self.prompt.prompt]
            if spec.subject not in self.prompt.arguments:
                raise PydanticCustomError(
                    "schedule_subject",
                    "a tick says nothing, so {name} needs `{subject}`, {about}",
                    {"at": "prompt", "name": self.prompt.prompt, "subject": spec.subject, "about": spec.about},
                )
        return self


TriggerConfig = Annotated[
    Annotated[FileTriggerConfig | WebhookTriggerConfig | ScheduleTriggerConfig, Discriminator("type")],
    plugged("triggers"),
]
