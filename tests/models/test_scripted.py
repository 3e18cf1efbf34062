"""Scripts in Python and in YAML."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from llmling import AgentPool, plugins
from llmling.errors import ModelError, StartupError
from llmling.manifest.models import ScriptModelConfig
from llmling.messages import Message, TextPart, ToolCallPart, ToolCallResponsePart, Usage
from llmling.models.scripted import ScriptedModel, ScriptModel, script_model
from llmling.protocols import ModelRequest, ModelResponse, TextDelta
from llmling.runtime.services import Services
from llmling.testing import FakeClock


def ask(text: str, **more: Any) -> ModelRequest:
    return ModelRequest((Message.user("earlier words"), Message.user(text)), **more)


def script(folder: Path, text: str, clock: FakeClock | None = None) -> ScriptModel:
    (folder / "script.yml").write_text(text, encoding="utf-8")
    config = ScriptModelConfig(path="script.yml")
    return plugins.create("models", config, Services(folder=folder, clock=clock or FakeClock()))


async def test_replies_come_in_order_and_requests_are_kept() -> None:
    async def later(request: ModelRequest) -> str:
        return f"heard {request.messages[-1].text}"

    whole = ModelResponse(Message.assistant("whole"), model="other")
    call = Message("assistant", (ToolCallPart("1", "add", {"a": 1}),))
    model = ScriptedModel(["text", call, whole, later, lambda _: later], name="mine")
    answers = [await model.request(ask(f"n{number}")) for number in range(5)]
    assert [answer.message.text for answer in answers] == ["text", "", "whole", "heard n3", "heard n4"]
    assert (answers[0].model, answers[0].demo, answers[0].cost_usd) == ("mine", True, 0.0)
    assert answers[1].finish_reason == "tool_calls"
    assert answers[2] is whole
    assert [request.messages[-1].text for request in model.requests] == ["n0", "n1", "n2", "n3", "n4"]


async def test_an_exception_is_raised_and_the_end_of_the_script_says_so() -> None:
    model = ScriptedModel([ModelError("busy", status=429, retryable=True)])
    with pytest.raises(ModelError, match="busy"):
        await model.request(ask("hi"))
    with pytest.raises(ModelError, match="request 2, but the script has 1 replies; the last message was: 'hi'"):
        await model.request(ask("hi"))


async def test_one_callable_answers_everything() -> None:
    model = ScriptedModel(lambda request: request.messages[-1].text.upper())
    assert [(await model.request(ask(text))).message.text for text in ("a", "b")] == ["A", "B"]


async def test_a_stream_has_the_words_and_then_the_whole() -> None:
    parts = [part async for part in ScriptedModel(["one two  three"]).stream(ask("hi"))]
    assert [part.text for part in parts if isinstance(part, TextDelta)] == ["one ", "two  ", "three"]
    assert isinstance(parts[-1], ModelResponse)


SCRIPT = """
- match: "^count"
  tool_calls: [{name: word_count, arguments: {text: a b, deep: {on: yes}}}]
  usage: {input_tokens: 10, output_tokens: 3}
- {match: flaky, error: 429, times: 1}
- {match: broken, error: 500, reply: out of order}
- {match: late, error: timeout}
- {match: slow, delay_s: 5, reply: took a while}
- {match: "(?i)FLAKY|two", reply: 'yes'}
- reply: anything else
"""


async def test_the_first_match_on_the_last_message_answers(tmp_path: Path) -> None:
    model = script(tmp_path, SCRIPT)
    assert model.name == "demo:script.yml"
    first = await model.request(ask("count this"))
    (call,) = first.message.tool_calls
    assert (call.name, call.arguments) == ("word_count", {"text": "a b", "deep": {"on": "yes"}})
    assert first.usage == Usage(10, 3, requests=1)
    assert (first.demo, first.cost_usd, first.model) == (True, 0.0, "demo:script.yml")
    assert (await model.request(ask("earlier"))).message.text == "anything else"


async def test_a_tools_answer_is_the_last_message_too(tmp_path: Path) -> None:
    answered = Message("tool", (ToolCallResponsePart("1", "t", "result two"),))
    response = await script(tmp_path, SCRIPT).request(ModelRequest((Message.user("count"), answered)))
    assert response.message.parts == (TextPart("yes"),)


async def test_errors_and_times(tmp_path: Path) -> None:
    model = script(tmp_path, SCRIPT)
    for text, status, reason in (("flaky", 429, "429"), ("broken", 500, "out of order"), ("late", None, "in time")):
        with pytest.raises(ModelError, match=reason) as caught:
            await model.request(ask(text))
        assert (caught.value.status, caught.value.retryable) == (status, True)
    assert (await model.request(ask("flaky"))).message.text == "yes"


async def test_a_delay_runs_on_the_services_clock_and_ends_with_the_request_s_time(tmp_path: Path) -> None:
    clock = FakeClock()
    model = script(tmp_path, SCRIPT, clock)
    asking = asyncio.create_task(model.request(ask("slow")))
    await clock.asleep()
    await clock.advance(5)
    assert (await asking).message.text == "took a while"
    asking = asyncio.create_task(model.request(ask("slow", timeout_s=2)))
    await clock.asleep()
    await clock.advance(2)
    with pytest.raises(ModelError, match="no answer within 2 s"):
        await asking


async def test_no_match_names_the_text_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no entry of .*script\.yml matches the last message 'unheard of'") as caught:
        await script(tmp_path, "- {match: hello, reply: hi}").request(ask("unheard of"))
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "- reply: a\n- {match: b, repyl: c}",
            r'script\.yml:2:14: .*unknown key "repyl" in script\[1\]; did you mean "reply"\?',
        ),
        ("- {match: '(', reply: c}", r"script\.yml:1:11: .*not a regular expression.*\(script\[0\]\)"),
        ("- {error: 404}", r'"error" should be one of 429, 500, timeout in script\[0\]'),
        ("- {times: 0}", '"times" should be at least 1'),
        ("- {delay_s: -1}", '"delay_s" should be at least 0'),
        ("- {tool_calls: [{arguments: {}}]}", r'missing key "name" in script\[0\]\.tool_calls\[0\]'),
        ("- {usage: {tokens: 3}}", r'unknown key "tokens" in script\[0\]\.usage'),
        ("- just text", r'1:3: .*"script\[0\]" should be a mapping'),
        ("- {reply: a, reply: b}", 'key "reply" is already written at line 1'),
        ("reply: a", "a demo script is a list"),
        ("", "the file is empty; write entries such as"),
        ("# nothing yet", "the file is empty; write entries such as"),
        ("- [", r"demo script .*script\.yml cannot be used:\n.*script.yml:1:"),
        ("- &a [*a]", "inside its own anchor"),
        ("- {reply: !!python/name:os.system x}", "tag .* is not allowed"),
        ("- reply: a\n---\n- reply: b", "a second document starts here"),
    ],
)
def test_a_wrong_script_is_refused_with_its_place(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(StartupError, match=reason) as caught:
        script(tmp_path, text)
    assert caught.value.usage


def test_a_script_that_is_no_text_or_endless_is_refused(tmp_path: Path) -> None:
    config, services = ScriptModelConfig(path="script.yml"), Services(folder=tmp_path)
    for data, reason in ((b"- reply: caf\xe9\n", "1:13: .*not UTF-8"), (b"- reply: a\n" * 90_910, "at most 1,000,000")):
        (tmp_path / "script.yml").write_bytes(data)
        with pytest.raises(StartupError, match=reason) as caught:
            script_model(config, services)
        assert caught.value.usage


async def test_a_script_says_what_is_written_variables_and_words_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "not to be seen")
    model = script(tmp_path, '- {match: "a$", reply: "${SECRET} and $${x}"}\n- {reply: yes}\n')
    assert (await model.request(ask("a"))).message.text == "${SECRET} and $${x}"
    assert (await model.request(ask("b"))).message.text == "yes"


async def test_a_script_that_changes_behind_validate_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "s.yml"
    path.write_text("- reply: a\n")
    (tmp_path / "m.yml").write_text("agents: {a: {model: 'demo:s.yml'}}\n")
    pool = AgentPool(tmp_path / "m.yml")
    path.write_text("- reply: a\n- repl: b\n")
    with pytest.raises(StartupError, match=r's\.yml:2:3: .*unknown key "repl" in script\[1\]') as caught:
        async with pool:
            pass
    assert caught.value.usage


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"none\.yml: No such file"):
        script_model(ScriptModelConfig(path="none.yml"), Services(folder=tmp_path))
