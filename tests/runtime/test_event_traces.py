"""One trace for an event, below that of its sender: its hops, their tries, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
from serving import free_port, post, until
from traced import below, named, nothing_traced_yet

from llmling import Agent, AgentPool, tracer
from llmling.errors import ModelError
from llmling.protocols import EventRecord
from llmling.testing import ScriptedModel

TRACE, SENDER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


__all__ = ["nothing_traced_yet"]

CHAIN = """
agents:
  reader:
    model: demo
    retries: {attempts: 1}
    redelivery: {attempts: 3, backoff_s: 0}
    triggers: [{type: webhook, name: inbox, port: PORT, auth: {type: none}}]
    connections: [writer]
  writer: {model: demo, redelivery: {attempts: 1}}
engine: {type: memory}
server: false
"""


async def posted(folder: Path, reader: Any, writer: Any, **headers: str) -> list[EventRecord]:
    """Return the events of a pool of two agents after one POST and its whole chain."""
    port, done = free_port(), list[EventRecord]()
    path = folder / "agents.yml"
    path.write_text(CHAIN.replace("PORT", str(port)))
    agents = {
        name: Agent[Any](name, model=ScriptedModel(replies), retries={"attempts": 1})
        for name, replies in (("reader", reader), ("writer", writer))
    }
    async with AgentPool(path, agents=agents, on_event=done.append), aiohttp.ClientSession() as session:
        status, _ = await post(session, f"http://127.0.0.1:{port}/webhook", {"say": "hi"}, **headers)
        assert status == 202
        await until(lambda: done, "the event to settle")
    return done


async def test_an_event_its_hops_and_its_tries_are_one_trace_below_the_sender(tmp_path: Path) -> None:
    reader = [ModelError("overloaded", status=529, retryable=True), "read"]
    await posted(tmp_path, reader, ["written"], traceparent=f"00-{TRACE}-{SENDER}-01")
    assert {span.trace_id for span in tracer().spans()} == {TRACE}
    event = named("process inbox")[0]
    assert (event.parent_id, event.status, event.operation) == (SENDER, "ok", "process")
    runs = [span for span in tracer().spans() if span.operation == "invoke_agent"]
    assert [(run.name, run.status) for run in runs] == [
        ("invoke_agent reader", "error"),
        ("invoke_agent reader", "ok"),
        ("invoke_agent writer", "ok"),
    ]
    assert {run.parent_id for run in runs} == {event.span_id}
    assert event.latency_ms >= runs[-1].latency_ms
    assert event.attributes["cloudevents.event_id"] == runs[0].attributes["cloudevents.event_id"]


async def test_an_event_without_a_sender_has_one_trace_too_and_a_dead_one_is_an_error(tmp_path: Path) -> None:
    dead = ModelError("bad key", status=401)
    (record,) = await posted(tmp_path, ["read"], [dead])
    assert record.status == "dead"
    assert len({span.trace_id for span in tracer().spans()}) == 1
    event = named("process inbox")[0]
    assert (event.parent_id, event.status) == (None, "error")
    assert "bad key" in (event.error or "")
    assert below(event) == ["invoke_agent reader", "invoke_agent writer"]
