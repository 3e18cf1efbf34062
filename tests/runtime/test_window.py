"""The context window of a run: what is left out, what never is, what the model and the listener are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmling import Agent, Message
from llmling.errors import LimitExceeded, ManifestError, ModelError
from llmling.messages import TextPart, ToolCallPart, ToolCallResponsePart, Usage
from llmling.protocols import ModelRequest, ModelResponse
from llmling.runtime.stream import RunEvent
from llmling.testing import ScriptedModel

QUESTION = "Which of the pages names the culprit?"
SYSTEM = "You are a detective."
WINDOW = 2000


def read(page: int) -> str:
    """Read a page of the report."""
    return f"page {page}: " + f"the butler of house {page} saw nothing. " * 25


def size(request: ModelRequest, characters_per_token: float = 4.0) -> int:
    """Return the tokens of a request as a provider counts them."""
    characters = sum(len(tool.name) + len(tool.description) + len(str(tool.parameters)) for tool in request.tools)
    for message in request.messages:
        for part in message.parts:
            match part:
                case TextPart(content):
                    characters += len(content)
                case ToolCallPart():
                    characters += len(part.name) + len(part.arguments_json())
                case ToolCallResponsePart():
                    characters += len(part.response)
    return round(characters / characters_per_token)


def calls(*pages: int) -> Message:
    return Message("assistant", tuple(ToolCallPart(f"c{page}", "read", {"page": page}) for page in pages))


def counting(characters_per_token: float, *replies: Message | str) -> ScriptedModel:
    """Return a model that counts tokens like that; its summaries are short."""
    left = list(replies)

    def answer(request: ModelRequest) -> ModelResponse:
        summary = request.messages[0].text.startswith("Part of a conversation")
        reply = "Nobody saw anything so far." if summary else left.pop(0)
        message = Message.assistant(reply) if isinstance(reply, str) else reply
        used = Usage(size(request, characters_per_token), 5, requests=1)
        return ModelResponse(message, used, "m", cost_usd=0.01)

    return ScriptedModel(answer)


def assert_well_formed(request: ModelRequest) -> None:
    """Assert that every tool result follows its call, and that no call is without its results."""
    for before, message in zip((None, *request.messages), request.messages, strict=False):
        if message.role == "tool":
            assert before is not None
            answered = [part.id for part in message.parts if isinstance(part, ToolCallResponsePart)]
            assert [call.id for call in before.tool_calls] == answered
        elif before is not None:
            assert not before.tool_calls
    assert not request.messages[-1].tool_calls


def text_of(request: ModelRequest) -> str:
    """Return everything that is said in a request."""
    parts = [part for message in request.messages for part in message.parts]
    return "\n".join(
        part.content
        if isinstance(part, TextPart)
        else part.response
        if isinstance(part, ToolCallResponsePart)
        else part.arguments_json()
        for part in parts
    )


async def events_of(agent: Agent[Any], prompt: str) -> list[RunEvent]:
    async with agent.run_stream(prompt) as stream:
        return [event async for event in stream]


def compacted(events: list[RunEvent]) -> list[RunEvent]:
    return [event for event in events if event.type == "compacted"]


@pytest.mark.parametrize("strategy", ["shorten", "summarise"])
@pytest.mark.parametrize("characters_per_token", [4.5, 3.0, 2.4])
async def test_every_request_stays_within_the_window(strategy: str, characters_per_token: float) -> None:
    turns = [calls(page) if page % 3 else calls(page, page + 100) for page in range(1, 16)]
    model = counting(characters_per_token, *turns, "The butler of house 7.")
    window = {"window_tokens": WINDOW, "strategy": strategy}
    agent = Agent("a", model=model, instructions=SYSTEM, tools=[read], context=window, limits={"max_iterations": 30})
    events = await events_of(agent, QUESTION)
    assert all(size(request, characters_per_token) <= WINDOW for request in model.requests)
    asked = [request for request in model.requests if request.tools]
    assert len(asked) == 16
    for request in asked:
        assert_well_formed(request)
        assert request.messages[0] == Message.system(SYSTEM)
        assert request.messages[1].text.startswith(QUESTION)
    told = compacted(events)
    assert told
    assert all(event.data["after_tokens"] < event.data["before_tokens"] for event in told)
    assert "Left out to fit the context window" in text_of(asked[-1])
    result = events[-1].result
    assert result is not None
    # The exchange is kept as it happened.
    assert [message.role for message in result.messages] == ["system", "user", *["assistant", "tool"] * 15, "assistant"]
    assert read(1) in str(result.messages[3].parts)
    assert result.usage.requests == len(model.requests)


@pytest.mark.parametrize("strategy", ["shorten", "summarise"])
async def test_plans_and_the_last_turn_stay_within_the_window_too(strategy: str) -> None:
    left = [calls(page) for page in range(1, 13)]

    def answer(request: ModelRequest) -> Any:
        asked = request.messages[-1].text
        if request.tools:
            reply: Any = left.pop(0)
        elif asked.startswith("Do not answer yet"):
            reply = "1. Go on reading. " * 100
        else:
            reply = "Nobody, so far." if "no tool can be called" in asked else "Nobody yet. " * 100
        return reply

    model = ScriptedModel(answer)
    agent = Agent(
        "a", model=model, instructions=SYSTEM, tools=[read], plan={"every": 2}, limits={"max_iterations": 12},
        context={"window_tokens": WINDOW, "strategy": strategy},
    )  # fmt: skip
    result = await agent.run(QUESTION)
    assert (result.content, result.stop_reason) == ("Nobody, so far.", "max_iterations")
    assert [size(request) for request in model.requests if size(request) > WINDOW] == []
    for request in model.requests:
        assert_well_formed(request)
        assert request.messages[0].text.startswith((SYSTEM, "Part of a conversation"))
    assert model.requests[-1].messages[1].text.startswith(QUESTION)
    assert "1. Go on reading." in model.requests[-1].messages[1].text


async def test_old_tool_results_are_cut_before_anything_is_left_out() -> None:
    model = counting(4, *(calls(page) for page in range(1, 6)), "Nobody.")
    agent = Agent("a", model=model, tools=[read], context={"window_tokens": 1500})
    events = await events_of(agent, QUESTION)
    (event,) = compacted(events)
    assert (event.data["dropped_turns"], event.data["dropped_groups"]) == (0, 0)
    assert event.data["reason"] == "window"
    assert event.data["cut_results"] >= 2
    assert "message" in event.to_dict()
    last = model.requests[-1]
    assert read(1)[:200] in text_of(last)
    assert read(1)[:201] not in text_of(last)
    assert f"[cut to fit the context window: the first 200 of {len(read(1)):,} characters]" in text_of(last)
    assert "Left out" not in text_of(last)
    assert read(5) in text_of(last)


async def test_without_context_nothing_is_left_out() -> None:
    model = counting(4, *(calls(page) for page in range(1, 15)), "Nobody.")
    assert compacted(await events_of(Agent("a", model=model, tools=[read]), QUESTION)) == []
    assert all(read(page) in text_of(model.requests[-1]) for page in range(1, 15))


async def test_a_single_result_larger_than_the_window_is_cut_to_fit() -> None:
    def whole() -> str:
        """Read everything."""
        return "x" * 50_000

    asked = Message("assistant", (ToolCallPart("c", "whole", {}),))
    model = counting(4, asked, "Too long for me.")
    await Agent("a", model=model, tools=[whole], context={"window_tokens": WINDOW}).run(QUESTION)
    assert size(model.requests[1]) <= WINDOW
    assert_well_formed(model.requests[1])
    assert "of 50,000 characters]" in text_of(model.requests[1])
    assert text_of(model.requests[1]).count("x") > 1000


async def test_arguments_larger_than_the_window_are_left_out_with_their_results() -> None:
    huge = Message("assistant", (ToolCallPart("c", "read", {"page": 1, "why": "y" * 20_000}),))
    model = counting(4, huge, "Done.")
    await Agent("a", model=model, tools=[read], context={"window_tokens": WINDOW}).run(QUESTION)
    assert size(model.requests[1]) <= WINDOW
    assert [message.role for message in model.requests[1].messages] == ["user"]
    assert "1 earlier tool call (read)" in model.requests[1].messages[0].text


async def test_a_question_larger_than_the_window_is_refused_by_name() -> None:
    model = counting(4, "never")
    agent = Agent("a", model=model, context={"window_tokens": 100})
    with pytest.raises(LimitExceeded, match=r"window has 100: raise context\.window_tokens"):
        await agent.run("word " * 500)
    assert model.requests == []


async def test_a_long_question_does_not_cost_the_run_its_memory() -> None:
    model = counting(4, *(calls(page) for page in range(1, 6)), "Nobody.")
    agent = Agent("a", model=model, tools=[read], context={"window_tokens": 4000})
    await agent.run(QUESTION + " and who " * 950)
    assert all(size(request) <= 4000 for request in model.requests)
    assert read(4) in text_of(model.requests[-1])


@pytest.mark.parametrize("strategy", ["shorten", "summarise"])
async def test_old_turns_of_a_session_go_whole_and_the_session_keeps_them(strategy: str) -> None:
    replies = [f"answer {number} " + "blah " * 100 for number in range(20)]
    model = counting(4, *replies)
    chat = Agent("a", model=model, context={"window_tokens": 1000, "strategy": strategy}).session("s")
    for number in range(20):
        await chat.run(f"question {number}")
    assert all(size(request) <= 1000 for request in model.requests)
    asked = [request for request in model.requests if request.messages[-1].text.startswith("question")]
    for number, request in enumerate(asked):
        assert [message.role for message in request.messages][::2] == ["user"] * (len(request.messages) // 2 + 1)
        assert request.messages[-1].text.startswith(f"question {number}")
    assert "earlier turn" in asked[-1].messages[-1].text
    assert ("Nobody saw anything" in asked[-1].messages[-1].text) == (strategy == "summarise")
    assert len(chat.messages) == 40
    assert all("Left out" not in message.text for message in chat.messages)


async def test_a_session_pays_once_for_the_summary_of_a_turn() -> None:
    model = counting(4, *(f"answer {number} " + "blah " * 60 for number in range(40)))
    chat = Agent("a", model=model, context={"window_tokens": 1000, "strategy": "summarise"}).session("s")
    for number in range(40):
        await chat.run(f"question {number}")
    summaries = [
        request.messages[0].text for request in model.requests if "question" not in request.messages[-1].text[:9]
    ]
    # After each one there is room for a few turns; the next one takes the last one up and no turn twice.
    assert 3 <= len(summaries) <= 15
    told = [text.count("user: question") for text in summaries]
    assert sum(told) <= 40
    assert all(("Summary so far" in text) == (place > 0) for place, text in enumerate(summaries))
    assert all(size(request) <= 1000 for request in model.requests)
    fork = chat.fork()
    before = len(model.requests)
    with pytest.raises(IndexError):  # out of replies
        await fork.run("question 40")
    assert len(model.requests) == before + 1


async def test_a_summary_is_one_request_without_tools_that_counts() -> None:
    model = counting(4, *(calls(page) for page in range(1, 12)), "Nobody.")
    window = {"window_tokens": 1500, "strategy": "summarise"}
    model_said: list[str] = []

    class Seeing:
        def before_model(self, request: ModelRequest, _run: object) -> None:
            model_said.append(request.messages[-1].text)

    agent = Agent("a", model=model, tools=[read], context=window, hooks=[Seeing()])
    events = await events_of(agent, QUESTION)
    summaries = [request for request in model.requests if not request.tools]
    assert len(summaries) == len([event for event in compacted(events) if event.data["summarised"]]) > 0
    assert "read answered: page 1:" in summaries[0].messages[0].text
    assert summaries[0].output_schema is None
    result = events[-1].result
    assert result is not None
    assert result.cost_usd == pytest.approx(0.01 * len(model.requests))
    assert result.usage.requests == len(model.requests) == len(model_said)
    assert "".join(event.text for event in events) == "Nobody."
    assert "A summary of what was left out:\nNobody saw anything so far." in text_of(model.requests[-1])
    assert "Summary so far: Nobody saw anything" in summaries[-1].messages[0].text
    purposes = [event.data["purpose"] for event in events if event.type == "model_request"]
    assert purposes.count("summary") == len(summaries)


async def test_a_summary_that_passes_a_limit_ends_the_run() -> None:
    model = counting(4, *(calls(page) for page in range(1, 8)), "Nobody.")
    window = {"window_tokens": 1500, "strategy": "summarise"}
    with pytest.raises(LimitExceeded, match=r"limits\.cost_usd"):
        await Agent("a", model=model, tools=[read], context=window, limits={"cost_usd": 0.055}).run(QUESTION)
    assert not model.requests[-1].tools


# --- a provider that finds it too long ------------------------------------------------------------------------------


def too_long() -> ModelError:
    return ModelError("prompt is too long", status=400, too_long=True)


def narrow(tokens: int, *replies: Message | str) -> ScriptedModel:
    """Return a model whose provider refuses requests over that size."""
    left = list(replies)

    def answer(request: ModelRequest) -> Any:
        return too_long() if size(request) > tokens else left.pop(0)

    return ScriptedModel(answer)


async def test_too_long_makes_one_compaction_and_one_more_try() -> None:
    model = narrow(1000, *(calls(page) for page in range(1, 7)), "Nobody.")
    events = await events_of(Agent("a", model=model, instructions=SYSTEM, tools=[read]), QUESTION)
    assert events[-1].type == "run_completed"
    refused = [request for request in model.requests if size(request) > 1000]
    told = compacted(events)
    assert len(refused) == len(told) > 0
    assert {event.data["reason"] for event in told} == {"too_long"}
    assert len(model.requests) == 7 + len(refused)
    for request in model.requests:
        assert_well_formed(request)
        assert request.messages[1].text.startswith(QUESTION)


async def test_too_long_again_fails_after_exactly_two_requests() -> None:
    model = ScriptedModel([calls(1), too_long(), too_long(), "never"])
    with pytest.raises(ModelError, match="too long") as caught:
        await Agent("a", model=model, tools=[read]).run(QUESTION)
    assert caught.value.too_long
    assert len(model.requests) == 3
    assert size(model.requests[2]) < size(model.requests[1])


async def test_too_long_with_nothing_to_leave_out_is_not_asked_again() -> None:
    model = ScriptedModel([too_long(), "never"])
    with pytest.raises(ModelError, match="too long"):
        await Agent("a", model=model, tools=[read]).run(QUESTION)
    assert len(model.requests) == 1


async def test_too_long_in_a_streamed_run_streams_the_answer_once() -> None:
    model = narrow(700, calls(1), calls(2), calls(3), "Nobody at all.")
    events = await events_of(Agent("a", model=model, tools=[read]), QUESTION)
    assert "".join(event.text for event in events) == "Nobody at all."


async def test_the_window_of_the_manifest_may_be_wider_than_the_providers() -> None:
    model = narrow(800, calls(1), calls(2), calls(3), calls(4), "Nobody.")
    window = {"window_tokens": 100_000, "strategy": "shorten"}
    assert (await Agent("a", model=model, tools=[read], context=window).run(QUESTION)).content == "Nobody."


async def test_chinese_and_hex_are_not_underestimated() -> None:
    def dense(page: int) -> str:
        """Read a dense page."""
        return ("管家什么也没看见" if page % 2 else "9f3a7c1e") * 60

    def heavy(request: ModelRequest) -> int:
        return sum(2 if ord(char) > 255 else 1 for char in text_of(request)) // 2

    pages = [Message("assistant", (ToolCallPart(f"c{n}", "dense", {"page": n}),)) for n in range(12)]
    left: list[Message | str] = [*pages, "Nobody."]

    def answer(request: ModelRequest) -> ModelResponse:
        reply = left.pop(0)
        message = Message.assistant(reply) if isinstance(reply, str) else reply
        return ModelResponse(message, Usage(heavy(request), 5, requests=1), "m")

    model = ScriptedModel(answer)
    await Agent("a", model=model, tools=[dense], context={"window_tokens": 3000}).run(QUESTION)
    assert max(heavy(request) for request in model.requests) <= 3000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": {"compact_at": 0.5}}, "window_tokens"),
        ({"context": {"window_tokens": 0}}, "window_tokens"),
        ({"context": {"window_tokens": 10, "compact_at": 1.5}}, "compact_at"),
        ({"context": {"window_tokens": 10, "strategy": "forget"}}, "strategy"),
        ({"plan": {"every": 0}}, "every"),
        ({"plan": {}}, "every"),
    ],
)
def test_wrong_values_are_refused_by_name(options: Any, words: str) -> None:
    build: Callable[..., Any] = Agent
    with pytest.raises(ManifestError, match=words):
        build("a", **options)
