"""Whether spans leave the process: the environment says so, in OpenTelemetry's own words."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from llmling import plugins

logger = logging.getLogger("llmling.tracing")

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)


def exporter(env: Mapping[str, str]) -> AbstractAsyncContextManager[object]:
    """Return what exports spans and metrics while it is entered; nothing when no endpoint is set.

    An endpoint without the extra `llmling[otel]` is a warning: machines often set it for everything they run.
    """
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(env.get(name) for name in _ENDPOINTS):
        return contextlib.nullcontext()
    try:
        return plugins.load("llmling.exporters.otel:OtelExporter")(env)
    except ImportError as error:
        logger.warning(
            "an OTLP endpoint is set, but %s is not installed, so spans stay in the process: "
            "pip install 'llmling[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT",
            error.name or error,
        )
        return contextlib.nullcontext()
