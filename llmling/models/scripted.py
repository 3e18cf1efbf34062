"""Models that answer from a script: a list of replies in Python, or a YAML file of patterns."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from llmling.errors import ModelError, StartupError
from llmling.manifest.models import Price, ScriptModelConfig
from llmling.manifest.problems import Report, Source
from llmling.manifest.scripts import ScriptEntry, read_script
from llmling.messages import Message, Part, TextPart, ToolCallPart, ToolCallResponsePart, Usage
from llmling.models.offline import offline_response, pieces
from llmling.models.prices import FREE
from llmling.protocols import ModelRequest, ModelResponse, TextDelta
from llmling.runtime.clock import Clock
from llmling.runtime.services import Services

Reply: TypeAlias = "str | Message | ModelResponse | BaseException | Callable[[ModelRequest], Any]"
"""What a scripted model can be told to answer; a callable gives one of the others and may be a coroutine function."""


class ScriptedModel:
    """Gives its replies in order, one per request, and keeps the requests in `requests`.

    An exception among the replies is raised. A single callable instead of a list answers every request.

    Example:
        >>> model = ScriptedModel(["first answer", ModelError("overloaded", status=529, retryable=True), "third"])
    """

    def __init__(
        self, replies: Iterable[Reply] | Callable[[ModelRequest], Any] = (), *, name: str = "scripted"
    ) -> None:
        self._always = replies if callable(replies) else None
        self._replies: list[Reply] = [] if callable(replies) else list(replies)
        self._name = name
        self.requests: list[ModelRequest] = []

    @property
    def name(self) -> str:
        """The name it was given."""
        return self._name

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the next reply.

        Raises:
            ModelError: There is no reply left; or whatever error the script holds.
        """
        self.requests.append(request)
        if self._always is None and len(self.requests) > len(self._replies):
            raise ModelError(
                f"{self._name}: request {len(self.requests)}, but the script has {len(self._replies)} replies; "
                f"the last message was: {_short(_last_text(request))!r}"
            )
        reply: Any = self._always or self._replies[len(self.requests) - 1]
        while callable(reply):
            reply = reply(request)
            if inspect.isawaitable(reply):
                reply = await reply
        return self._response(reply, request)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield the next reply word by word and, last, whole."""
        response = await self.request(request)
        for piece in pieces(response.message.text):
            yield TextDelta(piece)
        yield response

    def _response(self, reply: Any, request: ModelRequest) -> ModelResponse:
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, ModelResponse):
            return reply
        message = Message.assistant(reply) if isinstance(reply, str) else reply
        if not isinstance(message, Message):
            raise TypeError(f"a scripted reply must be a text, Message, ModelResponse or exception, not {reply!r}")
        return offline_response(message, request, self._name)


class ScriptModel:
    """Answers with the first entry whose pattern is found in the last message and that has not been used up."""

    def __init__(self, name: str, path: Path, entries: list[ScriptEntry], clock: Clock) -> None:
        self._name = name
        self._path = path
        self._entries = [(entry, re.compile(entry.match)) for entry in entries]
        self._left = [entry.times for entry in entries]
        self._clock = clock

    @property
    def name(self) -> str:
        """`demo:` and the path as the user wrote it."""
        return self._name

    async def price(self) -> Price:
        """Return that it is free."""
        return FREE

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the reply of the matching entry, after its delay.

        Raises:
            ModelError: No entry matches, the entry says so, or its delay is longer than the request may take.
        """
        entry = self._take(_last_text(request))
        late = entry.delay_s > request.timeout_s
        if entry.delay_s:
            await self._clock.sleep(min(entry.delay_s, request.timeout_s))
        if late or entry.error == "timeout":
            limit = f" within {request.timeout_s:g} s" if late else " in time"
            raise ModelError(f"{self._name}: no answer{limit} (scripted)", provider="demo", retryable=True)
        if entry.error is not None:
            said = entry.reply or "scripted error"
            raise ModelError(
                f"{self._name}: answered {entry.error}: {said}", status=entry.error, provider="demo", retryable=True
            )
        calls = [
            ToolCallPart(f"script_{len(request.messages)}_{place}", call.name, call.arguments)
            for place, call in enumerate(entry.tool_calls)
        ]
        texts: list[Part] = [TextPart(entry.reply)] if entry.reply or not calls else []
        used = entry.usage and Usage(entry.usage.input_tokens, entry.usage.output_tokens, requests=1)
        return offline_response(Message("assistant", (*texts, *calls)), request, self._name, used)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield the reply word by word and, last, whole."""
        response = await self.request(request)
        for piece in pieces(response.message.text):
            yield TextDelta(piece)
        yield response

    def _take(self, text: str) -> ScriptEntry:
        for place, (entry, pattern) in enumerate(self._entries):
            left = self._left[place]
            if left == 0 or not pattern.search(text):
                continue
            if left is not None:
                self._left[place] = left - 1
            return entry
        raise ModelError(
            f"no entry of {self._path} matches the last message {_short(text)!r}; an entry without `match:` at the "
            f"end answers everything else",
            provider="demo",
        )


def script_model(config: ScriptModelConfig, services: Services) -> ScriptModel:
    """Build the model of `demo:script.yml`; the path starts at the manifest's folder.

    Raises:
        StartupError: The file cannot be read or its entries are wrong; the message names file, line and entry.
    """
    path = services.folder / config.path
    report = Report()
    try:
        entries = read_script(path, Source(str(path)), report)
    except OSError as error:
        raise StartupError(f"demo script {path}: {error.strerror or error}", usage=True) from None
    if report.failed:
        problems = "\n".join(problem.render() for problem in report.problems())
        raise StartupError(f"demo script {path} cannot be used:\n{problems}", usage=True)
    return ScriptModel(f"demo:{config.path}", path, entries, services.clock)


def _last_text(request: ModelRequest) -> str:
    parts = request.messages[-1].parts if request.messages else ()
    texts = [
        part.response if isinstance(part, ToolCallResponsePart) else part.content
        for part in parts
        if not isinstance(part, ToolCallPart)
    ]
    return "\n".join(texts)


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
