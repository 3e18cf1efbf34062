"""Teams that pick: by condition, by callable, by a model; the choice is told, paid once and kept."""

from __future__ import annotations

from typing import Any

import pytest
from team_world import KeptJournal, echo, paid, surroundings

from llmling import Agent, Message, Team
from llmling.errors import ModelError, TeamError
from llmling.messages import Usage
from llmling.testing import ScriptedModel


class Picks:
    """A callable that always picks the same."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, message: Message) -> str:
        return self.name


def desk(model: ScriptedModel, **options: Any) -> Team:
    """Return a team of two that asks a model."""
    members = [echo("billing", "Invoices and payments"), echo("support", "Everything that is broken")]
    return Team(members, mode="pick", model=model, name="desk", **options)


async def test_a_model_picks_by_the_descriptions() -> None:
    model = ScriptedModel([paid('{"member": "billing"}')])
    result = await desk(model, instructions="Invoices go to billing.").run("Where is my invoice?")
    assert result.content == "billing(Where is my invoice?)"
    assert (result.agent, result.message.name) == ("desk", "billing")
    (request,) = model.requests
    assert request.output_schema is not None
    assert request.output_schema["properties"]["member"]["enum"] == ["billing", "support"]
    system, asked = request.messages
    assert "- billing: Invoices and payments\n- support: Everything that is broken" in system.text
    assert "Invoices go to billing." in system.text
    assert asked.text == "Where is my invoice?"
    # The choice and the answer are one request each.
    assert (result.usage, result.cost_usd) == (Usage(20, 0, 2), 0.02)
    assert [span.name for span in result.spans][-1] == "invoke_workflow desk"
    # The choice is no part of the exchange.
    assert [(turn.role, turn.text) for turn in result.messages] == [
        ("user", "Where is my invoice?"),
        ("assistant", "billing(Where is my invoice?)"),
    ]


@pytest.mark.parametrize("said", ["support", '"support"', "`support`.", '```json\n{"member": "support"}\n```'])
async def test_a_name_is_understood_with_and_without_json(said: str) -> None:
    assert (await desk(ScriptedModel([said])).run("x")).content == "support(x)"


async def test_a_wrong_name_is_asked_about_once() -> None:
    model = ScriptedModel([paid("sales"), paid("support")])
    result = await desk(model).run("x")
    assert result.content == "support(x)"
    assert "'sales' names none of the members: billing, support." in model.requests[1].messages[-1].text
    assert result.usage.requests == 3
    with pytest.raises(TeamError, match=r"team 'desk' picks nobody: the model answered 'nobody' names none") as caught:
        await desk(ScriptedModel(["sales", "nobody"])).run("x")
    assert not caught.value.retryable


async def test_a_model_that_fails_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="no such model"):
        await desk(ScriptedModel([ModelError("no such model", status=404)])).run("x")


async def test_conditions_are_tried_in_order_and_one_without_takes_the_rest() -> None:
    members = [echo("support"), echo("billing"), echo("urgent")]
    when = {"billing": "'invoice' in message.text", "urgent": "event.data.level > 3"}
    team = Team(members, mode="pick", when=when, name="desk")
    assert (await team.run("an invoice")).content == "billing(an invoice)"
    assert (await team.run("a question")).content == "support(a question)"
    context = surroundings(KeptJournal(), {"level": 4})
    assert (await team.answer(Message.user("hello"), context)).content == "urgent(hello)"


async def test_nobody_to_pick_is_a_failure_that_names_the_team() -> None:
    team = Team([echo("a"), echo("b")], mode="pick", when={"a": "1 > 2", "b": "message.nothing"}, name="desk")
    with pytest.raises(TeamError, match=r"team 'desk' picks nobody: no `when` of a, b is true") as caught:
        await team.run("x")
    assert not caught.value.retryable


async def test_a_condition_that_fails_is_named_with_its_team() -> None:
    team = Team([echo("a"), echo("b")], mode="pick", when={"a": "message.text + 1 > 2"}, name="desk")
    with pytest.raises(TeamError, match=r"team 'desk', `when` of a: expression 'message.text \+ 1 > 2' failed: ") as no:
        await team.run("x")
    assert not no.value.retryable


async def test_a_callable_picks_by_name_or_by_member() -> None:
    a, b = echo("a"), echo("b")

    async def by_length(message: Message) -> object:
        return b if len(message.text) > 3 else "a"

    team = Team([a, b], mode="pick", pick=by_length, name="desk")
    assert (await team.run("x")).content == "a(x)"
    assert (await team.run("long")).content == "b(long)"
    with pytest.raises(TeamError, match="team 'desk': `pick` returned 'c'; members: a, b"):
        await Team([a, b], mode="pick", pick=lambda _: "c", name="desk").run("x")
    with pytest.raises(TeamError, match="team 'desk', pick: ZeroDivisionError"):
        await Team([a, b], mode="pick", pick=lambda _: 1 / 0, name="desk").run("x")


async def test_the_stream_tells_the_choice_and_everything_the_member_does() -> None:
    model = ScriptedModel(["nobody", "billing"])
    async with desk(model).run_stream("x") as stream:
        heard = [event async for event in stream if event.type != "text_delta"]
    assert [(event.type, event.agent) for event in heard] == [
        ("run_started", "desk"),
        ("model_request", "desk"),
        ("retry", "desk"),
        ("model_request", "desk"),
        ("handoff", "desk"),
        ("run_started", "billing"),
        ("model_request", "billing"),
        ("run_completed", "billing"),
        ("run_completed", "desk"),
    ]
    handoff = heard[4]
    assert (handoff.message, handoff.to_dict()["to"]) == ("desk >> billing", "billing")
    assert heard[-1].result == stream.result
    assert heard[0].data == {"mode": "pick"}
    assert heard[-1].data["usage"] == stream.result.usage.to_dict()
    assert len({event.run_id for event in heard if event.type.startswith("run_")}) == 2


async def test_a_failed_choice_ends_the_stream_with_its_reason() -> None:
    stream = Team([echo("a")], mode="pick", when={"a": "false"}, name="desk").run_stream("x")
    events = aiter(stream)
    first, last = await anext(events), await anext(events)
    assert (first.type, last.type, last.to_dict()["error"]) == ("run_started", "run_failed", "TeamError")
    with pytest.raises(TeamError, match="team 'desk' picks nobody"):
        await anext(events)


@pytest.mark.parametrize("by", ["model", "pick", "when"])
async def test_a_resumed_delivery_takes_the_same_member_and_pays_no_second_choice(by: str) -> None:
    def team(*, first: bool) -> tuple[Team, ScriptedModel]:
        chosen = "a" if first else "b"
        model = ScriptedModel([paid(chosen)])
        failing = Agent("a", model=ScriptedModel([ModelError("gone", status=404) if first else paid("answer")]))
        options: dict[str, dict[str, Any]] = {
            "model": {"model": model},
            "pick": {"pick": Picks(chosen)},
            "when": {"when": {"a": "true" if first else "false"}},
        }
        return Team([failing, echo("b")], mode="pick", name="desk", **options[by]), model

    journal = KeptJournal()
    with pytest.raises(ModelError):
        await team(first=True)[0].answer(Message.user("x"), surroundings(journal))
    again, model = team(first=False)
    context = surroundings(journal)
    result = await again.answer(Message.user("x"), context)
    assert result.content == "answer"
    assert model.requests == []
    # What this attempt paid for is the answer; the result also tells what the choice had cost.
    assert context.meter.usage.requests == 1
    assert result.usage.requests == (2 if by == "model" else 1)


async def test_a_choice_of_a_member_that_has_left_is_made_again() -> None:
    journal = KeptJournal()
    gone = Agent("gone", model=ScriptedModel([ModelError("no", status=404)]))
    team = Team([gone], mode="pick", pick=lambda _: "gone", name="t")
    with pytest.raises(ModelError):
        await team.answer(Message.user("x"), surroundings(journal))
    team = Team([echo("new")], mode="pick", pick=lambda _: "new", name="t")
    assert (await team.answer(Message.user("x"), surroundings(journal))).content == "new(x)"


async def test_teams_pick_teams_and_offer_what_agents_offer() -> None:
    inner = Team([echo("a"), echo("b")], mode="parallel", name="both")
    team = Team([inner, echo("c")], mode="pick", pick=lambda m: "both" if "2" in m.text else "c", name="desk")
    outcomes = await team.run_many(["1", "2", "3"], max_concurrency=2)
    assert [outcome.content for outcome in outcomes] == ["c(1)", "## a\n\na(2)\n\n## b\n\nb(2)", "c(3)"]
    seen = {index: outcome async for index, outcome in team.as_completed(["1", "3"])}
    assert sorted(seen) == [0, 1]


def test_a_team_runs_without_a_loop() -> None:
    team = Team([echo("a"), echo("b")], mode="sequential", name="chain")
    assert team.run_sync("x").content == "b(a(x))"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "parallel", "model": "demo"}, '`pick` and `model` are for mode="pick"'),
        ({"mode": "parallel", "when": {"a": "true"}}, "`when` of a member is for `mode: pick`"),
        ({"mode": "pick", "when": {"c": "true"}}, "`when` names 'c', which is no member; members: a, b"),
        ({"mode": "pick", "when": {"a": "true"}, "instructions": "x"}, "`instructions` is not used where `when`"),
        ({"mode": "pick", "when": {"a": "true"}, "pick": len}, "not by two of them"),
        ({"mode": "pick", "over": "event.data"}, "`over` is for `mode: map`"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Team([echo("a"), echo("b")], **options)


def test_members_of_one_name_cannot_be_picked_and_options_are_spelt_right() -> None:
    with pytest.raises(ValueError, match='"a" is a member already'):
        Team([echo("a"), echo("a")], mode="pick", model="demo")
    with pytest.raises(TypeError, match="unexpected keyword argument 'instruction'; did you mean 'instructions'"):
        Team([echo("a")], mode="pick", instruction="x")  # pyright: ignore[reportCallIssue]
