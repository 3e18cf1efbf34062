"""Our own way to a model against `litellm.acompletion`: the same request on the wire, and the same answer or failure.

Every case asks twice, once each way, and compares. What goes litellm's way anyway is in here too: then this tests that
the provider works at all, and that it is known which way it goes.
"""

from __future__ import annotations

import dataclasses

import pytest
from exchanges import Case, config_of, exchange, is_ours, said, sent
from llm_server import Call as ToolCall
from llm_server import LLMServer, Reply
from providers import ADD, REQUEST, SCHEMA

from llmling.errors import ModelError
from llmling.messages import Message, TextPart, ToolCallPart, ToolCallResponsePart
from llmling.protocols import ModelRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")
OPENAI_FORMAT = (
    "openai/gpt-4o-mini", "mistral/mistral-small-latest", "groq/openai/gpt-oss-20b", "deepseek/deepseek-chat",
    "openrouter/openai/gpt-4o-mini",
)  # fmt: skip
OURS = (
    *OPENAI_FORMAT, "anthropic/claude-sonnet-4-5", "ollama/llama3.2", "gemini/gemini-2.5-flash", "azure/gpt-4o-mini",
    "bedrock/anthropic.claude-haiku-4-5-20251001-v1:0",
)  # fmt: skip
OTHERS = (
    "cerebras/llama3.1-8b", "custom_openai/m", "dashscope/qwen-max", "deepinfra/m", "github/gpt-4o-mini",
    "hosted_vllm/m", "hyperbolic/m", "llamafile/m", "lm_studio/m", "moonshot/kimi-k2", "nebius/m", "novita/m",
    "nvidia_nim/m", "vercel_ai_gateway/openai/gpt-4o", "volcengine/m", "zai/glm-4.6",
    "together_ai/Qwen/Qwen2.5-72B-Instruct-Turbo",
)  # fmt: skip
TOOLS = ModelRequest(REQUEST.messages, tools=(ADD,), settings={"temperature": 0.5, "max_tokens": 60})
TWO_TOOLS = ModelRequest(REQUEST.messages, tools=(ADD, dataclasses.replace(ADD, name="more")))
PAST = ModelRequest(
    (
        *REQUEST.messages,
        Message("assistant", (TextPart("Wait."), ToolCallPart("c1", "add", {"n": 1}), ToolCallPart("c2", "add", {}))),
        Message("tool", (ToolCallResponsePart("c1", "add", "1"), ToolCallResponsePart("c2", "add", "2"))),
        Message("assistant", (ToolCallPart("c3", "add", {"n": 3}),)),
        Message("tool", (ToolCallResponsePart("c3", "add", "3", failed=True),)),
        Message.assistant("Three."),
        Message.user("Again, größer."),
    ),
    tools=(ADD,),
)


CASES = {
    "text": Case(Reply("Hello to you.", usage_unasked=True)),
    "settings": Case(Reply("hi", usage_unasked=True), TOOLS),
    "past": Case(Reply("done", usage_unasked=True), PAST),
    "tool": Case(Reply("Let me see.", calls=[ToolCall("add", {"n": 1})], usage_unasked=True), TOOLS),
    "tools": Case(Reply(calls=[ToolCall("add", {"n": 1}), ToolCall("more", {})], usage_unasked=True), TWO_TOOLS),
    "schema": Case(Reply('{"n": 1}', usage_unasked=True), ModelRequest(REQUEST.messages, output_schema=SCHEMA)),
    "cached": Case(Reply("hi", input_tokens=1000, cached_tokens=400, output_tokens=30, usage_unasked=True)),
    "uncounted": Case(Reply("hi there")),
    "400": Case(Reply("max_tokens is too large", status=400), fails=True),
    "401": Case(Reply("Incorrect API key provided", status=401), fails=True),
    "429": Case(Reply("slow down", status=429, retry_after="7"), fails=True),
    "500": Case(Reply("out of order", status=500), fails=True),
    "no JSON": Case(Reply(raw="<html>gateway</html>"), fails=True),
    "cut": Case(Reply("one two three four", cut=True), fails=True),
}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION_NAME"):
        monkeypatch.setenv(variable, "us-east-1")
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")
    monkeypatch.setenv("OPENAI_ORGANIZATION", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("what", "stream"),
    [(what, stream) for what in CASES for stream in (False, True) if not (stream and what == "no JSON")],
)
@pytest.mark.parametrize("name", OURS)
async def test_both_ways_say_the_same(shared: LLMServer, name: str, what: str, stream: bool) -> None:
    case, config = CASES[what], config_of(shared, name)
    ours = await exchange(shared, config, case, ours=True, stream=stream)
    theirs = await exchange(shared, config, case, ours=False, stream=stream)
    # Where litellm asks for a tool and reads it as the answer, in the place of a schema.
    own_way = not (what == "schema" and name.startswith(("anthropic", "bedrock", "groq")))
    assert (is_ours(ours), is_ours(theirs)) == (own_way, False)
    assert sent(ours) == sent(theirs)
    if what == "no JSON" and name.startswith(("bedrock", "gemini")):
        # Here litellm makes up a status 422, as if the request were at fault; to us it is as it is with all others.
        assert isinstance(ours.said, ModelError)
        assert (ours.said.status, ours.said.retryable) == (None, True)
        return
    worded = case.fails and what.isdigit()
    assert said(ours, in_its_words=worded) == said(theirs, in_its_words=worded)
    assert isinstance(ours.said, ModelError) is case.fails


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", ["text", "tools"])
@pytest.mark.parametrize("name", OTHERS)
async def test_others_that_write_openai_s_format(shared: LLMServer, name: str, what: str, stream: bool) -> None:
    case, config = CASES[what], config_of(shared, name)
    ours = await exchange(shared, config, case, ours=True, stream=stream)
    theirs = await exchange(shared, config, case, ours=False, stream=stream)
    assert (is_ours(ours), is_ours(theirs)) == (True, False)
    assert sent(ours) == sent(theirs)
    assert said(ours, in_its_words=False) == said(theirs, in_its_words=False)
