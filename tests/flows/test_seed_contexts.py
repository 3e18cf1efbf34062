"""The page of seed 000, snippet by snippet as it is printed but for its imports, against real wire formats."""

from __future__ import annotations

import asyncio

from llm_server import LLMServer, Reply

from llmling import Context, Directive, Guidance, get_tracer
from llmling.errors import ModelError
from llmling.prompts.library import RiskAssessor, RootCauseAnalyzer


async def test_basic_usage(server: LLMServer) -> None:
    ctx = Context(
        guidance=Guidance(
            role="Senior data analyst",
            goal="Identify revenue anomalies",
        ),
        directive=Directive("Analyze Q3 revenue: revenue dropped 18% in APAC."),
    )
    result = await ctx.aexecute(provider="openai", model="gpt-4o-mini")
    assert result.response == "echo: Analyze Q3 revenue: revenue dropped 18% in APAC."
    assert f"Tokens: {result.tokens_used} | Model: {result.model}" == "Tokens: 18 | Model: openai/gpt-4o-mini"


async def parallel_analysis(problem: str) -> dict[str, str]:
    ctx_root_cause = RootCauseAnalyzer().build_context(problem=problem, depth="thorough")
    ctx_risk = RiskAssessor().build_context(decision=problem, depth="comprehensive")
    ctx_summary = Context(
        guidance=Guidance(role="Executive analyst"),
        directive=Directive(f"Give a 3-sentence executive summary of: {problem}"),
    )

    root_cause, risk, summary = await asyncio.gather(
        ctx_root_cause.aexecute(provider="openai"),
        ctx_risk.aexecute(provider="openai"),
        ctx_summary.aexecute(provider="anthropic"),
    )

    return {
        "root_cause": root_cause.response,
        "risk": risk.response,
        "summary": summary.response,
    }


async def test_concurrent_executions_are_all_in_flight_at_once(server: LLMServer) -> None:
    gate = asyncio.Event()
    server.answer = lambda request: Reply(request.last_text, gate=gate)
    analysis = asyncio.create_task(parallel_analysis("Churn doubled."))
    await server.wait_for_requests(3, 60)
    gate.set()
    answers = await analysis
    assert sorted(request.wire for request in server.requests) == ["anthropic", "openai", "openai"]
    assert "<problem>\nChurn doubled.\n</problem>" in answers["root_cause"]
    assert "<decision>\nChurn doubled.\n</decision>" in answers["risk"]
    assert answers["summary"] == "Give a 3-sentence executive summary of: Churn doubled."


async def test_streaming_and_provider_configuration(server: LLMServer) -> None:
    ctx = Context(directive=Directive("Say it."))
    result = await ctx.aexecute(
        provider="openai",
        model="gpt-4o",
        stream=True,
    )
    assert result.response == "echo: Say it."
    result = await ctx.aexecute(
        provider="openai",
        model="gpt-4o",
        temperature=0.2,
        max_tokens=2048,
        api_key="sk-...",  # override env var
    )
    result = await ctx.aexecute(provider="anthropic", model="claude-3-5-sonnet-20241022")
    result = await ctx.aexecute(provider="google", model="gemini-1.5-pro")
    assert result.model == "gemini/gemini-1.5-pro"
    streamed, configured, anthropic, google = server.requests
    assert streamed.stream
    assert (configured.body["temperature"], configured.body["max_tokens"]) == (0.2, 2048)
    assert configured.headers["Authorization"] == "Bearer sk-..."
    assert anthropic.body["model"] == "claude-3-5-sonnet-20241022"
    assert "gemini-1.5-pro" in google.path


async def test_error_handling(server: LLMServer) -> None:
    caught: list[Exception] = []

    async def safe_execute(ctx: Context) -> str | None:
        try:
            result = await ctx.aexecute(provider="openai")
            return result.response
        except Exception as exc:  # noqa: BLE001 - as the page has it
            caught.append(exc)
            return None

    server.replies.append(Reply(status=401))
    assert await safe_execute(Context(directive=Directive("Say it."))) is None
    assert [(type(error), getattr(error, "status", None)) for error in caught] == [(ModelError, 401)]
    assert len(server.requests) == 1


async def test_how_it_works(server: LLMServer) -> None:
    ctx = Context(directive=Directive("Say it."))
    result = await ctx.aexecute(provider="openai")

    spans = get_tracer().get_spans()
    metadata = spans[-1].metadata
    assert metadata["model"] == "gpt-4o-mini"
    assert metadata["tokens"] == result.tokens_used == 18
    assert metadata["cost_usd"] == result.cost_usd
    assert metadata["latency_ms"] > 0


async def test_contexts_are_gathered(server: LLMServer) -> None:
    contexts = [Context(directive=Directive(f"Say {number}.")) for number in range(20)]
    results = await asyncio.gather(*[ctx.aexecute("openai") for ctx in contexts])
    assert [result.response for result in results] == [f"echo: Say {number}." for number in range(20)]
