"""Running a prompt by itself, on real sockets: what is sent, to whom, how often, and what comes back."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest
from llm_server import LLMServer, Reply
from pydantic import BaseModel

from llmling import Constraints, Context, Directive, Guidance, RunResult, get_tracer
from llmling.errors import LimitExceeded, ModelError, SyncInAsyncError
from llmling.models.clients import close_clients
from llmling.testing import ScriptedModel

KEY = "sk-loopback-0123456789"
CONTEXT = Context(
    guidance=Guidance(role="Senior data analyst", goal="Identify revenue anomalies"),
    directive=Directive("Analyze Q3 revenue: revenue dropped 18% in APAC."),
    constraints=Constraints(must="name the month"),
)
PROVIDERS = pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "gemini", "ollama"])


def turns(body: dict[str, Any]) -> tuple[str, str]:
    """Return the text of the system and of the user turn of a request, in any wire format."""
    if "contents" in body:
        system = body.get("system_instruction") or body["systemInstruction"]
        return system["parts"][0]["text"], "".join(part["text"] for part in body["contents"][0]["parts"])
    messages: list[dict[str, Any]] = body["messages"]
    system: Any = body.get("system")
    if system is None:
        system, *messages = (messages[0]["content"], *messages[1:])
    assert [message["role"] for message in messages] == ["user"]
    texts = [system, messages[0]["content"]]
    joined = [text if isinstance(text, str) else "".join(part["text"] for part in text) for text in texts]
    return joined[0], joined[1]


@PROVIDERS
async def test_a_provider_alone_takes_its_default_model(server: LLMServer, provider: str) -> None:
    server.replies.append(Reply("APAC fell."))
    result = await CONTEXT.aexecute(provider=provider)
    assert result.response == result.content == "APAC fell."
    assert result.tokens_used == 18
    wire = {"google": "gemini"}.get(provider, provider)
    assert result.model.startswith(f"{wire}/")
    assert result.cost_usd is not None
    assert [request.wire for request in server.requests] == [wire]
    system, user = turns(server.requests[0].body)
    assert "Senior data analyst" in system
    assert "Identify revenue anomalies" in system
    assert "name the month" in system
    assert user == "Analyze Q3 revenue: revenue dropped 18% in APAC."


@PROVIDERS
async def test_a_stream_is_one_on_the_wire_and_the_result_is_whole(server: LLMServer, provider: str) -> None:
    server.replies.append(Reply("All of the answer, in pieces."))
    result = await CONTEXT.aexecute(provider=provider, stream=True)
    assert result.response == "All of the answer, in pieces."
    assert result.tokens_used == 18
    assert [request.stream for request in server.requests] == [True]


@pytest.mark.parametrize(
    ("provider", "model", "sent", "wire"),
    [
        ("openai", "gpt-4o", "gpt-4o", "openai"),
        ("openai", "openai/gpt-4o", "gpt-4o", "openai"),
        (None, "openai/gpt-4o", "gpt-4o", "openai"),
        ("Anthropic", "claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20241022", "anthropic"),
        ("ollama", "qwen3:4b", "qwen3:4b", "ollama"),
    ],
)
async def test_a_model_is_named_with_or_without_its_provider(
    server: LLMServer, provider: str | None, model: str, sent: str, wire: str
) -> None:
    await CONTEXT.aexecute(provider=provider, model=model)
    assert [(request.wire, request.body["model"]) for request in server.requests] == [(wire, sent)]


@pytest.mark.parametrize("model", ["gemini-1.5-pro", "gemini/gemini-1.5-pro", "google/gemini-1.5-pro"])
async def test_google_is_gemini(server: LLMServer, model: str) -> None:
    assert (await CONTEXT.aexecute(provider="google", model=model)).model == "gemini/gemini-1.5-pro"
    assert "gemini-1.5-pro:generateContent" in server.requests[0].path


async def test_neither_provider_nor_model_is_auto(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert (await CONTEXT.aexecute()).model.startswith("anthropic/")


async def test_settings_and_key_of_a_call_are_sent_and_kept_nowhere(server: LLMServer) -> None:
    await CONTEXT.aexecute(
        provider="openai", model="gpt-4o", temperature=0.2, max_tokens=2048, api_key="sk-mine", presence_penalty=0.5
    )
    await CONTEXT.aexecute(provider="openai", model="gpt-4o")
    first, second = server.requests
    assert (first.body["temperature"], first.body["max_tokens"], first.body["presence_penalty"]) == (0.2, 2048, 0.5)
    assert first.headers["Authorization"] == "Bearer sk-mine"
    assert second.headers["Authorization"] == f"Bearer {KEY}"
    assert not {"temperature", "max_tokens", "presence_penalty"} & second.body.keys()
    assert "sk-mine" not in repr(CONTEXT)
    assert len(server.requests) == 2, "the same prompt twice is two requests"


async def test_an_address_can_be_given(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    await CONTEXT.aexecute(model="openai/my-model", api_base=server.openai_url)
    assert server.requests[0].body["model"] == "my-model"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"provider": "opnai"}, ValueError, "unknown provider 'opnai'; did you mean 'openai'.*known: .*anthropic"),
        ({"provider": "azure"}, ValueError, "provider 'azure' has no default model: name one with model="),
        ({"model": ""}, ValueError, "model= is empty"),
        ({"api_key": "sk-x"}, ValueError, "api_key= cannot be used here.*name it with provider= or model="),
        ({"provider": "openai", "api_key": ""}, ValueError, "api_key= is empty"),
        ({"model": ScriptedModel(), "provider": "openai"}, ValueError, "provider= cannot be used here"),
        ({"model": {"type": "demo"}, "provider": "openai"}, ValueError, "a mapping names its own"),
        ({"provider": "openai", "temperature": 9}, ValueError, "temperature=9: .*less than or equal to 2"),
        ({"provider": "openai", "max_tokens": "many"}, ValueError, 'max_tokens="many"'),
        ({"provider": "openai", "timeout_s": 0}, ValueError, "timeout_s=0"),
        ({"provider": "openai", "retries": -1}, ValueError, "retries=-1.*the tries after the first"),
        ({"provider": "openai", "temprature": 1}, TypeError, "temprature=: did you mean temperature="),
        ({"provider": "openai", "retry": 1}, TypeError, "retry=: write retries="),
        ({"provider": "openai", "api_kye": "x"}, TypeError, "api_kye=: did you mean api_key="),
        ({"provider": "openai", "timeout": 1}, TypeError, "timeout=: write timeout_s="),
        ({"provider": "openai", "max_retries": 1}, TypeError, "max_retries=: write retries="),
        ({"provider": "openai", "tools": []}, TypeError, "tools=: tools belong to an Agent"),
    ],
)
async def test_wrong_arguments_are_named_before_any_request(
    server: LLMServer, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await CONTEXT.aexecute(**arguments)
    assert server.paths == []


async def test_output_is_validated(server: LLMServer) -> None:
    class Finding(BaseModel):
        region: str
        drop: float

    server.replies += [Reply("no idea"), Reply('{"region": "APAC", "drop": 0.18}')]
    context = Context(directive="Find it.", output=Finding)
    result = await context.aexecute(provider="openai")
    assert result.content == Finding(region="APAC", drop=0.18)
    assert "JSON Schema" in turns(server.requests[0].body)[0]


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_an_error_nothing_can_mend_is_one_request_and_typed(server: LLMServer, status: int) -> None:
    server.answer = lambda _: Reply(status=status)
    with pytest.raises(ModelError) as caught:
        await CONTEXT.aexecute(provider="anthropic")
    error = caught.value
    assert (error.status, error.provider, error.attempts, error.retryable) == (status, "anthropic", 1, False)
    assert len(server.requests) == 1
    server.answer = lambda _: Reply("ok")
    assert (await CONTEXT.aexecute(provider="openai")).response == "ok", "fall back to another provider"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
async def test_two_retries_are_three_requests_whatever_the_status(server: LLMServer, status: int) -> None:
    server.answer = lambda _: Reply(status=status, retry_after="0")
    with pytest.raises(ModelError) as caught:
        await CONTEXT.aexecute(provider="openai", retries=2)
    assert (caught.value.status, caught.value.attempts) == (status, 3)
    assert len(server.requests) == 3


async def test_a_retry_mends_and_retry_after_is_kept(server: LLMServer) -> None:
    server.replies += [Reply(status=429, retry_after="1"), Reply("there")]
    started = time.monotonic()
    assert (await CONTEXT.aexecute(provider="openai")).response == "there"
    assert time.monotonic() - started >= 1.0


async def test_a_timeout_bounds_all_tries_and_names_its_argument(server: LLMServer) -> None:
    server.answer = lambda _: Reply(hang=True)
    started = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"no answer within 0.5 s .*longer timeout_s="):
        await CONTEXT.aexecute(provider="openai", timeout_s=0.5)
    assert time.monotonic() - started < 30
    assert len(server.requests) == 1


async def test_cancelling_ends_the_request(server: LLMServer) -> None:
    server.answer = lambda _: Reply(hang=True)
    task = asyncio.create_task(CONTEXT.aexecute(provider="openai"))
    await server.wait_for_requests(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        await server.requests[0].hung_up.wait()


async def test_a_cut_stream_is_an_error(server: LLMServer) -> None:
    server.answer = lambda _: Reply("never the whole of it", cut=True)
    with pytest.raises(ModelError):
        await CONTEXT.aexecute(provider="openai", stream=True, retries=0)
    assert len(server.requests) == 1


# --- many at once ------------------------------------------------------------------------------------------------


async def test_providers_mix_and_all_are_in_flight_at_once(server: LLMServer) -> None:
    gate = asyncio.Event()
    server.answer = lambda request: Reply(f"{request.wire} said", gate=gate)
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(CONTEXT.aexecute(provider=name)) for name in ("openai", "openai", "anthropic") * 25]
        # The gate opens only when every request has arrived: one that waited for another would never come.
        await server.wait_for_requests(75, timeout_s=30)
        gate.set()
    assert {run.result().response for run in runs} == {"openai said", "anthropic said"}
    assert len({run.result().run_id for run in runs}) == 75
    await close_clients()
    gc.collect()  # an open connection would warn here, and warnings are errors


async def test_a_web_handler_needs_no_thread_pool(server: LLMServer) -> None:
    gate = asyncio.Event()
    server.answer = lambda request: Reply(f"answer to {request.last_text}", gate=gate)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        question = (await receive())["body"].decode()
        context = Context(guidance=Guidance(role="Expert analyst"), directive=Directive(question))
        result = await context.aexecute(provider=scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": result.response.encode()})

    async def post(question: str) -> bytes:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": question.encode(), "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app({"type": "http", "query_string": b"openai"}, receive, send)
        return sent[-1]["body"]

    posts = [asyncio.create_task(post(f"question {number}")) for number in range(20)]
    await server.wait_for_requests(20)
    gate.set()
    assert await asyncio.gather(*posts) == [f"answer to question {number}".encode() for number in range(20)]


async def test_gathered_runs_are_no_children_of_each_other(server: LLMServer) -> None:
    known = {span.span_id for span in get_tracer().get_spans()}
    await asyncio.gather(*(CONTEXT.aexecute(provider=name) for name in ("openai", "anthropic", "google")))
    spans = [span for span in get_tracer().get_spans() if span.span_id not in known]
    runs = [span for span in spans if span.name.startswith("invoke_agent")]
    assert len(runs) == 3
    assert {span.parent_id for span in runs} == {None}
    assert {"model", "tokens", "cost_usd", "latency_ms"} <= runs[-1].metadata.keys()


# --- without a loop ----------------------------------------------------------------------------------------------


async def test_execute_refuses_to_block_a_running_loop(server: LLMServer) -> None:
    with pytest.raises(SyncInAsyncError, match=r"test_execution\.py:\d+; write `await ctx\.aexecute") as caught:
        CONTEXT.execute(provider="openai")
    line = next(entry.lineno for entry in caught.traceback if str(entry.path) == __file__) + 1
    assert f"test_execution.py:{line};" in str(caught.value)
    assert server.paths == []


async def test_execute_works_from_any_thread(server: LLMServer) -> None:
    server.answer = lambda request: Reply(f"echo: {request.last_text}")
    names: list[str] = []

    def work() -> list[RunResult]:
        names.append(threading.current_thread().name)
        one = CONTEXT.execute(provider="openai", temperature=0.2, api_key="sk-mine")
        return [one, CONTEXT.execute("anthropic", stream=True)]

    outcomes = await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
    assert all(result.response.endswith("APAC.") for results in outcomes for result in results)
    assert "MainThread" not in names
    first = next(request for request in server.requests if request.wire == "openai")
    assert first.body["temperature"] == 0.2
    assert first.headers["Authorization"] == "Bearer sk-mine"


def test_execute_refuses_an_empty_directive() -> None:
    with pytest.raises(ValueError, match="the directive is empty"):
        Context(guidance="x", directive="").execute(model="demo")
