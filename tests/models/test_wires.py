"""What the three formats of their own have beside what all have: read as litellm reads it, and asked as it asks."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from typing import Any

import pytest
from exchanges import Case, config_of, exchange, is_ours, said, sent
from llm_server import Call, LLMServer, Reply
from llm_wire_bedrock import frame
from providers import ADD, ANTHROPIC, GEMINI, OPENAI, REQUEST, failure, model

from llmling.errors import ModelError
from llmling.models.frames import Frames
from llmling.protocols import ModelRequest, ModelResponse

on_one_loop = pytest.mark.asyncio(loop_scope="module")
AZURE = "azure/gpt-4o-mini"
BEDROCK = "bedrock/anthropic.claude-haiku-4-5-20251001-v1:0"
ASKED = ModelRequest(REQUEST.messages, tools=(ADD,))
CALL = {"functionCall": {"name": "add", "args": {"n": 1}}}
COUNTED: dict[str, Any] = {"promptTokenCount": 1000, "candidatesTokenCount": 50, "totalTokenCount": 1050}
TEXT = [{"modality": "TEXT", "tokenCount": 1000}]
SOUND = [{"modality": "TEXT", "tokenCount": 400}, {"modality": "AUDIO", "tokenCount": 600}]


def candidate(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, "index": 0, **more}


def gemini(*candidates: dict[str, Any], usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"candidates": list(candidates), "usageMetadata": COUNTED if usage is None else usage, **more}


GEMINIS: dict[str, dict[str, Any]] = {
    "thoughts": gemini(
        candidate(
            {"text": "hm", "thought": True},
            {"text": "Yes.", "thoughtSignature": "c2ln"},
            {**CALL, "thoughtSignature": "bW9yZQ=="},
        ),
        usage={**COUNTED, "thoughtsTokenCount": 70, "totalTokenCount": 1120, "promptTokensDetails": TEXT},
    ),
    "thoughts within": gemini(candidate({"text": "Yes."}), usage={**COUNTED, "thoughtsTokenCount": 20}),
    "ids": gemini(candidate({"functionCall": {"name": "add", "args": {"n": 1}, "id": "native"}})),
    "length": gemini(candidate({"text": "Yes, b"}, finish="MAX_TOKENS")),
    "flagged": gemini(candidate({"text": "no"}, finish="SAFETY")),
    "blocked": {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": COUNTED},
    "sound": gemini(candidate({"text": "I hear."}), usage={**COUNTED, "promptTokensDetails": SOUND}),
    "picture": gemini(candidate({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, {"text": "There."})),
    "searched": gemini(candidate({"text": "Found."}, groundingMetadata={"webSearchQueries": ["a", "b"]})),
    "cached": gemini(candidate({"text": "hi"}), usage={**COUNTED, "cachedContentTokenCount": 800}),
}
BEDROCKS: dict[str, dict[str, Any]] = {
    "thoughts": {
        "output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}, {"text": "Yes."},
        ]}},
        "stopReason": "end_turn",
    },
    "aloud": {"output": {"message": {"content": [{"text": "<think>hm</think>Yes."}]}}, "stopReason": "end_turn"},
    "call as text": {
        "output": {"message": {"content": [
            {"text": '{"type": "function", "name": "add", "parameters": {"n": 1}}'}
        ]}},
        "stopReason": "end_turn",
    },
    "length": {"output": {"message": {"content": [{"text": "Yes, b"}]}}, "stopReason": "max_tokens"},
    "guarded": {"output": {"message": {"content": [{"text": "No."}]}}, "stopReason": "guardrail_intervened"},
    "unknown": {"output": {"message": {"content": [{"text": "Yes."}]}}, "stopReason": "tired"},
}  # fmt: skip
USAGES: dict[str, dict[str, Any]] = {
    "plain": {"inputTokens": 1000, "outputTokens": 50, "totalTokens": 1050},
    "cache": {
        "inputTokens": 100, "outputTokens": 50, "totalTokens": 1250, "cacheReadInputTokens": 800,
        "cacheWriteInputTokens": 300,
    },
}  # fmt: skip


async def compared(server: LLMServer, name: str, raw: str | bytes, *, stream: bool) -> ModelResponse | ModelError:
    case = Case(Reply(raw=raw), ASKED)
    ours = await exchange(server, config_of(server, name), case, ours=True, stream=stream)
    theirs = await exchange(server, config_of(server, name), case, ours=False, stream=stream)
    assert (is_ours(ours), is_ours(theirs)) == (True, False)
    assert sent(ours) == sent(theirs)
    assert said(ours, in_its_words=False) == said(theirs, in_its_words=False)
    return ours.said


@pytest.fixture(autouse=True)
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION_NAME", "eu-central-1")
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", GEMINIS)
@on_one_loop
async def test_what_gemini_says(shared: LLMServer, what: str, stream: bool) -> None:
    body = json.dumps(GEMINIS[what])
    assert isinstance(
        await compared(shared, GEMINI, f"data: {body}\n\n" if stream else body, stream=stream), ModelResponse
    )


@on_one_loop
async def test_what_is_unusual_in_the_middle_of_gemini_s_stream(shared: LLMServer) -> None:
    usages = [{**COUNTED, "candidatesTokenCount": n} for n in (1, 2, 3)]
    pieces = [
        gemini(candidate(CALL, finish=None), usage=usages[0]),
        gemini(candidate({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, finish=None), usage=usages[1]),
        gemini(candidate({"functionCall": {"name": "add", "args": {"n": 2}}}), usage=usages[2]),
    ]
    said = await compared(shared, GEMINI, "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces), stream=True)
    assert isinstance(said, ModelResponse)
    assert [call.arguments for call in said.message.tool_calls] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize("what", BEDROCKS)
@on_one_loop
async def test_what_converse_says(shared: LLMServer, what: str, usage: str) -> None:
    body = {**BEDROCKS[what], "usage": USAGES[usage], "metrics": {"latencyMs": 1}}
    assert isinstance(await compared(shared, BEDROCK, json.dumps(body), stream=False), ModelResponse)


@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "tired"])
@pytest.mark.parametrize("thoughts", [False, True])
@on_one_loop
async def test_what_converse_streams(shared: LLMServer, thoughts: bool, reason: str, usage: str) -> None:
    place = int(thoughts)
    thought = [
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": delta}})
        for delta in ({"text": "hm"}, {"signature": "s"})
    ]
    frames = [
        frame("messageStart", {"role": "assistant"}),
        *(thought if thoughts else ()),
        frame(
            "contentBlockStart", {"contentBlockIndex": place, "start": {"toolUse": {"toolUseId": "t", "name": "add"}}}
        ),
        frame("contentBlockDelta", {"contentBlockIndex": place, "delta": {"toolUse": {"input": '{"n": 1}'}}}),
        frame("contentBlockStop", {"contentBlockIndex": place}),
        frame("contentBlockDelta", {"contentBlockIndex": place + 1, "delta": {"text": "Yes."}}),
        frame("messageStop", {"stopReason": reason}),
        frame("metadata", {"usage": USAGES[usage], "metrics": {"latencyMs": 1}}),
    ]
    assert isinstance(await compared(shared, BEDROCK, b"".join(frames), stream=True), ModelResponse)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        (GEMINI, 'data: {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "too much"}}\n\n'),
        (GEMINI, 'data: {"error": {"code": 503, "status": "UNAVAILABLE", "message": "too much"}}\n\n'),
        (BEDROCK, frame("throttlingException", {"message": "too much"}, "exception")),
        (BEDROCK, frame("internalServerException", {"message": "too much"}, "exception")),
        (BEDROCK, frame("validationException", {"message": "too much"})),
        (BEDROCK, frame("messageStart", {"role": "assistant"})[:-9]),
    ],
)
@on_one_loop
async def test_a_failure_inside_a_stream_is_the_same(shared: LLMServer, name: str, raw: str | bytes) -> None:
    assert isinstance(await compared(shared, name, raw, stream=True), ModelError)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", ["v1", "2024-10-21"])
@on_one_loop
async def test_both_interfaces_of_azure(
    shared: LLMServer, monkeypatch: pytest.MonkeyPatch, version: str, stream: bool
) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", version)
    config = config_of(shared, AZURE)
    case = Case(Reply("hi", usage_unasked=True), ASKED)
    if version == "v1":
        config = config.model_copy(update={"api_base": f"{shared.url}/openai/v1"})
    ours = await exchange(shared, config, case, ours=True, stream=stream)
    theirs = await exchange(shared, config, case, ours=False, stream=stream)
    assert (is_ours(ours), sent(ours)) == (True, sent(theirs))
    assert said(ours, in_its_words=False) == said(theirs, in_its_words=False)


@pytest.mark.parametrize("stream", [False, True])
@on_one_loop
async def test_what_has_another_way_goes_litellm_s(
    shared: LLMServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setenv("AZURE_AD_TOKEN", "an-entra-token")
    asked = await exchange(shared, config_of(shared, "azure/o3-mini"), Case(Reply("hi")), ours=True, stream=stream)
    assert not is_ours(asked)
    many = ModelRequest(REQUEST.messages, settings={"max_tokens": 100_000})
    asked = await exchange(shared, config_of(shared, GEMINI), Case(Reply("hi"), many), ours=True, stream=stream)
    assert not is_ours(asked)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("token", [None, "a-session"])
async def test_requests_to_bedrock_are_signed_as_botocore_signs(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, token: str | None, stream: bool
) -> None:
    for variable, value in (
        ("AWS_BEDROCK_RUNTIME_ENDPOINT", server.url),
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", token),
    ):
        monkeypatch.setenv(variable, value) if value else monkeypatch.delenv(variable, raising=False)
    asked = model(BEDROCK)
    if stream:
        assert [part async for part in asked.stream(ASKED)]
    else:
        assert (await asked.request(ASKED)).message.text
    (request,) = server.requests
    assert request.headers["User-Agent"] == "llmling"
    assert request.headers.get("X-Amz-Security-Token") == token
    credentials = importlib.import_module("botocore.credentials").Credentials("AKID", "secret", token)
    signer = importlib.import_module("botocore.auth").SigV4Auth(credentials, "bedrock", "eu-central-1")
    again = importlib.import_module("botocore.awsrequest").AWSRequest(
        "POST", server.url + request.path, {"Content-Type": "application/json"}, json.dumps(request.body)
    )
    again.context["timestamp"] = request.headers["X-Amz-Date"]
    again.headers["X-Amz-Date"] = request.headers["X-Amz-Date"]
    if token:
        again.headers["X-Amz-Security-Token"] = token
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    assert request.headers["Authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "own"), [(ANTHROPIC, False), (BEDROCK, False), (GEMINI, True), (AZURE, True), (OPENAI, True)]
)
@on_one_loop
async def test_a_tool_whose_name_a_provider_does_not_take_has_its_name_in_the_answer(
    shared: LLMServer, name: str, own: bool, stream: bool
) -> None:
    named = replace(ADD, name="files.add")
    said_so = "files_add" if name in {ANTHROPIC, BEDROCK} else "files.add"
    case = Case(
        Reply(calls=[Call(said_so, {"n": 1})], usage_unasked=True), ModelRequest(REQUEST.messages, tools=(named,))
    )
    ours = await exchange(shared, config_of(shared, name), case, ours=True, stream=stream)
    theirs = await exchange(shared, config_of(shared, name), case, ours=False, stream=stream)
    assert (is_ours(ours), sent(ours)) == (own, sent(theirs))
    assert said(ours, in_its_words=False) == said(theirs, in_its_words=False)
    assert isinstance(ours.said, ModelResponse)
    assert [call.name for call in ours.said.message.tool_calls] == ["files.add"]


async def test_a_thought_another_server_has_signed_is_asked_again_by_litellm(server: LLMServer) -> None:
    server.replies += [Reply("Corrupted thought signature.", status=400)] * 2
    assert (await failure(GEMINI)).status == 400
    assert [request.headers["User-Agent"] == "llmling" for request in server.requests] == [True, False]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_limit_too_small_for_a_word_is_an_empty_answer(server: LLMServer, stream: bool) -> None:
    words = "Could not finish the message because max_tokens or model output limit was reached."
    server.replies += [Reply(words, status=400)] * 2
    asked = model("openai/gpt-4o-mini")
    said = [part async for part in asked.stream(REQUEST)][-1] if stream else await asked.request(REQUEST)
    assert isinstance(said, ModelResponse)
    assert (said.message.text, said.finish_reason) == ("", "length")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_are_read_however_they_are_cut(size: int) -> None:
    body = frame("messageStart", {"role": "assistant"}) + frame("metadata", {"größe": 1})
    frames = Frames()
    found = [value for at in range(0, len(body), size) for value in frames.feed(body[at : at + size])]
    assert [*found, *frames.close()] == [{"role": "assistant"}, {"größe": 1}]


@pytest.mark.parametrize("at", [0, 9, 30, -1])
def test_a_frame_that_is_not_what_was_sent_is_told(at: int) -> None:
    body = bytearray(frame("messageStart", {"role": "assistant"}))
    body[at] ^= 0x40
    with pytest.raises(ValueError, match="frame"):
        list(Frames().feed(bytes(body)))
