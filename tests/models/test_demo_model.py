"""The demo model through its protocol: honest, repeatable, offline, fast."""

from __future__ import annotations

import json
import time

from jsonschema import Draft202012Validator

from llmling.manifest.models import DemoModelConfig
from llmling.messages import Message, ToolCallResponsePart
from llmling.models.demo import DemoModel
from llmling.protocols import ModelRequest, ModelResponse, TextDelta, ToolSpec

TEXT = "Please count the words of this report. Sales rose by 12 percent in March! Costs fell."
PARAMETERS = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
COUNT = ToolSpec("word_count", "Counts the words of a text.", PARAMETERS)
WEATHER = ToolSpec("weather", "Tells the temperature of a city.", PARAMETERS)


def request(*messages: Message, **more: object) -> ModelRequest:
    return ModelRequest((Message.system("You are terse."), *messages), **more)  # pyright: ignore[reportArgumentType]


async def ask(*messages: Message, **more: object) -> ModelResponse:
    return await DemoModel(DemoModelConfig()).request(request(*messages, **more))


async def test_the_answer_says_what_it_is_and_repeats_sentences_of_the_input() -> None:
    response = await ask(Message.user(TEXT))
    assert response.message.text.startswith("[demo] No model was asked")
    assert "Sales rose by 12 percent in March!" in response.message.text
    assert (response.demo, response.cost_usd, response.model) == (True, 0.0, "demo")
    assert "terse" not in response.message.text


async def test_the_same_input_gives_the_same_answer_and_usage() -> None:
    first, second = [await ask(Message.user(TEXT), tools=(COUNT,)) for _ in range(2)]
    assert first == second
    assert first.usage.requests == 1
    assert first.usage.input_tokens > 10
    assert first.usage.output_tokens > 0


async def test_a_tool_is_called_once_when_its_name_or_description_fits() -> None:
    first = await ask(Message.user(TEXT), tools=(WEATHER, COUNT))
    (call,) = first.message.tool_calls
    assert (call.name, call.arguments, first.finish_reason) == ("word_count", {"text": TEXT}, "tool_calls")
    answered = Message("tool", (ToolCallResponsePart(call.id, call.name, "16"),))
    second = await ask(Message.user(TEXT), first.message, answered, tools=(WEATHER, COUNT))
    assert second.message.tool_calls == ()
    assert "The tool word_count answered: 16" in second.message.text
    assert "Costs fell." in second.message.text


async def test_no_tool_is_called_when_none_fits() -> None:
    assert (await ask(Message.user("Costs fell."), tools=(WEATHER, COUNT))).message.tool_calls == ()


async def test_a_new_message_may_call_a_tool_again() -> None:
    first = await ask(Message.user(TEXT), tools=(COUNT,))
    call = first.message.tool_calls[0]
    answered = Message("tool", (ToolCallResponsePart(call.id, call.name, "16"),))
    before = (Message.user(TEXT), first.message, answered, Message.assistant("16"))
    third = await ask(*before, Message.user("Count again"), tools=(COUNT,))
    assert [part.name for part in third.message.tool_calls] == ["word_count"]
    assert third.message.tool_calls[0].id != call.id


async def test_an_output_schema_is_satisfied_and_its_free_texts_are_marked() -> None:
    schema = {
        "type": "object",
        "properties": {"summary": {"type": "string"}, "amount": {"type": "integer"}},
        "required": ["summary", "amount"],
    }
    response = await ask(Message.user(TEXT), output_schema=schema)
    value = json.loads(response.message.text)
    Draft202012Validator(schema).validate(value)  # pyright: ignore[reportUnknownMemberType]
    assert value["summary"].startswith("[demo] ")
    assert value["amount"] == 12


async def test_the_notice_of_an_earlier_demo_answer_is_not_repeated() -> None:
    first = await ask(Message.user(TEXT))
    second = await ask(Message.user(first.message.text))
    assert second.message.text.count("[demo]") == 1
    assert "Sales rose" in second.message.text


async def test_a_text_without_words_is_answered_too() -> None:
    assert (await ask(Message.user("?!"))).message.text.startswith("[demo]")


async def test_a_stream_is_the_answer_in_pieces() -> None:
    parts = [part async for part in DemoModel().stream(request(Message.user(TEXT)))]
    *deltas, last = parts
    assert isinstance(last, ModelResponse)
    pieces = [part.text for part in deltas if isinstance(part, TextDelta)]
    assert len(pieces) > 10
    assert "".join(pieces) == last.message.text


async def test_an_answer_is_cheap() -> None:
    asked = request(Message.user(TEXT * 5), tools=(WEATHER, COUNT))
    model = DemoModel()
    durations: list[float] = []
    for _ in range(50):
        started = time.perf_counter()
        await model.request(asked)
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.005
