"""Seed 003: models, agents, flows and their sync face, over the wire formats of all four providers."""

from __future__ import annotations

import asyncio
import threading
import warnings
from typing import Any

import anyio
import anyio.to_thread
import pytest
from llm_server import Call, LLMServer, Reply
from pydantic import BaseModel

from llmling import Agent, Context, Event, Message
from llmling.errors import OutputError, RunError, SyncInAsyncError

MODELS = ["openai/gpt-4o-mini", "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash", "ollama/llama3.2"]


def agent(name: str = "assistant", *, model: str = MODELS[0], **options: Any) -> Agent[None]:
    return Agent(name, model=model, instructions="You are helpful.", **options)


def roles(body: dict[str, Any]) -> list[str]:
    if "contents" in body:
        system = ["system"] if "system_instruction" in body or "systemInstruction" in body else []
        return system + [turn.get("role", "user") for turn in body["contents"]]
    return ([] if not body.get("system") else ["system"]) + [message["role"] for message in body["messages"]]


@pytest.mark.parametrize("model", MODELS)
async def test_a_bare_model_call_is_one_user_message(server: LLMServer, model: str) -> None:
    result = await Context(directive="What is 2+2?").aexecute(model=model)
    assert result.response == "echo: What is 2+2?"
    assert (result.usage.input_tokens, result.usage.output_tokens, result.tokens_used) == (11, 7, 18)
    assert roles(server.requests[0].body) == ["user"]


@pytest.mark.parametrize("model", MODELS)
async def test_one_turn_of_an_agent_is_a_system_and_a_user_message(server: LLMServer, model: str) -> None:
    assert (await agent(model=model).run("Hello")).content == "echo: Hello"
    assert roles(server.requests[0].body) == ["system", "user"]


async def test_the_second_step_of_a_flow_sees_the_answer_of_the_first(server: LLMServer) -> None:
    flow = agent("writer") | agent("editor")
    server.replies += [Reply("a draft"), Reply("an edited draft")]
    assert (await flow.run("Write.")).content == "an edited draft"
    assert server.requests[1].last_text == "a draft"
    heard: list[Message] = []
    first, second = agent("first"), agent("second")
    first >> second >> heard.append
    await first.run("Write.", wait_for_connections=True)
    assert [message.text for message in heard] == ["echo: echo: Write."]


def test_the_same_run_under_anyio(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> str:
        async with LLMServer() as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
            monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
            contents: list[str] = []

            async def ask(question: str) -> None:
                contents.append((await agent().run(question)).content)

            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(ask, f"q{number}")
            return " ".join(sorted(contents))

    assert anyio.run(main) == "echo: q0 echo: q1 echo: q2"


async def test_the_loop_goes_on_while_a_sync_tool_works(server: LLMServer) -> None:
    beats, threads = asyncio.Event(), set[int]()
    seen = threading.Event()

    def compute() -> str:
        threads.add(threading.get_ident())
        loop.call_soon_threadsafe(beats.set)
        # Only a loop that goes on meanwhile can answer.
        return "computed" if seen.wait(60) else "the loop was held"

    async def heart() -> None:
        await beats.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        seen.set()

    loop = asyncio.get_running_loop()
    server.replies += [Reply(calls=[Call("compute")]), Reply("done")]
    beating = asyncio.create_task(heart())
    assert (await agent(tools=[compute]).run("go")).content == "done"
    await beating
    assert server.requests[1].body["messages"][-1]["content"] == "computed"
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("model", MODELS)
async def test_sync_and_async_calls_of_one_turn_overlap(server: LLMServer, model: str) -> None:
    other = asyncio.Event()
    met = threading.Event()
    loop = asyncio.get_running_loop()

    def slow() -> str:
        loop.call_soon_threadsafe(other.set)
        assert met.wait(60)
        return "slow"

    async def fetch() -> str:
        await other.wait()
        met.set()
        return "fetch"

    server.replies += [Reply(calls=[Call("slow"), Call("fetch")]), Reply("done")]
    async with asyncio.timeout(60):
        assert (await agent(model=model, tools=[slow, fetch]).run("go")).content == "done"


async def test_many_agents_in_a_task_group_bound_by_a_semaphore(server: LLMServer) -> None:
    gate = asyncio.Event()

    def answer(_: object) -> Reply:
        if len(server.requests) == 40:
            gate.set()
        return Reply("ok", gate=gate)

    server.answer = answer
    semaphore, contents = anyio.Semaphore(40), list[str]()

    async def ask(number: int) -> None:
        async with semaphore:
            contents.append((await agent(f"a{number}").run("Hello")).content)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(ask, number)
    assert contents == ["ok"] * 100
    assert server.peak == 40


async def test_a_value_of_a_template_is_in_the_system_text_and_a_missing_one_is_named(server: LLMServer) -> None:
    prompt = "You answer questions about {{ query }}."
    context = Context(guidance=prompt, directive="Go on.", variables={"query": "tea"})
    await context.aexecute(model="openai/gpt-4o-mini")
    assert server.requests[0].body["messages"][0] == {"role": "system", "content": "You answer questions about tea."}
    with pytest.raises(ValueError, match="no variable 'query'"):
        Context(guidance=prompt, directive="Go on.")
    assert len(server.requests) == 1


async def test_a_value_of_a_run_is_in_the_instructions_and_a_missing_one_is_named(server: LLMServer) -> None:
    helper = Agent("helper", model=MODELS[0], instructions="You answer questions about {{ event.data.query }}.")
    await helper.run("Go on.", event=Event("page", "question", data={"query": "tea"}))
    assert server.requests[0].body["messages"][0] == {"role": "system", "content": "You answer questions about tea."}
    with pytest.raises(RunError, match="no attribute 'query'"):
        await helper.run("Go on.", event=Event("page", "question", data={"qery": "tea"}))
    assert len(server.requests) == 1


# --- the sync face -------------------------------------------------------------------------------------------------


def in_a_thread(ask: Any) -> Any:
    """Call something on a thread of its own and return what it returned."""
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(ask()))
    thread.start()
    thread.join()
    return outcome[0]


async def test_sync_code_runs_without_a_warning(server: LLMServer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = await asyncio.to_thread(in_a_thread, lambda: [agent().run_sync("Hello").content for _ in range(2)])
    assert answers == ["echo: Hello"] * 2


async def test_async_code_is_told_what_to_await_at_its_own_line(server: LLMServer) -> None:
    with pytest.raises(SyncInAsyncError) as caught:
        agent().run_sync("Hello")
    line = next(entry.lineno for entry in caught.traceback if str(entry.path) == __file__) + 1
    assert f"{__file__}:{line}" in str(caught.value)
    assert "await agent.run(" in str(caught.value)
    assert server.paths == []


@pytest.mark.parametrize("runner", [asyncio.run, anyio.run])
@pytest.mark.parametrize("to_thread", [asyncio.to_thread, anyio.to_thread.run_sync])
def test_it_works_in_worker_threads_of_either_runner(
    monkeypatch: pytest.MonkeyPatch, runner: Any, to_thread: Any
) -> None:
    def work() -> str:
        return agent().run_sync("Hello").content

    async def main() -> str:
        async with LLMServer() as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
            monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
            return await to_thread(work)

    # `anyio.run` takes the function, `asyncio.run` its coroutine; warnings are errors in every test.
    assert (runner(main()) if runner is asyncio.run else runner(main)) == "echo: Hello"


# --- structured answers and conversations --------------------------------------------------------------------------


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize("model", MODELS)
async def test_an_invalid_answer_is_asked_for_again_and_is_an_error_in_the_end(server: LLMServer, model: str) -> None:
    server.replies += [Reply('{"name": "Oslo"}'), Reply('{"name": "Oslo", "people": 700000}')]
    asked = agent(model=model, output=City)
    assert (await asked.run("Where?")).content == City(name="Oslo", people=700_000)
    assert len(server.requests) == 2
    assert "people" in server.requests[1].last_text
    server.answer = lambda _: Reply('{"name": "Oslo", "people": "many"}')
    with pytest.raises(OutputError, match="people"):
        await asked.run("Where?")
    assert len(server.requests) == 5, "three tries, and nothing is filled in"


async def test_turns_of_one_conversation_stay_paired(server: LLMServer) -> None:
    chat = agent().session("one")
    results = await asyncio.gather(chat.run("first"), chat.run("second"))
    assert [result.content for result in results] == ["echo: first", "echo: second"]
    said = [turn.text for turn in chat.messages]
    assert said == ["first", "echo: first", "second", "echo: second"]
