"""Spans and metrics over OTLP: what a collector on the loopback receives."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmling import Agent, AgentPool, Message, plugins, tracer
from llmling.messages import ToolCallPart
from llmling.testing import ScriptedModel


class Collector:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.url = ""
        self.traces: list[Any] = []
        self.metrics: list[Any] = []

    async def take(self, request: web.Request) -> web.Response:
        message: Any = ExportTraceServiceRequest() if "traces" in request.path else ExportMetricsServiceRequest()
        message.ParseFromString(await request.read())
        (self.traces if "traces" in request.path else self.metrics).append(message)
        return web.Response()

    @property
    def spans(self) -> dict[str, Any]:
        return {
            span.name: span
            for message in self.traces
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    @property
    def instruments(self) -> dict[str, Any]:
        return {
            metric.name: metric
            for message in self.metrics
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def attributes(thing: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in thing.attributes}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/{kind}", collector.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    tracer().clear()
    yield collector
    await runner.cleanup()


def agent() -> Agent[Any]:
    """Return an agent that looks, asks for a tool there is not, and answers."""

    def look() -> str:
        """Look."""
        return "seen"

    calls = (ToolCallPart("c1", "look", {}), ToolCallPart("c2", "made_up_4711", {}))
    model = ScriptedModel([Message("assistant", calls), "done"], name="openai/gpt-4o-mini")
    return Agent("scout", model=model, tools=[look])


async def test_a_collector_receives_the_spans_of_a_pool_with_their_parents(collector: Collector) -> None:
    async with AgentPool({"agents": {"scout": {}}}, agents={"scout": agent()}) as pool:
        result = await pool.get_agent("scout").run("go")
    received, run = collector.spans, collector.spans["invoke_agent scout"]
    assert set(received) == {
        "invoke_agent scout",
        "chat gpt-4o-mini",
        "execute_tool look",
        "execute_tool made_up_4711",
    }
    assert run.trace_id.hex() == result.spans[-1].trace_id
    assert run.span_id.hex() == result.spans[-1].span_id
    assert run.parent_span_id == b""
    assert all(span.parent_span_id == run.span_id for name, span in received.items() if name != run.name)
    assert attributes(run)["gen_ai.agent.name"] == "scout"
    assert attributes(run)["gen_ai.usage.input_tokens"] == result.usage.input_tokens
    assert attributes(received["chat gpt-4o-mini"])["gen_ai.provider.name"] == "openai"
    assert received["chat gpt-4o-mini"].kind == 3  # client
    assert received["execute_tool look"].status.code == 0
    assert received["execute_tool made_up_4711"].status.code == 2
    assert run.end_time_unix_nano > run.start_time_unix_nano > 1_700_000_000 * 10**9
    assert attributes(collector.traces[0].resource_spans[0].resource)["service.name"] == "llmling"


async def test_metrics_count_time_and_tokens_and_no_label_a_model_made_up(collector: Collector) -> None:
    async with AgentPool({"agents": {"scout": {}}}, agents={"scout": agent()}) as pool:
        result = await pool.get_agent("scout").run("go")
    tokens = collector.instruments["gen_ai.client.token.usage"].histogram.data_points
    total = {attributes(point)["gen_ai.token.type"]: 0.0 for point in tokens}
    for point in tokens:
        total[attributes(point)["gen_ai.token.type"]] += point.sum
    assert total == {"input": result.usage.input_tokens, "output": result.usage.output_tokens}
    chats = collector.instruments["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in chats) == 2
    tools = collector.instruments["gen_ai.execute_tool.duration"].histogram.data_points
    assert {attributes(point).get("gen_ai.tool.name") for point in tools} == {"look", None}
    assert "made_up_4711" not in str(collector.metrics)
    assert "gen_ai.invoke_agent.duration" in collector.instruments


async def test_two_pools_at_once_send_each_span_once(collector: Collector) -> None:
    async with (
        AgentPool({"agents": {}}),
        AgentPool({"agents": {"scout": {}}}, agents={"scout": agent()}) as pool,
    ):
        await pool.get_agent("scout").run("go")
    names = [span.name for message in collector.traces for span in message.resource_spans[0].scope_spans[0].spans]
    assert names.count("invoke_agent scout") == 1
    await agent().run("after the pools")
    assert names.count("invoke_agent scout") == 1


async def test_a_collector_that_is_away_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with caplog.at_level(logging.CRITICAL, "opentelemetry"):
        async with AgentPool({"agents": {"scout": {}}}, agents={"scout": agent()}) as pool:
            assert (await pool.get_agent("scout").run("go")).content == "done"


async def test_nothing_is_sent_when_it_is_switched_off(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with AgentPool({"agents": {"scout": {}}}, agents={"scout": agent()}) as pool:
        await pool.get_agent("scout").run("go")
    assert (collector.traces, collector.metrics) == ([], [])


async def test_an_endpoint_without_the_extra_is_a_warning(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As in a process that has not loaded it before.
    plugins.load.cache_clear()
    monkeypatch.delitem(sys.modules, "llmling.exporters.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    async with AgentPool({"agents": {"scout": {}}}, agents={"scout": agent()}) as pool:
        assert (await pool.get_agent("scout").run("go")).content == "done"
    assert "pip install 'llmling[otel]'" in caplog.text
    assert collector.traces == []
