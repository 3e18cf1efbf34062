"""Models through litellm: what fails, how it is told, and whether it may be asked for again."""

from __future__ import annotations

import pytest
from llm_server import LLMServer, Reply
from providers import ALL, ANTHROPIC, GEMINI, KEY, OLLAMA, OPENAI, failure
from serving import free_port

STATUSES = (400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 529)
EVERYWHERE = (400, 401, 429, 529)


@pytest.mark.parametrize(
    ("name", "stream", "status"),
    [
        *((OPENAI, False, status) for status in STATUSES),
        *((ANTHROPIC, True, status) for status in STATUSES),
        *((name, stream, status) for name in (OLLAMA, GEMINI) for stream in (False, True) for status in EVERYWHERE),
    ],
)
async def test_the_status_decides(server: LLMServer, name: str, stream: bool, status: int) -> None:
    retryable = status in {408, 409, 425, 429} or status >= 500
    # The wording points the other way each time: it must not matter.
    wording = "rate limit 429 overloaded" if not retryable else "invalid api key, context length exceeded"
    server.replies.append(Reply(wording, status=status, retry_after="7"))
    error = await failure(name, stream=stream)
    assert (error.status, error.retryable, error.attempts) == (status, retryable, 1)
    assert error.retry_after_s == 7.0
    assert error.provider
    assert name in str(error)
    assert wording in str(error)
    assert len(server.requests) == 1


@ALL
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_cut_in_the_middle_may_be_asked_for_again(server: LLMServer, name: str, stream: bool) -> None:
    server.replies.append(Reply("one two three four", cut=True))
    error = await failure(name, stream=stream)
    assert (error.status, error.retryable, error.attempts) == (None, True, 1)
    assert len(server.requests) == 1


@ALL
async def test_a_stream_that_ends_without_a_finish_is_not_an_answer(server: LLMServer, name: str) -> None:
    server.replies.append(Reply("one two three four", unfinished=True))
    error = await failure(name, stream=True)
    # litellm notices it itself from 1.110 on, in its own words.
    assert "ended before" in str(error)
    assert error.retryable


async def test_an_answer_that_is_no_json_may_be_asked_for_again(server: LLMServer) -> None:
    server.replies.append(Reply(raw="<html>gateway</html>"))
    assert (await failure(OPENAI)).retryable


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_connection_may_be_asked_for_again(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    error = await failure("openai/x", stream=stream)
    assert (error.status, error.retryable) == (None, True)
    assert address in str(error)


async def test_a_missing_key_is_named_and_nothing_is_asked(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    error = await failure(OPENAI)
    assert "OPENAI_API_KEY" in str(error)
    assert (error.retryable, error.attempts) == (False, 0)


async def test_an_unknown_provider_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name in ("nobody-knows-this", "nobody/knows"):
        error = await failure(name)
        assert f"model {name!r} names no provider that is known" in str(error)
        assert not error.retryable


async def test_a_key_never_shows_in_an_error(server: LLMServer) -> None:
    server.replies.append(Reply(f"Incorrect API key provided: {KEY}", status=401))
    error = await failure(OPENAI)
    assert KEY not in str(error)
    assert "***" in str(error)


TOO_LONG: list[tuple[str, int, str]] = [
    (
        OPENAI,
        400,
        (
            '{"error": {"message": "Your input is too big.", "type": "invalid_request_error", "param": "messages",'
            ' "code": "context_length_exceeded"}}'
        ),
    ),
    (
        ANTHROPIC,
        400,
        (
            '{"type": "error", "error": {"type": "invalid_request_error",'
            ' "message": "prompt is too long: 210030 tokens > 200000 maximum"}}'
        ),
    ),
    (
        GEMINI,
        400,
        (
            '{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token count (1196265) exceeds'
            ' the maximum number of tokens allowed (1048576)."}}'
        ),
    ),
    (OLLAMA, 400, '{"error": "the input length exceeds the context length"}'),
    (
        OPENAI,
        400,
        (
            '{"error": {"code": 400, "message": "the request exceeds the available context size",'
            ' "type": "exceed_context_size_error", "n_prompt_tokens": 14429, "n_ctx": 8192}}'
        ),
    ),
    (
        OPENAI,
        400,
        '{"object": "error", "message": "The maximum context length is 8192 tokens.", "code": 400}',
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "status", "body"), TOO_LONG)
async def test_an_exchange_that_is_too_long_is_marked(
    server: LLMServer, name: str, status: int, body: str, stream: bool
) -> None:
    server.replies.append(Reply(status=status, raw=body))
    error = await failure(name, stream=stream)
    assert (error.too_long, error.status, error.retryable, error.attempts) == (True, status, False, 1)
    assert len(server.paths) == 1


@ALL
async def test_other_refusals_are_not_taken_for_too_long(server: LLMServer, name: str) -> None:
    server.replies += [Reply("max_tokens is too large", status=400), Reply("prompt is too long", status=429)]
    assert not (await failure(name)).too_long
    assert not (await failure(name)).too_long
