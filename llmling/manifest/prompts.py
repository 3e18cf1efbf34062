"""Configs of structured instructions, and which reasoning templates there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from llmling.manifest.base import Config, Count, FullTemplate, Template

Depth: TypeAlias = Literal["quick", "standard", "thorough", "comprehensive"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
"""How deep a template goes, each depth with the steps of those before it."""

TemplateName: TypeAlias = Literal[
    "ArgumentEvaluator",
    "AssumptionAuditor",
    "BriefingWriter",
    "CodeReviewer",
    "DecisionMatrix",
    "EstimateBuilder",
    "FirstPrinciplesThinker",
    "HypothesisGenerator",
    "IncidentReviewer",
    "PremortemAnalyst",
    "RequirementsAnalyst",
    "RiskAssessor",
    "RootCauseAnalyzer",
    "ScenarioPlanner",
    "StakeholderMapper",
]


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """The arguments of a template: what it is about, in words for messages, and further material."""

    subject: str
    about: str
    more: tuple[str, ...] = ()


TEMPLATES: Mapping[str, TemplateSpec] = {
    "ArgumentEvaluator": TemplateSpec("argument", "the text that argues for something", ("evidence",)),
    "AssumptionAuditor": TemplateSpec("plan", "the plan whose assumptions are looked for", ("situation",)),
    "BriefingWriter": TemplateSpec("text", "the text to brief somebody about", ("audience", "purpose")),
    "CodeReviewer": TemplateSpec("change", "the code or the diff", ("purpose", "situation")),
    "DecisionMatrix": TemplateSpec("decision", "what is to be decided", ("options", "criteria", "situation")),
    "EstimateBuilder": TemplateSpec("question", "the quantity that is asked for", ("evidence",)),
    "FirstPrinciplesThinker": TemplateSpec("problem", "the problem to think through afresh", ("situation",)),
    "HypothesisGenerator": TemplateSpec("observation", "what was observed", ("evidence",)),
    "IncidentReviewer": TemplateSpec("incident", "what happened", ("evidence",)),
    "PremortemAnalyst": TemplateSpec("plan", "the plan that may fail", ("situation",)),
    "RequirementsAnalyst": TemplateSpec("request", "what somebody asked for", ("situation",)),
    "RiskAssessor": TemplateSpec("decision", "the decision whose risks are wanted", ("situation",)),
    "RootCauseAnalyzer": TemplateSpec("problem", "the problem whose cause is wanted", ("evidence",)),
    "ScenarioPlanner": TemplateSpec("question", "what depends on how the future turns out", ("situation", "horizon")),
    "StakeholderMapper": TemplateSpec("plan", "the plan that touches people", ("situation",)),
}
"""Every template by name; `llmling.prompts.library` holds their texts."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[Template], BeforeValidator(_one_or_more, json_schema_input_type=str | list[str])]


class GuidanceConfig(Config):
    """Who the agent is and how it works."""

    role: Template = ""
    """Who it is."""
    goal: Template = ""
    """What it is after."""
    style: Template = ""
    """How it writes."""
    rules: Texts = Field(default=[])
    """Short sentences it keeps to, or one."""


class ConstraintsConfig(Config):
    """What an answer must keep to."""

    must: Texts = Field(default=[])
    """What every answer does: short sentences, or one."""
    must_not: Texts = Field(default=[])
    """What no answer does: short sentences, or one."""
    format: Template = ""
    """What an answer looks like."""
    max_words: Count | None = None
    """Longest answer, in words."""
    language: Template = ""
    """Language of the answers."""


def _text_or_parts(value: object) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<mapping>" if isinstance(value, Mapping | Config) else None


_EITHER = Discriminator(_text_or_parts, "text_or_mapping", "should be a text or a mapping")
Guidance = Annotated[Annotated[Template, Tag("<text>")] | Annotated[GuidanceConfig, Tag("<mapping>")], _EITHER]
Constraints = Annotated[Annotated[Template, Tag("<text>")] | Annotated[ConstraintsConfig, Tag("<mapping>")], _EITHER]
Loc: TypeAlias = tuple[str | int, ...]


class StructuredInstructionsConfig(Config):
    """Instructions made of parts: guidance and constraints go to the system turn, a directive frames the message."""

    guidance: Guidance | None = None
    """Who the agent is: a text, or a mapping."""
    directive: FullTemplate | None = None
    """What to do with each message, which is inserted where `{{ message }}` stands, else behind a blank line."""
    constraints: Constraints | None = None
    """What each answer keeps to: a text, or a mapping."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.guidance is None and self.directive is None and self.constraints is None:
            raise ValueError("structured instructions are empty; write `guidance:`, `directive:` or `constraints:`")
        return self

    def texts(self) -> Iterator[tuple[Loc, str]]:
        """Yield every template in it with its place."""
        for part, config in (("guidance", self.guidance), ("constraints", self.constraints)):
            if isinstance(config, str):
                yield (part,), config
            elif config is not None:
                for name, value in config:
                    if isinstance(value, str):
                        yield (part, name), value
                    elif isinstance(value, list):
                        yield from (((part, name, index), text) for index, text in enumerate(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if self.directive is not None:
            yield ("directive",), self.directive


class TemplateInstructionsConfig(Config):
    """Instructions by a reasoning template: what it is about is each message, unless it is written here."""

    prompt: TemplateName
    """Name of the template."""
    depth: Depth = "standard"
    """How deep it goes."""
    argument: Template | None = None
    """For ArgumentEvaluator, instead of the message: the text that argues."""
    audience: Template | None = None
    """For BriefingWriter: who reads it."""
    change: Template | None = None
    """For CodeReviewer, instead of the message: the code or the diff."""
    criteria: Texts | None = None
    """For DecisionMatrix: what the options are judged by."""
    decision: Template | None = None
    """For RiskAssessor and DecisionMatrix, instead of the message: what is to be decided."""
    evidence: Texts | None = None
    """What is known about it: logs, figures, reports."""
    horizon: Template | None = None
    """For ScenarioPlanner: how far ahead to look."""
    incident: Template | None = None
    """For IncidentReviewer, instead of the message: what happened."""
    observation: Template | None = None
    """For HypothesisGenerator, instead of the message: what was observed."""
    options: Texts | None = None
    """For DecisionMatrix: what there is to choose from."""
    plan: Template | None = None
    """For PremortemAnalyst, AssumptionAuditor and StakeholderMapper, instead of the message: the plan."""
    problem: Template | None = None
    """For RootCauseAnalyzer and FirstPrinciplesThinker, instead of the message: the problem."""
    purpose: Template | None = None
    """For BriefingWriter and CodeReviewer: what it is for."""
    question: Template | None = None
    """For EstimateBuilder and ScenarioPlanner, instead of the message: the question."""
    request: Template | None = None
    """For RequirementsAnalyst, instead of the message: what was asked for."""
    situation: Texts | None = None
    """What surrounds it and does not change."""
    text: Template | None = None
    """For BriefingWriter, instead of the message: the text."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        spec = TEMPLATES[self.prompt]
        for name in self.arguments:
            if name not in (spec.subject, *spec.more):
                raise PydanticCustomError(
                    "prompt_argument",
                    '{prompt} takes no "{at}"; it takes {known}',
                    {"prompt": self.prompt, "at": name, "known": ", ".join((spec.subject, *spec.more, "depth"))},
                )
        return self

    @property
    def arguments(self) -> dict[str, str | list[str]]:
        """What is written here for the template, by the names of its arguments."""
        return {name: value for name, value in self if name not in {"prompt", "depth"} and value is not None}

    def texts(self) -> Iterator[tuple[Loc, str]]:
        """Yield every template in it with its place."""
        for name, value in self.arguments.items():
            if isinstance(value, str):
                yield (name,), value
            else:
                yield from (((name, index), text) for index, text in enumerate(value))
