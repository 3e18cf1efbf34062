"""Seed 002: many questions to one agent, over Ollama's wire format."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from llm_server import LLMServer, Reply, Request

from llmling import Agent, RunResult
from llmling.errors import ModelError

SYSTEM = "You are a helpful assistant. Be very concise."
QUESTIONS = [
    "What is 2+2?",
    "What is the capital of France?",
    "What color is the sky?",
    "Who wrote Romeo and Juliet?",
    "What is the speed of light?",
]


def concise() -> Agent[None]:
    return Agent(
        "concurrent_agent",
        model="ollama/gemma3:latest",
        instructions=SYSTEM,
        model_settings={"temperature": 0.7, "max_tokens": 50},
        retries={"attempts": 1},
    )


def texts(request: Request) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in request.body["messages"]]


class Gates:
    """Holds the answer to each question back until its gate opens."""

    def __init__(self, server: LLMServer, questions: Sequence[str]) -> None:
        self.gates = {question: asyncio.Event() for question in questions}
        server.answer = lambda request: Reply(f"echo: {request.last_text}", gate=self.gates[request.last_text])

    def open(self, question: str) -> None:
        self.gates[question].set()


async def test_instructions_and_settings_are_on_the_wire_and_the_text_is_unchanged(server: LLMServer) -> None:
    server.replies.append(Reply("  Four.\n"))
    result = await concise().run("What is 2+2?")
    assert result.content == "  Four.\n"
    (request,) = server.requests
    assert (request.wire, request.body["model"]) == ("ollama", "gemma3:latest")
    assert texts(request) == [("system", SYSTEM), ("user", "What is 2+2?")]
    assert request.body["options"] == {"temperature": 0.7, "num_predict": 50}


async def test_five_questions_are_in_flight_at_once_in_order_and_know_nothing_of_each_other(
    server: LLMServer,
) -> None:
    gates = Gates(server, QUESTIONS)
    agent = concise()
    asked = asyncio.gather(*[agent.run(question) for question in QUESTIONS], return_exceptions=True)
    await server.wait_for_requests(5)
    assert server.in_flight == server.peak == 5
    for question in reversed(QUESTIONS):
        gates.open(question)
    responses = await asked
    assert [r.content for r in responses if isinstance(r, RunResult)] == [f"echo: {q}" for q in QUESTIONS]
    assert sorted(text for request in server.requests for _, text in texts(request)[1:]) == sorted(QUESTIONS)


LABELLED = {"Long": "What is the theory of relativity?", "Medium": "Explain photosynthesis", "Quick": "What is 1+1?"}


async def first_completed(agent: Agent[None], questions: dict[str, str]) -> AsyncIterator[str]:
    tasks = {asyncio.create_task(agent.run(question)): label for label, question in questions.items()}
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            assert (await task).content.startswith("echo")
            yield tasks[task]


async def as_completed(agent: Agent[None], questions: dict[str, str]) -> AsyncIterator[str]:
    labels = {question: label for label, question in questions.items()}
    tasks = [asyncio.create_task(agent.run(question)) for question in questions.values()]
    for ended in asyncio.as_completed(tasks):
        yield labels[(await ended).content.removeprefix("echo: ")]


async def our_as_completed(agent: Agent[None], questions: dict[str, str]) -> AsyncIterator[str]:
    async for index, outcome in agent.as_completed(list(questions.values())):
        assert isinstance(outcome, RunResult)
        yield list(questions)[index]


@pytest.mark.parametrize("ready", [first_completed, as_completed, our_as_completed])
async def test_answers_come_as_they_are_ready(server: LLMServer, ready: Any) -> None:
    gates = Gates(server, list(LABELLED.values()))
    order = ["Quick", "Medium", "Long"]

    async def release_the_first() -> None:
        await server.wait_for_requests(3)
        gates.open(LABELLED["Quick"])

    async with asyncio.TaskGroup() as group:
        group.create_task(release_the_first())
        seen: list[str] = []
        # The next answer is let out only when the one before it was seen: nothing waits for what was asked earlier.
        async for label in ready(concise(), LABELLED):
            seen.append(label)
            for later in order[len(seen) : len(seen) + 1]:
                gates.open(LABELLED[later])
    assert seen == order


async def test_a_batch_slides_and_failures_stay_in_place(server: LLMServer) -> None:
    queries = [f"What is {n}+{n}?" for n in range(8)]
    three, slow = asyncio.Event(), asyncio.Event()

    def answer(request: Request) -> Reply:
        if server.in_flight == 2:
            three.set()  # this one is the third
        if request.last_text == queries[0]:
            return Reply("slow", gate=slow)
        return Reply("sum", gate=three, status=400 if request.last_text == queries[4] else 200)

    server.answer = answer
    agent = concise()
    outcomes: dict[int, RunResult | Exception] = {}
    async for index, outcome in agent.as_completed(queries, max_concurrency=3):
        outcomes[index] = outcome
        if len(outcomes) == 7:
            assert 0 not in outcomes, "the slow one holds up nobody"
            slow.set()
    assert server.peak == 3
    failed = [index for index, outcome in outcomes.items() if isinstance(outcome, Exception)]
    assert (failed, len(outcomes)) == ([4], 8)
    results = await agent.run_many(queries, max_concurrency=3, return_exceptions=True)
    assert [index for index, result in enumerate(results) if isinstance(result, ModelError)] == [4]
    assert server.peak == 3


async def test_a_semaphore_of_the_caller_bounds_the_runs(server: LLMServer) -> None:
    rounds = [asyncio.Event() for _ in range(3)]

    def answer(request: Request) -> Reply:
        number = (len(server.requests) - 1) // 3
        if len(server.requests) % 3 == 0:
            rounds[number].set()
        return Reply("ok", gate=rounds[number])

    server.answer = answer
    agent, semaphore = concise(), asyncio.Semaphore(3)

    async def limited(question: str) -> RunResult:
        async with semaphore:
            return await agent.run(question)

    results = await asyncio.gather(*[limited(f"q{n}") for n in range(9)])
    assert [result.content for result in results] == ["ok"] * 9
    assert server.peak == 3


async def test_errors_are_caught_one_by_one(server: LLMServer) -> None:
    agent, outcomes = concise(), list[str]()
    for query in ("What is 2+2?", "", " \n", "a" * 10_000, "What is Python?"):
        try:
            await agent.run(query)
            outcomes.append("ok")
        except ValueError:
            outcomes.append("empty")
    assert outcomes == ["ok", "empty", "empty", "ok", "ok"]
    assert [request.last_text for request in server.requests] == ["What is 2+2?", "a" * 10_000, "What is Python?"]


@pytest.mark.parametrize("wrong", [7, None, ["a"]])
async def test_what_is_no_text_is_refused_before_any_request(server: LLMServer, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        await concise().run(wrong)
    assert server.paths == []


@pytest.mark.parametrize("conversation", [False, True])
async def test_a_query_that_times_out_is_aborted_and_forgotten(server: LLMServer, conversation: bool) -> None:
    agent = concise()
    asked = agent.session("chat") if conversation else agent
    server.replies.append(Reply(hang=True))

    async def query_with_timeout(question: str) -> str:
        try:
            async with asyncio.timeout(None) as limit:
                arrived.append(limit)
                return (await asked.run(question)).content
        except TimeoutError:
            return "timed out"

    arrived: list[asyncio.Timeout] = []
    query = asyncio.create_task(query_with_timeout("Will you answer?"))
    await server.wait_for_requests(1)
    arrived[0].reschedule(0)
    assert await query == "timed out"
    async with asyncio.timeout(30):
        await server.requests[0].hung_up.wait()
    await asked.run("What is 2+2?")
    assert texts(server.requests[1]) == [("system", SYSTEM), ("user", "What is 2+2?")]


async def test_a_failed_question_raises_and_leaves_the_history_sound(server: LLMServer) -> None:
    chat = concise().session("chat")
    await chat.run("I am Ada.")
    server.replies.append(Reply(status=400))
    with pytest.raises(ModelError) as caught:
        await chat.run("Who am I?")
    assert (caught.value.status, caught.value.attempts) == (400, 1)
    await chat.run("And who are you?")
    assert [role for role, _ in texts(server.requests[-1])] == ["system", "user", "assistant", "user"]
    assert "Who am I?" not in str(server.requests[-1].body)


async def test_without_a_loop_questions_go_one_after_the_other(server: LLMServer) -> None:
    agent = concise()
    responses = await asyncio.to_thread(lambda: [agent.run_sync(question).content for question in QUESTIONS])
    assert responses == [f"echo: {question}" for question in QUESTIONS]
    assert server.peak == 1


async def test_three_hundred_questions_to_one_agent_are_in_flight_at_once(server: LLMServer) -> None:
    gate = asyncio.Event()
    server.answer = lambda request: Reply(request.last_text, gate=gate)
    agent = concise()
    asked = asyncio.gather(*[agent.run(f"q{number}") for number in range(300)])
    await server.wait_for_requests(300)
    assert server.in_flight == 300
    gate.set()
    assert [result.content for result in await asked] == [f"q{number}" for number in range(300)]


def test_a_call_without_await_only_warns() -> None:
    def forget_to_wait() -> None:
        concise().run("What is 2+2?")  # pyright: ignore[reportUnusedCoroutine]

    with pytest.warns(RuntimeWarning, match="never awaited"):
        forget_to_wait()
