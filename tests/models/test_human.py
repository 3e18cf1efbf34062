"""A person as a model, in runs that no engine keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmling import Agent, AgentPool
from llmling.asks import Question
from llmling.errors import NobodyToAsk, OutputError, RunError
from llmling.messages import Usage
from llmling.models.human import HumanModel
from llmling.protocols import RunInfo

SHAPE = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}


class Person:
    """Says what it was told to say, and notes what it was asked."""

    def __init__(self, *said: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self._said = list(said)

    async def __call__(self, question: str, run: RunInfo) -> str:
        self.asked.append((run.agent, question))
        return self._said.pop(0)


async def test_a_person_answers_without_a_request_and_without_cost() -> None:
    person = Person("Buy it.")
    result = await Agent("boss", model="human", ask=person, instructions="Decide.").run("Shall we?")
    assert (result.response, result.model, result.cost_usd, result.usage) == ("Buy it.", "human", 0.0, Usage())
    assert person.asked == [("boss", "Shall we?")]


async def test_the_question_has_what_the_agent_was_told_and_the_shape_of_the_answer() -> None:
    asked: list[Question] = []

    def ask(question: Question, run: RunInfo) -> str:
        asked.append(question)
        return '{"yes": true}'

    await Agent("boss", model="human", ask=ask, instructions="Decide.", output=SHAPE).run("Shall we?")
    assert [(question, question.about, question.output_schema) for question in asked] == [
        ("Shall we?", "Decide.", SHAPE)
    ]


async def test_a_bare_choice_is_an_answer() -> None:
    shape = {"type": "object", "properties": {"say": {"type": "string", "enum": ["yes", "no"]}}, "required": ["say"]}
    result = await Agent("boss", model="human", ask=Person(" no "), output=shape).run("Shall we?")
    assert (result.content, result.message.text) == ({"say": "no"}, '{"say": "no"}')


def _says_nothing(*_: object) -> None:
    return


def _fails(*_: object) -> str:
    raise ValueError("out of paper")


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (_says_nothing, "`ask` of agent 'boss' returned None: return the answer as text"),
        (_fails, "`ask` of agent 'boss' failed: ValueError: out of paper"),
    ],
)
async def test_a_person_who_does_not_answer_fails_the_run(ask: Any, why: str) -> None:
    with pytest.raises(RunError, match=f"^{re.escape(why)}$"):
        await Agent("boss", model="human", ask=ask).run("Shall we?")


async def test_a_sync_person_and_a_stream() -> None:
    agent = Agent[Any]("boss", model=HumanModel(ask=lambda question, run: f"{question} Yes."))
    async with agent.run_stream("Shall we?") as stream:
        events = [event async for event in stream]
    assert [event.text for event in events if event.type == "text_delta"] == ["Shall we? Yes."]
    assert events[-1].type == "run_completed"


async def test_nobody_to_ask_is_said_so() -> None:
    with pytest.raises(NobodyToAsk, match=r"a person should answer .*`ask=`") as caught:
        await Agent("boss", model="human").run("Shall we?")
    assert not caught.value.retryable


async def test_an_answer_of_the_wrong_shape_is_asked_for_again() -> None:
    person = Person("yes", '{"yes": true}')
    result = await Agent("boss", model="human", ask=person, output=SHAPE).run("Shall we?")
    assert result.content == {"yes": True}
    assert "no JSON" in person.asked[1][1]
    with pytest.raises(OutputError):
        await Agent("boss", model="human", ask=Person("a", "b", "c"), output=SHAPE).run("Shall we?")


async def test_a_person_stands_in_for_models_that_fail(tmp_path: Path) -> None:
    (tmp_path / "down.yml").write_text("[{error: 500}]")
    (tmp_path / "m.yml").write_text("""
agents:
  boss:
    model: {type: fallback, models: ["demo:down.yml", human]}
    retries: {attempts: 1}
""")
    async with AgentPool(tmp_path / "m.yml", ask=Person("I will.")) as pool:
        assert (await pool.get_agent("boss").run("Who does it?")).response == "I will."


async def test_a_person_of_a_pool_is_not_replaced_by_another_model(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(
        "agents: {writer: {connections: [boss]}, boss: {model: human, sinks: [{type: file, path: out.md}]}}"
    )
    person = Person("Fine.")
    async with AgentPool(tmp_path / "m.yml", model="demo", ask=person) as pool:
        await pool.get_agent("writer").run("Write.", wait_for_connections=True)
    assert (tmp_path / "out.md").read_text() == "Fine.\n"
    assert [agent for agent, _ in person.asked] == ["boss"]
