"""What happened in this process, as spans: who caused what, how long it took, what it used and how it ended."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Any, Final, Literal, Self, TypeAlias

from llmling.events import random_hex
from llmling.frozen import frozen
from llmling.runtime import semconv

logger = logging.getLogger("llmling.tracing")

KEPT_SPANS = 1000
_LONGEST_ERROR = 500

OnSpan: TypeAlias = "Callable[[Span], object]"


@frozen
class Span:
    """Something that ended: a run, a try of a model request, a tool call, an event.

    `started` is in Unix seconds, `latency_ms` in milliseconds. `attributes` have the names of OpenTelemetry's GenAI
    conventions and never hold what was said: no prompts, no answers, no arguments of tools. `error` is the reason of
    a failure, of 500 characters at most.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    started: float
    latency_ms: float
    status: Literal["ok", "error"]
    error: str | None
    attributes: Mapping[str, Any]

    @property
    def operation(self) -> str:
        """What it was: `invoke_agent`, `invoke_workflow`, `chat`, `execute_tool` or `process` (an event)."""
        return self.attributes[semconv.OPERATION]

    @property
    def metadata(self) -> dict[str, Any]:
        """The numbers under short names; those of a run are sums over its model requests, unknown ones are None.

        `retries` of a run are its tries after the first of each request; of a try, the tries before it.
        """
        found = self.attributes.get
        read, written = found(semconv.INPUT_TOKENS), found(semconv.OUTPUT_TOKENS)
        return {
            "model": found(semconv.RESPONSE_MODEL) or found(semconv.REQUEST_MODEL),
            "provider": found(semconv.PROVIDER),
            "tokens": None if read is None and written is None else (read or 0) + (written or 0),
            "input_tokens": read,
            "output_tokens": written,
            "cost_usd": found(semconv.COST_USD),
            "latency_ms": self.latency_ms,
            "retries": found(semconv.RETRIES, found(semconv.RESEND_COUNT, 0)),
            "agent": found(semconv.AGENT_NAME),
            "tool": found(semconv.TOOL_NAME),
            "error": self.error,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data JSON can hold."""
        return {
            "name": self.name,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_id": self.parent_id,
            "started": self.started,
            "latency_ms": self.latency_ms,
            "status": self.status,
            "error": self.error,
            "attributes": dict(self.attributes),
        }


@frozen
class Place:
    """A place in a trace; without `span_id` the top of it."""

    trace_id: str
    span_id: str | None = None


class OpenSpan:
    """A span that goes on. `with` makes it the parent of everything started inside, and ends it.

    `children` are its direct children that have ended; `add_up` is called with it right before it ends. An exception
    that leaves the block makes it an error.
    """

    __slots__ = (
        "_add_up",
        "_began",
        "_started",
        "_token",
        "attributes",
        "children",
        "ended",
        "name",
        "parent",
        "span_id",
        "trace_id",
    )

    def __init__(
        self,
        name: str,
        parent: OpenSpan | Place,
        attributes: dict[str, Any],
        add_up: Callable[[OpenSpan], None] | None = None,
    ) -> None:
        self.name = name
        self.parent = parent
        self.trace_id = parent.trace_id
        self.span_id = random_hex()
        self.attributes = attributes
        self.children: list[Span] = []
        self.ended: Span | None = None
        self._add_up = add_up
        self._token: Token[OpenSpan | Place | None] | None = None
        self._started = time.time()
        self._began = time.perf_counter()

    @property
    def place(self) -> Place:
        """Where in its trace it is."""
        return Place(self.trace_id, self.span_id)

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._token is not None:
            _current.reset(self._token)
        self.end(error)

    def end(self, error: BaseException | str | None = None) -> Span:
        """End it, once: a second call changes nothing. Returns what it became."""
        if self.ended is not None:
            return self.ended
        if self._add_up is not None:
            self._add_up(self)
        parent, attributes, reason = self.parent, self.attributes, None
        if error is not None:
            reason = _reason(error)
            attributes.setdefault(semconv.ERROR_TYPE, _error_type(error))
        latency_ms = (time.perf_counter() - self._began) * 1000
        status = "ok" if error is None else "error"
        # By position, which takes half the time; there are three spans in every run.
        self.ended = ended = Span(
            self.name,
            self.trace_id,
            self.span_id,
            parent.span_id,
            self._started,
            latency_ms,
            status,
            reason,
            attributes,
        )
        # A parent that has ended must not gather what a task it left behind does for ever after.
        if isinstance(parent, OpenSpan) and parent.ended is None:
            parent.children.append(ended)
        _tracer.add(ended)
        return ended


class Tracer:
    """Keeps the newest spans of this process, `KEPT_SPANS` unless told otherwise; safe to use from any thread."""

    def __init__(self, kept: int = KEPT_SPANS) -> None:
        self._spans: deque[Span] = deque(maxlen=kept)
        self._listeners: tuple[OnSpan, ...] = ()

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """Return the spans kept, or those of one trace, in the order they ended: a run after what was inside it."""
        spans = list(self._spans.copy())
        return spans if trace_id is None else [span for span in spans if span.trace_id == trace_id]

    def get_spans(self) -> list[Span]:
        """Return the spans kept: `get_tracer().get_spans()[-1].metadata` is about the last run that ended."""
        return self.spans()

    def clear(self) -> None:
        """Forget the spans kept so far."""
        self._spans.clear()

    def keep(self, count: int) -> None:
        """Keep the newest `count` spans from now on; 0 keeps none and listeners still hear of all."""
        self._spans = deque(self._spans.copy(), maxlen=count)

    def on_span(self, listener: OnSpan) -> Callable[[], None]:
        """Call `listener` with every span that ends from now on; calling what is returned ends that.

        It is called on the thread where the span ended and should be quick. What it raises is logged.
        """
        self._listeners = (*self._listeners, listener)

        def remove() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not listener)

        return remove

    def add(self, span: Span) -> None:
        """Keep a span that has ended and tell the listeners."""
        self._spans.append(span)
        for listener in self._listeners:
            try:
                listener(span)
            except Exception:  # the border to what users wrote: no trace is worth a run
                logger.exception("a listener of the tracer failed on span %r", span.name)


_tracer: Final = Tracer()
_current: ContextVar[OpenSpan | Place | None] = ContextVar("llmling_span", default=None)


def tracer() -> Tracer:
    """Return the tracer of this process."""
    return _tracer


def get_tracer() -> Tracer:
    """Return the tracer of this process; another name of `tracer`."""
    return _tracer


def new_trace() -> Place:
    """Return the top of a new trace."""
    return Place(random_hex() + random_hex())


def current_span() -> OpenSpan | Place | None:
    """Return the span this code runs in, or None outside of any."""
    return _current.get()


def place_of(span: OpenSpan | Place) -> Place:
    """Return where in its trace a span is."""
    return span.place if isinstance(span, OpenSpan) else span


def below(place: Place | None) -> AbstractContextManager[None]:
    """Make a place the parent of what starts inside; None: nothing is, whatever surrounds this code."""
    return _Below(place)


class _Below(AbstractContextManager[None]):
    __slots__ = ("_place", "_token")

    def __init__(self, place: Place | None) -> None:
        self._place = place

    def __enter__(self) -> None:
        self._token = _current.set(self._place)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def _error_type(error: BaseException | str) -> str:
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return str(status)
    return "_OTHER" if isinstance(error, str) else type(error).__name__


def _reason(error: BaseException | str) -> str:
    if isinstance(error, BaseException):
        # A task that is cancelled, or a generator nobody reads on, says nothing about itself.
        left = not isinstance(error, Exception)
        error = f"{type(error).__name__}: left before it ended" if left else str(error) or type(error).__name__
    return error if len(error) <= _LONGEST_ERROR else error[: _LONGEST_ERROR - 3] + "..."
