"""Configs of sinks: where answers leave the pool."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field
from pydantic_core import PydanticCustomError

from llmling.manifest.base import Config, PositiveSeconds, RelativeTemplate, plugged
from llmling.manifest.wire import Headers, SinkSecret, Url


class SinkBase(Config):
    """What every sink shares."""

    on: Literal["answer", "dead"] = "answer"
    """What is sent: `answer`, each answer of the agent; `dead`, each dead event that came to it or died at it."""


_TAG = re.compile(r"\{[{%#]")


def _below_a_folder(value: str) -> str:
    tag = _TAG.search(value)
    if tag is not None and "/" in (start := value[: tag.start()]) and not start.rpartition("/")[0].strip("/"):
        raise PydanticCustomError("sink_path", "write a folder before the first tag: it is what the path cannot leave")
    return value


class FileSinkConfig(SinkBase):
    """Writes the answer and a newline into a file."""

    type: Literal["file"] = "file"
    path: Annotated[RelativeTemplate, AfterValidator(_below_a_folder)]
    """Path with sandboxed Jinja, such as `out/{{ event.id }}.md`; it cannot leave the folder written before the
    first `{{`."""
    mode: Literal["write", "append"] = "write"
    """`write` replaces the file in one step, `append` adds to its end."""


class HttpSinkConfig(SinkBase):
    """Posts the answer, signed as Standard Webhooks describes."""

    type: Literal["http"] = "http"
    url: Url
    """Address that takes the answer."""
    secret: SinkSecret | None = None
    """Secret the receiver knows (`whsec_...` or any text); absent: not signed."""
    headers: Headers = Field(default={})
    """Further headers."""
    timeout_s: PositiveSeconds = 15.0
    """Longest time for one request, in seconds."""


SinkConfig = Annotated[Annotated[FileSinkConfig | HttpSinkConfig, Discriminator("type")], plugged("sinks")]
