"""The reasoning templates: what they take, what they refuse, and that each of them is its own."""

from __future__ import annotations

import itertools
from typing import Any, NotRequired, get_args, get_origin, get_type_hints

import pytest

from llmling import Context
from llmling.manifest.prompts import DEPTHS, TEMPLATES, TemplateName
from llmling.prompts.library import LIBRARY, DecisionMatrix, RiskAssessor, RootCauseAnalyzer, template_named
from llmling.prompts.template import ReasoningTemplate
from llmling.testing import ScriptedModel

EACH = pytest.mark.parametrize("name", LIBRARY)


def built(name: str, depth: str = "standard") -> Context:
    return LIBRARY[name]().build({TEMPLATES[name].subject: "It rains in.", "depth": depth})


def test_manifest_and_library_know_the_same_templates() -> None:
    assert len(LIBRARY) >= 12
    assert tuple(LIBRARY) == tuple(TEMPLATES) == get_args(TemplateName)


@EACH
def test_a_template_takes_what_the_manifest_says(name: str) -> None:
    build: Any = LIBRARY[name].__dict__["build_context"]
    arguments = get_type_hints(get_args(get_type_hints(build)["arguments"])[0], include_extras=True)
    spec = TEMPLATES[name]
    assert arguments.keys() == {spec.subject, *spec.more, "depth"}
    assert [key for key, hint in arguments.items() if get_origin(hint) is not NotRequired] == [spec.subject]


@EACH
def test_what_it_is_about_is_in_the_user_turn_and_the_role_in_the_system_turn(name: str) -> None:
    context, subject = built(name), TEMPLATES[name].subject
    assert f"<{subject}>\nIt rains in.\n</{subject}>" in context.user()
    assert "It rains in." not in context.system()
    assert LIBRARY[name].guidance.role in context.system()
    assert LIBRARY[name].constraints.format in context.system()


@EACH
def test_each_depth_asks_for_all_of_the_one_before_and_more(name: str) -> None:
    steps = [LIBRARY[name].steps.down_to(depth) for depth in DEPTHS]
    for shallow, deep in itertools.pairwise(steps):
        assert set(shallow) < set(deep)
        assert shallow[-1] == deep[-1], "the conclusion stays last"
    assert len({built(name, depth).system() for depth in DEPTHS}) == len(DEPTHS), "longer answers when deeper"
    assert len(steps[-1]) >= 8


def test_no_two_templates_share_a_sentence() -> None:
    seen: dict[str, str] = {}
    for name, kind in LIBRARY.items():
        texts = [
            kind.task, kind.guidance.role, kind.guidance.goal, *kind.guidance.rules, kind.constraints.format,
            *kind.constraints.must, *kind.constraints.must_not, *kind.steps.down_to("comprehensive"),
        ]  # fmt: skip
        for text in texts:
            assert text not in seen, f"{name} and {seen[text]}: {text}"
            seen[text] = name
        assert len(kind.guidance.rules) >= 2
        assert kind.__doc__


def test_the_calls_of_the_seed_page() -> None:
    cause = RootCauseAnalyzer().build_context(problem="Revenue fell.", depth="thorough")
    risk = RiskAssessor().build_context(decision="Raise prices.", depth="comprehensive")
    assert "Revenue fell." in cause.user()
    assert "Raise prices." in risk.user()
    assert "worst case" in risk.user()


def test_lists_become_bullets_and_empty_material_is_left_out() -> None:
    context = DecisionMatrix().build_context(decision="Which?", options=["a", "b"], criteria="", situation="none")
    assert "<options>\n- a\n- b\n</options>" in context.user()
    assert "<criteria>" not in context.user()


def test_text_from_outside_is_never_a_placeholder() -> None:
    context = RootCauseAnalyzer().build_context(problem="{{ evidence }} {{ x }} {% y %}", evidence="e")
    assert "{{ evidence }} {{ x }} {% y %}" in context.user()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "RootCauseAnalyzer.build_context() needs the argument 'problem'"),
        ({"probelm": "x"}, TypeError, "has no argument 'probelm'; did you mean 'problem'?"),
        ({"problem": "x", "dept": "quick"}, TypeError, "has no argument 'dept'; did you mean 'depth'?"),
        ({"problem": "x", "decision": "y"}, TypeError, "'decision'; it takes problem, evidence, depth"),
        ({"problem": 3}, TypeError, "'problem' should be a text or a list of texts, not int"),
        ({"problem": "x", "evidence": [1]}, TypeError, "'evidence' should be a text or a list of texts, not list"),
        ({"problem": " "}, ValueError, "'problem' is empty"),
        (
            {"problem": "x", "depth": "thorogh"},
            ValueError,
            "'thorogh' is none of quick, standard, thorough, comprehensive; did you mean 'thorough'?",
        ),
        ({"problem": "x", "depth": None}, ValueError, "depth None is none of quick"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        RootCauseAnalyzer().build_context(**arguments)
    assert message in str(caught.value)


def test_templates_are_found_by_name() -> None:
    assert isinstance(template_named("RiskAssessor"), RiskAssessor)
    with pytest.raises(LookupError, match="did you mean 'RiskAssessor'"):
        template_named("RiskAsessor")
    assert issubclass(RiskAssessor, ReasoningTemplate)


async def test_a_template_runs() -> None:
    model = ScriptedModel(["the pump"])
    result = await RootCauseAnalyzer().build_context(problem="It drips.").aexecute(model=model)
    assert result.response == "the pump"
    assert result.agent == "RootCauseAnalyzer"
    assert [turn.role for turn in model.requests[0].messages] == ["system", "user"]
