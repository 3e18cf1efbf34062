"""Models through litellm, over real sockets: what is sent, what comes back, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from llm_server import Call, LLMServer, Reply
from providers import ADD, ALL, ANTHROPIC, GEMINI, KEY, OLLAMA, OPENAI, REQUEST, SCHEMA, failure, model
from pydantic import SecretStr

from llmling.manifest.models import Price
from llmling.messages import Message, TextPart, ToolCallPart, ToolCallResponsePart, Usage
from llmling.models.clients import close_clients
from llmling.protocols import ModelRequest, ModelResponse, TextDelta


@ALL
async def test_an_answer_with_its_usage(server: LLMServer, name: str) -> None:
    server.replies.append(Reply("Hello to you."))
    response = await model(name).request(REQUEST)
    assert response.message == Message.assistant("Hello to you.")
    assert (response.usage, response.model, response.finish_reason) == (Usage(11, 7, requests=1), name, "stop")
    assert not response.demo
    assert len(server.paths) == 1


@ALL
async def test_a_stream_yields_the_pieces_and_then_the_whole(server: LLMServer, name: str) -> None:
    server.replies.append(Reply("one two three"))
    *pieces, last = [part async for part in model(name).stream(REQUEST)]
    assert [part.text for part in pieces if isinstance(part, TextDelta)] == ["one", " two", " three"]
    assert isinstance(last, ModelResponse)
    assert last.message == Message.assistant("one two three")
    assert last.usage.requests == 1
    if name != OLLAMA:
        assert last.usage == Usage(11, 7, requests=1)
    assert len(server.paths) == 1


@ALL
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_go_out_and_parallel_calls_come_back(server: LLMServer, name: str, stream: bool) -> None:
    server.replies.append(Reply(calls=[Call("add", {"n": 1}), Call("add", {"n": 2})]))
    request = ModelRequest(REQUEST.messages, tools=(ADD,))
    if stream:
        response = [part async for part in model(name).stream(request)][-1]
        assert isinstance(response, ModelResponse)
    else:
        response = await model(name).request(request)
    calls = response.message.tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("add", {"n": 1}), ("add", {"n": 2})]
    assert len({call.id for call in calls}) == 2
    assert all(call.id for call in calls)
    assert response.finish_reason == "tool_calls"
    assert "Adds numbers." in str(server.requests[0].body["tools"])


@ALL
async def test_an_exchange_with_tools_is_sent_back(server: LLMServer, name: str) -> None:
    calls = (ToolCallPart("c1", "add", {"n": 1}), ToolCallPart("c2", "add", '{"n": broken'))
    answers = (ToolCallResponsePart("c1", "add", "one!"), ToolCallResponsePart("c2", "add", "bad", failed=True))
    exchange = (*REQUEST.messages, Message("assistant", (TextPart("Wait."), *calls)), Message("tool", answers))
    server.replies.append(Reply("done"))
    assert (await model(name).request(ModelRequest(exchange, tools=(ADD,)))).message.text == "done"
    sent = str(server.requests[0].body)
    for expected in ("Be brief.", "hello there", "Wait.", "one!", "bad", "broken"):
        assert expected in sent


async def test_openai_tool_messages_carry_the_ids(server: LLMServer) -> None:
    call = Message("assistant", (ToolCallPart("c1", "add", {"n": 1}), ToolCallPart("c2", "add", {})))
    answers = Message("tool", (ToolCallResponsePart("c1", "add", "1"), ToolCallResponsePart("c2", "add", "2")))
    await model(OPENAI).request(ModelRequest((*REQUEST.messages, call, answers)))
    messages = server.requests[0].body["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool"]
    assert [message.get("tool_call_id") for message in messages[3:]] == ["c1", "c2"]
    assert messages[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"n": 1}'}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("arguments", ['{"n": ', "[1, 2]", "17", "plain words"])
async def test_arguments_that_are_no_object_are_kept_as_text(server: LLMServer, stream: bool, arguments: str) -> None:
    server.replies.append(Reply(calls=[Call("add", arguments)]))
    request = ModelRequest(REQUEST.messages, tools=(ADD,))
    last: Any = (
        [part async for part in model(OPENAI).stream(request)][-1] if stream else await model(OPENAI).request(request)
    )
    assert last.message.tool_calls[0].arguments == arguments


async def test_settings_and_keys_reach_the_server(server: LLMServer) -> None:
    settings = {"temperature": 0.2, "max_tokens": 50, "seed": 3, "stop": ["END"]}
    await model(OPENAI).request(ModelRequest(REQUEST.messages, settings=settings))
    body = server.requests[0].body
    assert {key: body[key] for key in settings} == settings
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_the_config_s_address_and_key_come_first(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    asked = model("my-own-model", api_base=server.openai_url, api_key=SecretStr("mine"))
    assert (await asked.request(REQUEST)).message.text == "echo: hello there"
    assert server.requests[0].body["model"] == "my-own-model"
    assert server.requests[0].headers["Authorization"] == "Bearer mine"


async def test_a_local_server_needs_no_key(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    for name in ("openai/whatever", ANTHROPIC):
        assert (await model(name).request(REQUEST)).message.text == "echo: hello there"


@pytest.mark.parametrize(
    ("name", "sent"), [(OPENAI, True), ("openai/unheard-of", True), ("openai/gpt-4", False), (OLLAMA, True)]
)
async def test_an_output_schema_is_sent_where_it_is_understood(server: LLMServer, name: str, sent: bool) -> None:
    server.replies.append(Reply('{"n": 1}'))
    response = await model(name).request(ModelRequest(REQUEST.messages, output_schema=SCHEMA))
    assert response.message.text == '{"n": 1}'
    body = server.requests[0].body
    assert (("response_format" in body) or ("format" in body)) is sent
    if sent and name != OLLAMA:
        assert body["response_format"]["json_schema"]["schema"] == SCHEMA
        assert body["response_format"]["json_schema"]["strict"] is False


async def test_a_closed_schema_is_strict(server: LLMServer) -> None:
    await model(OPENAI).request(ModelRequest(REQUEST.messages, output_schema={**SCHEMA, "additionalProperties": False}))
    assert server.requests[0].body["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize("stream", [False, True])
async def test_cost(server: LLMServer, stream: bool) -> None:
    async def cost(**config: Any) -> float | None:
        server.replies.append(Reply("hi", input_tokens=1000, output_tokens=100, cached_tokens=200))
        asked = model(**config)
        last: Any = [part async for part in asked.stream(REQUEST)][-1] if stream else await asked.request(REQUEST)
        assert last.usage.input_tokens == 1000
        return last.cost_usd

    assert await cost(name=OPENAI) == pytest.approx((800 * 0.15 + 200 * 0.075 + 100 * 0.6) / 1e6)
    assert await cost(name="openai/unheard-of") is None
    price = Price(input_per_mtok=1, output_per_mtok=2)
    assert await cost(name="openai/unheard-of", price=price) == pytest.approx(0.0012)
    assert await cost(name=ANTHROPIC) == pytest.approx((800 * 3 + 200 * 0.3 + 100 * 15) / 1e6)


@ALL
@pytest.mark.parametrize("stream", [False, True])
async def test_the_time_limit_is_kept_and_closes_the_request(server: LLMServer, name: str, stream: bool) -> None:
    await model(name).request(REQUEST)  # the first one also waits for the import
    server.answer = lambda request: Reply("one two three", hang=not stream, hang_after=1 if stream else None)
    for timeout_s in (0.2, 1, 5, 25):  # on a busy machine the shortest may be over before the request has left
        error = await failure(name, ModelRequest(REQUEST.messages, timeout_s=timeout_s), stream=stream)
        assert f"no answer within {timeout_s:g} s" in str(error)
        assert (error.status, error.retryable) == (None, True)
        if server.requests[1:]:
            break
    await asyncio.wait_for(server.requests[1].hung_up.wait(), 30)


@ALL
async def test_cancelling_a_request_hangs_up(server: LLMServer, name: str) -> None:
    server.replies.append(Reply(hang=True))
    asking = asyncio.create_task(model(name).request(REQUEST))
    await server.wait_for_requests(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(server.requests[0].hung_up.wait(), 30)


@ALL
async def test_leaving_a_stream_hangs_up(server: LLMServer, name: str) -> None:
    server.replies.append(Reply("one two three", hang_after=2))
    parts: Any = model(name).stream(REQUEST)
    assert isinstance(await anext(parts), TextDelta)
    await parts.aclose()
    await asyncio.wait_for(server.requests[0].hung_up.wait(), 30)


async def test_many_requests_at_once_share_the_session(server: LLMServer) -> None:
    server.answer = lambda request: Reply(f"for {request.last_text}", delay_s=0.05)
    asked = model("openai/x")
    answers = await asyncio.gather(
        *(asked.request(ModelRequest((Message.user(f"n{number}"),))) for number in range(60))
    )
    assert [answer.message.text for answer in answers] == [f"for n{number}" for number in range(60)]


async def test_no_task_of_litellm_stays_on_the_loop(server: LLMServer) -> None:
    before = asyncio.all_tasks()
    await model(OPENAI).request(REQUEST)
    [part async for part in model(OPENAI).stream(REQUEST)]
    server.replies.append(Reply(status=500))
    await failure(OPENAI)
    await close_clients()
    async with asyncio.timeout(30):
        while left := [task for task in asyncio.all_tasks() - before if "litellm" in repr(task)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert left == []


async def _one_round(names: list[str], *, close: bool) -> None:
    async with LLMServer() as server:
        for name in names:
            base = server.openai_url if name.startswith("openai") else server.url
            config = {"api_base": base, "api_key": SecretStr("k")}
            assert (await model(name, **config).request(REQUEST)).message.text == "echo: hello there"
            [part async for part in model(name, **config).stream(REQUEST)]
        if close:
            await close_clients()


@pytest.mark.parametrize("close", [False, True])
def test_several_loops_one_after_the_other_leave_nothing_open(
    close: bool, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    run: Callable[..., Any] = asyncio.run
    gc.collect()
    recwarn.clear()  # what other tests have left
    for _ in range(3):
        run(_one_round([OPENAI, ANTHROPIC, OLLAMA, GEMINI], close=close))
        gc.collect()
    left = [str(warning.message) for warning in recwarn if not issubclass(warning.category, DeprecationWarning)]
    assert left == []
    out, err = capfd.readouterr()
    assert out == ""
    assert "Unclosed" not in err
    assert "never" not in err


async def test_a_model_stays_usable_after_its_clients_were_closed(server: LLMServer) -> None:
    asked = model(OPENAI)
    for _ in range(2):
        assert (await asked.request(REQUEST)).message.text == "echo: hello there"
        await close_clients()


@ALL
async def test_an_exchange_with_tools_is_answered_without_them_on_offer(server: LLMServer, name: str) -> None:
    call = Message("assistant", (ToolCallPart("c1", "add", {"n": 1}),))
    answer = Message("tool", (ToolCallResponsePart("c1", "add", "1"),))
    asked = Message.user("Answer now.")
    server.replies.append(Reply("done"))
    response = await model(name).request(ModelRequest((*REQUEST.messages, call, answer, asked)))
    assert response.message.text == "done"
    assert "Answer now." in str(server.requests[0].body)
