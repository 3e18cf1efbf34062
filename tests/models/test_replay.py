"""What was recorded is given again: by request, in order, with usage, cost, failures and tool calls."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmling import plugins
from llmling.errors import LLMlingError, ModelError, NotAsked, StartupError
from llmling.events import Event
from llmling.manifest.models import ReplayModelConfig
from llmling.messages import Message, ToolCallPart, ToolCallResponsePart, Usage
from llmling.models.cassettes.recording import recorded
from llmling.protocols import Model, ModelRequest, ModelResponse, RetryPolicy, TextDelta, ToolSpec
from llmling.runtime.clock import SYSTEM_CLOCK
from llmling.runtime.retry import request_with_retries
from llmling.runtime.scope import current_event
from llmling.runtime.services import Services
from llmling.testing import ScriptedModel

ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"x": {"type": "integer"}}})


def ask(text: str, **more: Any) -> ModelRequest:
    return ModelRequest((Message.system("You count."), Message.user(text)), **more)


async def record(folder: Path, agent: str, replies: Any, *requests: ModelRequest) -> list[Any]:
    """Ask a scripted model, recorded in `c.yml`; return its answers and failures."""
    outcomes: list[Any] = []
    async with recorded("c.yml", folder) as around:
        model = around(ScriptedModel(replies), agent)
        for request in requests:
            try:
                outcomes.append(await model.request(request))
            except ModelError as error:
                outcomes.append(error)
    return outcomes


def replay(folder: Path, agent: str = "a") -> Model:
    return plugins.create("models", ReplayModelConfig(path="c.yml"), Services(folder=folder, agent=agent))


async def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    calls = (ToolCallPart("id_1", "add", {"x": 1, "deep": {"on": "yes", "n": None}}), ToolCallPart("id_2", "add", "[1"))
    whole = ModelResponse(
        Message("assistant", calls), Usage(11, 7, requests=1), "gpt-x-2026", "tool_calls", cost_usd=0.00125
    )
    request = ask("one", tools=(ADD,), output_schema={"type": "object"}, settings={"temperature": 0.2, "stop": ["1e3"]})
    await record(tmp_path, "a", [whole], request)
    assert await replay(tmp_path).request(request) == whole


async def test_failures_and_then_the_answer_come_in_their_order_and_the_last_one_stays(tmp_path: Path) -> None:
    busy = ModelError("busy", status=429, provider="openai", retryable=True, retry_after_s=60)
    down = ModelError("down", status=500, retryable=True, attempts=0)
    await record(tmp_path, "a", [busy, down, "one", "two"], *[ask("go")] * 4)
    model = replay(tmp_path)
    with pytest.raises(ModelError, match="busy") as caught:
        await model.request(ask("go"))
    error = caught.value
    assert (error.status, error.provider, error.retryable, error.attempts) == (429, "openai", True, 1)
    assert error.retry_after_s == 0, "there is nobody to wait for"
    answers = await request_with_retries(model, ask("go"), RetryPolicy(backoff_s=0), clock=SYSTEM_CLOCK)
    assert answers.message.text == "one"
    assert [(await model.request(ask("go"))).message.text for _ in range(3)] == ["two", "two", "two"]


async def test_a_request_that_was_too_long_is_so_again(tmp_path: Path) -> None:
    await record(tmp_path, "a", [ModelError("prompt is too long", status=400, too_long=True)], ask("go"))
    with pytest.raises(ModelError) as caught:
        await replay(tmp_path).request(ask("go"))
    assert (caught.value.too_long, caught.value.status) == (True, 400)


async def test_the_order_of_parallel_runs_does_not_matter(tmp_path: Path) -> None:
    def answer(request: ModelRequest) -> str:
        return f"heard {request.messages[-1].text}"

    async with recorded("c.yml", tmp_path) as around:
        one, other = around(ScriptedModel(answer), "a"), around(ScriptedModel(answer), "b")
        await asyncio.gather(*(model.request(ask(f"n{n}")) for n in range(20) for model in (one, other)))
    models = [replay(tmp_path, "b"), replay(tmp_path, "a")]
    answers = await asyncio.gather(*(model.request(ask(f"n{n}")) for n in reversed(range(20)) for model in models))
    assert [response.message.text for response in answers] == [
        f"heard n{n}" for n in reversed(range(20)) for _ in models
    ]


async def test_agents_do_not_take_the_answers_of_each_other(tmp_path: Path) -> None:
    async with recorded("c.yml", tmp_path) as around:
        for agent in ("a", "b"):
            await around(ScriptedModel([f"from {agent}"]), agent).request(ask("same"))
    assert (await replay(tmp_path, "b").request(ask("same"))).message.text == "from b"
    with pytest.raises(NotAsked, match=r"agent 'c', replay:c.yml: .* has no request of this agent; .*'a', 'b'; record"):
        await replay(tmp_path, "c").request(ask("same"))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ask("count to four"), r"message 2 \(user\) has 'count to four', recorded was 'count to three'"),
        (ask("count to three", tools=(ADD,)), "tool 'add' is new"),
        (ask("count to three", settings={"temperature": 1}), "temperature is 1, recorded was null"),
        (ask("count to three", output_schema={"type": "object"}), "another output schema"),
        (ModelRequest((Message.user("count to three"),)), r"message 1 \(user\) has .*, recorded was .*You c"),
        (
            ModelRequest((*ask("count to three").messages, Message.user("x"))),
            "the number of messages is 3, recorded was 2",
        ),
    ],
)
async def test_a_request_that_was_not_recorded_says_what_differs(
    tmp_path: Path, request_: ModelRequest, words: str
) -> None:
    await record(tmp_path, "a", ["x", "y"], ask("something else"), ask("count to three"))
    lines = (tmp_path / "c.yml").read_text().splitlines()
    line = len(lines) - lines[::-1].index("- agent: a")
    place = rf"agent 'a', replay:c\.yml: this request was not recorded\. Closest is c\.yml:{line}, and this differs: "
    with pytest.raises(NotAsked, match=f"{place}{words}.*; record it again with --record c.yml") as caught:
        await replay(tmp_path).request(request_)
    assert (caught.value.retryable, caught.value.attempts) == (False, 0)


async def test_tools_are_compared_as_they_are_described(tmp_path: Path) -> None:
    other = ToolSpec("sub", "Subtract.", {"type": "object"})
    more = ToolSpec("add", "Add many numbers.", {"type": "object"})
    async with recorded("c.yml", tmp_path) as around:
        model = around(ScriptedModel(["x", "y"]), "a")
        await model.request(ask("go", tools=(ADD, other)))
        await model.request(ask("on", tools=(more,)))
    assert "add~2" in (tmp_path / "c.yml").read_text()
    model = replay(tmp_path)
    assert (await model.request(ask("on", tools=(more,)))).message.text == "y"
    for tools, words in (
        ((more, other), "tool 'add' is described differently"),
        ((ADD,), "tool 'sub' is gone"),
        ((other, ADD), "the tools have another order"),
    ):
        with pytest.raises(NotAsked, match=words):
            await model.request(ask("go", tools=tools))


async def test_ids_of_tool_calls_are_not_compared(tmp_path: Path) -> None:
    def exchange(id_: str) -> ModelRequest:
        call, result = ToolCallPart(id_, "add", {"x": 1}), ToolCallResponsePart(id_, "add", "2", failed=True)
        return ModelRequest((Message.user("go"), Message("assistant", (call,)), Message("tool", (result,))))

    await record(tmp_path, "a", ["done"], exchange("call_1"))
    assert (await replay(tmp_path).request(exchange("toolu_2"))).message.text == "done"


async def parts(stream: AsyncIterator[TextDelta | ModelResponse]) -> list[str]:
    return [part.text async for part in stream if isinstance(part, TextDelta)]


class CutModel(ScriptedModel):
    """Streams two words and breaks off."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[TextDelta | ModelResponse]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield TextDelta("two ")
        yield TextDelta("words")
        raise ModelError("cut", retryable=True)


async def test_streams_are_recorded_and_replayed_also_when_they_break(tmp_path: Path) -> None:
    async with recorded("c.yml", tmp_path) as around:
        assert await parts(around(ScriptedModel(["one two three"]), "a").stream(ask("go"))) == ["one ", "two ", "three"]
        with pytest.raises(ModelError, match="cut"):
            await parts(around(CutModel(), "a").stream(ask("break")))
        async for _ in around(ScriptedModel(["never whole"]), "a").stream(ask("left")):
            break
    model = replay(tmp_path)
    assert (await model.request(ask("go"))).message.text == "one two three"
    assert await parts(model.stream(ask("go"))) == ["one ", "two ", "three"]
    broken = model.stream(ask("break"))
    assert [await anext(broken), await anext(broken)] == [TextDelta("two "), TextDelta("words")]
    with pytest.raises(ModelError, match="cut"):
        await anext(broken)
    with pytest.raises(NotAsked):
        await parts(model.stream(ask("left")))


def about(event: Event, folder: Path) -> ModelRequest:
    return ask(f"{event.id} at {event.time} or {event.time.isoformat()} in {folder}/x.md and {folder}ish")


async def test_the_event_and_the_folder_of_the_run_take_the_place_of_the_recorded_ones(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    events = [Event("t", "x"), Event("t", "x")]
    for folder in folders:
        folder.mkdir()
    token = current_event.set(events[0])
    call = ToolCallPart("1", "save", {"paths": [f"{folders[0]}/{events[0].id}.md"]})
    await record(folders[0], "a", [Message("assistant", (call,))], about(events[0], folders[0]))
    text = (folders[0] / "c.yml").read_text()
    wanted = "{{ event.id }} at {{ event.time }} or {{ event.time.isoformat() }} in {{ folder }}/x.md and"
    assert f"text: '{wanted} {folders[0]}ish'" in text or f'text: "{wanted} {folders[0]}ish"' in text
    (folders[1] / "c.yml").write_text(text.replace(f"{folders[0]}ish", f"{folders[1]}ish"))
    current_event.set(events[1])
    try:
        response = await replay(folders[1]).request(about(events[1], folders[1]))
    finally:
        current_event.reset(token)
    assert response.message.tool_calls[0].arguments == {"paths": [f"{folders[1]}/{events[1].id}.md"]}


async def test_a_time_that_was_that_of_the_event_only_by_chance_is_a_time_like_others(tmp_path: Path) -> None:
    events = [
        Event("t", "x", id=f"01K9Z3V0W8Q4M7X2B6N5C1D0E{n}", time=dt.datetime(2026, n, 1, tzinfo=dt.UTC)) for n in (1, 2)
    ]
    request = ask("meet at 2026-01-01T00:00:00+00:00, ticket 01K9Z3V0W8Q4M7X2B6N5C1D0E1")
    token = current_event.set(events[0])
    try:
        await record(tmp_path, "a", ["yes"], request)
        current_event.set(events[1])
        assert (await replay(tmp_path).request(request)).message.text == "yes"
    finally:
        current_event.reset(token)


class Choosy(ScriptedModel):
    """Has more to say of itself than a model must."""

    retries_by_itself = True


async def test_what_else_is_known_of_a_model_is_known_of_it_while_it_is_recorded(tmp_path: Path) -> None:
    async with recorded("c.yml", tmp_path) as around:
        model: Any = around(Choosy(["one"], name="mine"), "a")
        assert (model.name, model.retries_by_itself) == ("mine", True)
        assert not hasattr(model, "notice")


async def test_other_ids_and_times_do_not_stand_in_the_way_but_the_same_ones_come_first(tmp_path: Path) -> None:
    moments = ["2026-01-01 10:00:00+00:00", "2026-01-02T11:00:00.5Z", "2026-01-03"]
    await record(tmp_path, "a", ["first", "second", "third"], *(ask(f"today is {moment}") for moment in moments))
    model = replay(tmp_path)
    assert (await model.request(ask(f"today is {moments[2]}"))).message.text == "third"
    other = ask("today is 2031-12-24 09:30")
    assert [(await model.request(other)).message.text for _ in range(4)] == ["first", "second", "third", "third"]
    with pytest.raises(NotAsked):
        await model.request(ask("today is Monday"))


async def test_secrets_are_written_as_the_names_of_their_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "sk-recorded-1")
    await record(tmp_path, "a", ["I see sk-recorded-1"], ask("the key is sk-recorded-1"))
    text = (tmp_path / "c.yml").read_text()
    assert "sk-recorded-1" not in text
    assert text.count("${SHOP_API_KEY}") == 2
    monkeypatch.setenv("SHOP_API_KEY", "sk-another-2")
    response = await replay(tmp_path).request(ask("the key is sk-another-2"))
    assert response.message.text == "I see ${SHOP_API_KEY}", "a cassette cannot ask for a secret"


TEXTS = st.one_of(
    st.text(),
    st.text(alphabet=" \n\t\r\x85\u2028\ufeff-#:'\"|>%@&*!{}[]a1"),
    st.sampled_from(["", "yes", "null", "~", "1e3", "0o17", "0x1F", "1_000", "+.inf", "<<", "---", "x-y", "${A}"]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.parametrize("end", ["", "\n", "\n\n", " \n", "\n \n"])
async def test_texts_that_end_with_blank_lines_leave_the_file_whole(tmp_path: Path, end: str) -> None:
    asked = [ask(f"{number} of two{end}", tools=(ToolSpec("t", f"A tool.{end}", {}),)) for number in ("one", "two")]
    await record(tmp_path, "a", [f"first{end}", f"second{end}"], *asked)
    model = replay(tmp_path)
    assert [(await model.request(request)).message.text for request in asked] == [f"first{end}", f"second{end}"]


@settings(max_examples=60, deadline=None)
@example(text="0\n\n", arguments={})
@given(text=TEXTS, arguments=st.dictionaries(TEXTS, JSON, max_size=4))
def test_any_text_and_any_arguments_come_back(
    tmp_path_factory: pytest.TempPathFactory, text: str, arguments: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    request = ask(text, tools=(ToolSpec("t", text, arguments),), settings=arguments)
    whole = ModelResponse(Message("assistant", (ToolCallPart("1", "t", arguments),)), Usage(1, 1, 1), "m", "stop")

    async def there_and_back() -> ModelResponse:
        await record(folder, "a", [whole], request)
        return await replay(folder).request(request)

    assert asyncio.run(there_and_back()) == whole


async def test_half_a_character_does_not_stop_a_recording(tmp_path: Path) -> None:
    await record(tmp_path, "a", ["half \ud83d"], ask("half \ud83d"))
    assert (await replay(tmp_path).request(ask("half \ud83d"))).message.text == "half \N{REPLACEMENT CHARACTER}"


async def test_an_answer_is_not_lost_for_want_of_a_place_to_write_it_but_the_end_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "tapes"
    folder.mkdir()
    recording = recorded(folder / "c.yml", tmp_path)
    model = (await recording.__aenter__())(ScriptedModel(["one", "two", "three"]), "a")
    await model.request(ask("first"))
    shutil.move(folder, tmp_path / "away")
    assert (await model.request(ask("second"))).message.text == "two"
    assert "c.yml cannot be written: [Errno 2] No such file" in caplog.text
    with pytest.raises(LLMlingError, match=r"c\.yml is not complete: No such file or directory"):
        await recording.__aexit__(None, None, None)
    shutil.move(tmp_path / "away", folder)
    async with recorded(folder / "c.yml", tmp_path) as around:
        model = around(ScriptedModel(["one"]), "a")
        shutil.move(folder, tmp_path / "away")
        await model.request(ask("third"))
        shutil.move(tmp_path / "away", folder)
    assert "text: third" in (folder / "c.yml").read_text(), "what could not be written then is written at the end"


def test_a_cassette_that_is_missing_or_broken_says_so_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"c\.yml: No such file or directory; record it with --record") as caught:
        replay(tmp_path)
    assert caught.value.usage
    (tmp_path / "c.yml").write_text("version: 1\nexchanges: [{agent: a}]\n")
    with pytest.raises(StartupError, match=r"c\.yml:2:13: error LL202: missing key \"request\""):
        replay(tmp_path)
