"""Spans and metrics for OpenTelemetry, sent over OTLP/HTTP: the only import of its SDK."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Self

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from llmling.runtime import semconv
from llmling.runtime.threads import run_in_thread
from llmling.runtime.tracing import Span, tracer

logger = logging.getLogger("llmling.tracing")

FLUSH_S = 5.0
"""Longest time for the last spans when a pool stops."""

_KINDS = {"chat": SpanKind.CLIENT, "process": SpanKind.CONSUMER}
_SCOPE = InstrumentationScope("llmling")

_users = 0
_stop: Callable[[], None] | None = None


class OtelExporter:
    """Sends every span that ends while it is entered; several at once send each span once.

    Address, headers, batching and names come from the `OTEL_...` variables of the SDK. Sending happens in threads of
    the SDK; leaving sends what is left, for `FLUSH_S` seconds at most.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def __aenter__(self) -> Self:
        global _users, _stop
        _users += 1
        if _users == 1:
            _stop = _start(self._env)
        return self

    async def __aexit__(self, *_: object) -> None:
        global _users, _stop
        _users -= 1
        if _users == 0 and _stop is not None:
            stop, _stop = _stop, None
            try:
                async with asyncio.timeout(FLUSH_S):
                    await run_in_thread(stop)
            except TimeoutError:
                logger.warning("the last spans were not sent: the collector did not answer within %g s", FLUSH_S)


def _start(env: Mapping[str, str]) -> Callable[[], None]:
    named = env.get("OTEL_SERVICE_NAME") or "service.name=" in env.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "llmling"})
    stops: list[Callable[[], Any]] = []
    if env.get("OTEL_TRACES_EXPORTER") != "none":
        processor = BatchSpanProcessor(OTLPSpanExporter())
        stops += [tracer().on_span(lambda span: processor.on_end(_readable(span, resource))), processor.shutdown]
    if env.get("OTEL_METRICS_EXPORTER") != "none":
        metrics = _Metrics(resource)
        stops += [tracer().on_span(metrics.record), metrics.provider.shutdown]

    def stop() -> None:
        for each in stops:
            each()

    return stop


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    started_ns = int(span.started * 1e9)
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
        resource=resource,
        attributes=dict(span.attributes),
        kind=_KINDS.get(span.operation, SpanKind.INTERNAL),
        status=Status(StatusCode.ERROR, span.error) if span.status == "error" else Status(StatusCode.UNSET),
        start_time=started_ns,
        end_time=started_ns + int(span.latency_ms * 1e6),
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class _Metrics:
    """Counts what spans say: how long each kind of operation took, and tokens."""

    def __init__(self, resource: Resource) -> None:
        self.provider = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter())], resource, shutdown_on_exit=False
        )
        meter = self.provider.get_meter("llmling")
        self._durations = {
            operation: meter.create_histogram(
                name, "s", f"How long {operation} took.", explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS
            )
            for operation, name in semconv.DURATIONS.items()
        }
        self._tokens = meter.create_histogram(
            semconv.TOKEN_USAGE,
            "{token}",
            "Tokens of one model request.",
            explicit_bucket_boundaries_advisory=semconv.TOKEN_BUCKETS,
        )

    def record(self, span: Span) -> None:
        """Count one span."""
        labels = {name: span.attributes[name] for name in semconv.LABELS if name in span.attributes}
        if labels.get(semconv.ERROR_TYPE) == semconv.UNKNOWN_TOOL:
            labels.pop(semconv.TOOL_NAME, None)  # whatever a model makes up must not become a time series
        if (duration := self._durations.get(span.operation)) is not None:
            duration.record(span.latency_ms / 1000, labels)
        if span.operation == "chat" and span.status == "ok":
            for kind, name in (("input", semconv.INPUT_TOKENS), ("output", semconv.OUTPUT_TOKENS)):
                self._tokens.record(span.attributes.get(name, 0), {**labels, semconv.TOKEN_TYPE: kind})
