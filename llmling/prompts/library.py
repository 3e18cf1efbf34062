"""The reasoning templates by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from llmling.prompts.causes import FirstPrinciplesThinker, HypothesisGenerator, IncidentReviewer, RootCauseAnalyzer
from llmling.prompts.decisions import DecisionMatrix, EstimateBuilder, PremortemAnalyst, RiskAssessor, ScenarioPlanner
from llmling.prompts.judgements import ArgumentEvaluator, AssumptionAuditor, CodeReviewer
from llmling.prompts.people import BriefingWriter, RequirementsAnalyst, StakeholderMapper
from llmling.prompts.template import ReasoningTemplate

__all__ = [
    "LIBRARY",
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
    "ReasoningTemplate",
    "RequirementsAnalyst",
    "RiskAssessor",
    "RootCauseAnalyzer",
    "ScenarioPlanner",
    "StakeholderMapper",
    "template_named",
]

_KINDS: tuple[type[ReasoningTemplate], ...] = (
    ArgumentEvaluator, AssumptionAuditor, BriefingWriter, CodeReviewer, DecisionMatrix, EstimateBuilder,
    FirstPrinciplesThinker, HypothesisGenerator, IncidentReviewer, PremortemAnalyst, RequirementsAnalyst,
    RiskAssessor, RootCauseAnalyzer, ScenarioPlanner, StakeholderMapper,
)  # fmt: skip

LIBRARY: Mapping[str, type[ReasoningTemplate]] = {kind.__name__: kind for kind in _KINDS}
"""Every template by name, as a manifest names it."""


def template_named(name: str) -> ReasoningTemplate:
    """Return the template of that name.

    Raises:
        LookupError: There is none.
    """
    if name in LIBRARY:
        return LIBRARY[name]()
    close = difflib.get_close_matches(name, LIBRARY, 1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(LIBRARY)}"
    raise LookupError(f"no reasoning template {name!r}{hint}")
