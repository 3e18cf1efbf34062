"""Mistakes in structured instructions are told at their place, with what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.manifest import check

MISTAKES = """agents:
  a:
    instructions:
      guidance: {⟦LL201 did you mean "role"⟧rol: x, rules: [fine, ⟦LL208 there is no "evnt"⟧"{{ evnt }}"]}
      directive: ⟦LL208 there is no "mesage" (agents.a.instructions); did you mean "message"⟧"{{ mesage }}"
  b:
    instructions:
      directive: ⟦LL204 should not be empty⟧""
      constraints: {max_words: ⟦LL204 at least 1⟧0, must: ⟦LL203⟧{a: b}}
  c:
    instructions: {prompt: ⟦LL204 did you mean "RootCauseAnalyzer"⟧RootCauseAnalyser}
  d:
    instructions:
      prompt: RiskAssessor
      depth: ⟦LL204 did you mean "thorough"⟧thorogh
  e:
    instructions:
      prompt: RiskAssessor
      problem: ⟦LL201 RiskAssessor takes no "problem"; it takes decision, situation, depth⟧it rains
  f:
    instructions: {prompt: RiskAssessor, ⟦LL201 did you mean "decision"⟧desicion: x}
  g:
    instructions: ⟦LL212 structured instructions are empty⟧{}
  h:
    instructions: ⟦LL203 "instructions" should be a text, a list of texts or a mapping⟧3
  i:
    triggers:
      - type: schedule
        every_s: 5
        prompt: ⟦LL212 a tick says nothing, so RiskAssessor needs `decision`⟧{prompt: RiskAssessor}
      - type: file
        paths: [in]
        prompt: {prompt: ⟦LL204 did you mean "RiskAssessor"⟧RiskAsessor}
      - type: file
        paths: [in]
        prompt: {prompt: RiskAssessor, problem: ⟦LL201 takes no "problem"⟧x}
      - type: webhook
        prompt: {prompt: RiskAssessor, situation: ⟦LL208 there is no "message"⟧"{{ message }}"}
    instructions: {guidance: ⟦LL208 there is no "message"⟧"in {{ message }}"}
"""

GOOD = """agents:
  a:
    instructions:
      guidance: {role: "{{ agent }} of {{ event.source }}", rules: one}
      directive: "Judge {{ message }} on {{ now.date() }}"
      constraints: {must: [x], must_not: y, format: z, max_words: 100, language: German}
  b: {instructions: {guidance: x, constraints: y}}
  c: {instructions: {prompt: RootCauseAnalyzer, depth: thorough}}
  d:
    instructions:
      prompt: DecisionMatrix
      decision: "{{ event.subject }}"
      options: [a, "{{ message }}"]
      criteria: c
    triggers:
      - {type: webhook, prompt: {prompt: RootCauseAnalyzer, evidence: "{{ event.subject }}"}}
      - {type: schedule, every_s: 5, prompt: {prompt: RiskAssessor, decision: "Go on?", depth: quick}}
"""


def test_each_mistake_is_told_once_at_its_place(tmp_path: Path) -> None:
    expected = plant(tmp_path, {"m.yml": MISTAKES})
    compare(check(tmp_path / "m.yml"), expected, tmp_path)


def test_good_ones_have_no_problems(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(GOOD)
    assert check(tmp_path / "m.yml") == []


@pytest.mark.parametrize("text", ["x-note: 1, prompt: RiskAssessor", "x-note: 1, guidance: x"])
def test_notes_are_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(f"agents: {{a: {{instructions: {{{text}}}}}}}")
    assert check(tmp_path / "m.yml") == []
