"""Building a prompt from parts: what goes where, and which mistakes are named before anything is sent."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from llmling import Constraints, Context, Directive, Guidance
from llmling.testing import ScriptedModel


def test_guidance_and_constraints_are_the_system_turn_and_the_directive_is_the_user_turn() -> None:
    context = Context(
        guidance=Guidance(
            role="Senior data analyst",
            goal="Identify anomalies",
            style="Terse.",
            rules=["Show numbers.", "Name units."],
        ),
        directive=Directive("Analyze Q3 revenue."),
        constraints=Constraints(
            must=["cite the row"], must_not="guess", format="a table", max_words=200, language="English"
        ),
    )
    assert context.user() == "Analyze Q3 revenue."
    assert context.system() == (
        "Role: Senior data analyst\n"
        "Goal: Identify anomalies\n"
        "Style: Terse.\n"
        "Rules:\n"
        "- Show numbers.\n"
        "- Name units.\n"
        "\n"
        "The answer must:\n"
        "- cite the row\n"
        "The answer must not:\n"
        "- guess\n"
        "Format of the answer: a table\n"
        "Length of the answer: at most 200 words\n"
        "Language of the answer: English"
    )


def test_texts_stand_as_they_are_and_what_is_not_given_is_left_out() -> None:
    assert Context(guidance="You are terse.", directive="Go.").system() == "You are terse."
    assert Context(guidance=Guidance(goal="g"), directive="Go.").system() == "Goal: g"
    assert Context(directive="Go.").system() == ""
    assert Context(guidance=Guidance(), constraints="Be brief.", directive="Go.").system() == "Be brief."


def test_variables_fill_every_part_once() -> None:
    context = Context(
        guidance=Guidance(role="expert of {{ field }}", rules=["Answer {{customer}}."]),
        directive="{{ question }}",
        constraints=Constraints(must="speak of {{ field }}", format="{{ field }}", language="{{ field }}"),
        variables={"field": "tea", "customer": "Ada", "question": "What is {{ field }}? {% if x %}"},
    )
    assert context.user() == "What is {{ field }}? {% if x %}", "a value is never read as a placeholder"
    assert context.system().count("tea") == 4
    assert "- Answer Ada." in context.system()


@pytest.mark.parametrize(
    ("directive", "variables", "message"),
    [
        ("{{ problem }}", {}, r"no variable 'problem' for the placeholder \{\{ problem \}\}; give variables="),
        ("{{ problem }}", {"probelm": "x"}, "no variable 'problem'.*is it 'probelm' in `variables`"),
        ("{{ a }}", {"a": 1, "other": 2}, "variable 'other' is not used.*placeholders: 'a'"),
        ("none", {"other": 2}, "variable 'other' is not used.*placeholders: none"),
    ],
)
def test_a_missing_or_unknown_variable_is_named(directive: str, variables: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Context(directive=directive, variables=variables)


def test_other_braces_are_text() -> None:
    text = "{ {{ }} {{ a.b }} {{ 1 }} {# no comment #} {% raw"
    assert Context(directive=text).user() == text


def test_data_stands_behind_the_directive_and_is_no_template() -> None:
    context = Context(directive="Sum up.", data={"text": "{{ x }}", "wörter": [1, 2]})
    assert context.user().startswith("Sum up.\n\n<data>\n{\n")
    assert '"{{ x }}"' in context.user()
    assert '"wörter"' in context.user()
    assert Context(directive="Sum up.", data="plain").user() == "Sum up.\n\n<data>\nplain\n</data>"


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        (Context, {"guidance": 3}, "guidance=...) should be a Guidance or a text, not int"),
        (Context, {"directive": Guidance()}, "directive=...) should be a Directive or a text, not Guidance"),
        (Guidance, {"role": None}, "Guidance(role=...) should be a text, not NoneType"),
        (Guidance, {"rules": [1]}, "Guidance(rules=...) should hold texts, not int"),
        (Directive, {"content": 7}, "Directive(content=...) should be a text, not int"),
    ],
)
def test_wrong_types_are_named(part: type[Any], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        part(**wrong)
    assert message in str(caught.value)


@pytest.mark.parametrize("words", [0, -1, True, "many", 1.5])
def test_a_length_is_a_whole_number(words: Any) -> None:
    with pytest.raises(ValueError, match="max_words"):
        Constraints(max_words=words)


def test_a_context_is_frozen_and_keeps_nothing_of_the_caller() -> None:
    variables: dict[str, object] = {"x": "one"}
    context = Context(directive="{{ x }}", variables=variables)
    variables["x"] = "two"
    assert context.user() == "one"
    assert context.variables == {"x": "one"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.directive = "other"  # pyright: ignore[reportAttributeAccessIssue]
    assert context == Context(directive="{{ x }}", variables={"x": "one"})


def test_the_message_of_a_run_stands_where_the_directive_says_or_behind_it() -> None:
    assert Context(directive="Judge this: {{ message }}. Be fair.").user("{{ x }}") == "Judge this: {{ x }}. Be fair."
    assert Context(directive="Judge this.").user("It rains.") == "Judge this.\n\nIt rains."
    assert Context(guidance="g").user("It rains.") == "It rains."
    assert Context(directive="Judge {{ message }}", variables={"message": "me"}).user("you") == "Judge me\n\nyou"


@pytest.mark.parametrize("directive", ["", "   \n", Directive("")])
async def test_an_empty_directive_is_refused_before_any_request(directive: Any) -> None:
    model = ScriptedModel(["never"])
    with pytest.raises(ValueError, match="the directive is empty"):
        await Context(guidance="You are here.", directive=directive).aexecute(model=model)
    with pytest.raises(ValueError, match=r"\{\{ message \}\}"):
        await Context(directive="Judge {{ message }}").aexecute(model=model)
    assert model.requests == []
