"""Templates and expressions are held against what they can take from outside, with the exact line of the mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.manifest import check

CASES: dict[str, str] = {
    "names": """\
agents:
  a:
    instructions: ⟦LL208 there is no "nwo" (agents.a); did you mean "now"?⟧"Today {{ nwo }}"
    knowledge:
      - {type: prompt, template: ⟦LL208 did you mean "event"?⟧"{{ evet.id }}"}
    triggers:
      - {type: webhook, prompt: ⟦LL208 an event has no "subjct" (agents.a.triggers[0]); did you⟧"{{ event.subjct }}"}
      - {type: webhook, path: /b, filter: ⟦LL209 so this is always false⟧"evnt.data.x == 3"}
      - {type: webhook, path: /c, prompt: ⟦LL208 write event.data.repo⟧"{{ event['repo'] }}"}
    connections: [{to: b, when: ⟦LL209 did you mean "message"?⟧"'}}' in messge.text"}]
    sinks:
      - {type: file, path: ⟦LL208 did you mean "id"?⟧"out/{{ event.idd }}.md"}
      - {type: file, path: "out/{{ agent }}-{{ delivery_id }}.md"}
  b:
    instructions:
      - "{% for i in range(3) %}{{ i }}{{ loop.index }}{% endfor %}{% set z = 3 %}{{ z }}{{ now.date() }}{{ agent }}"
      - "{{ who|default('you') }}{% if who is defined %}x{% endif %}{{ event.subject if event }}"
      - ⟦LL208 cannot read other files⟧"{% include 'other.txt' %}"
    connections: [{to: c, when: "message.text and event.data.nothing.here == 3"}]
  c: {}
""",
    "lines": """\
agents:
  a:
    instructions: |
      one
      two {{ now }}
      ⟦LL208 there is no "nwo"⟧three {{ nwo }}
    knowledge:
      - type: prompt
        template: >-
          folded text

          second paragraph
          ⟦LL208 unknown tag 'endif'⟧with {% endif %}
      - type: prompt
        template: >
          one
          ⟦LL208 did you mean "now"?⟧{{ nwo }}

          two
""",
    "words": """\
agents:
  a:
    triggers:
      - {type: webhook, path: /1, prompt: ⟦LL208 no filter 'uper'; did you mean "upper"?⟧"{{ event.subject|uper }}"}
      - {type: webhook, path: /2, filter: ⟦LL209 no test 'defind'; did you mean "defined"?⟧"event.data is defind"}
      - {type: webhook, path: /3, filter: ⟦LL209 without {{ }}⟧"{{ event.data.x }}"}
      - {type: webhook, path: /4, filter: ⟦LL209 compare with `==`⟧"event.data.x = 3"}
      - {type: webhook, path: /5, filter: ⟦LL209 it is empty⟧""}
      - {type: schedule, prompt: x, cron: ⟦LL210 did you mean "@daily"?⟧"@dayly"}
      - {type: schedule, prompt: x, cron: ⟦LL210 five fields and has 4⟧"0 2 * *"}
      - {type: schedule, prompt: x, every_s: 3, timezone: ⟦LL211 did you mean "Europe/Berlin"?⟧Europe/Berln}
      - {type: schedule, prompt: x, every_s: 3, timezone: ⟦LL211 unknown time zone "Nowhere"; write one⟧Nowhere}
""",
}


@pytest.mark.parametrize("name", CASES)
def test_every_mistake_has_its_place(name: str, tmp_path: Path) -> None:
    expected = plant(tmp_path, {"m.yml": CASES[name]})
    compare(check(tmp_path / "m.yml"), expected, tmp_path)


def test_an_expression_that_is_always_false_is_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text("agents: {a: {triggers: [{type: webhook, filter: nothing.here}]}}")
    assert [problem.severity for problem in check(tmp_path / "m.yml")] == ["warning"]


def test_text_from_a_variable_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text('agents: {a: {instructions: "${TEXT}"}}')
    (problem,) = check(tmp_path / "m.yml", env={"TEXT": "{{ hidden_name }}"})
    assert problem.message == "once TEXT is filled in, it asks for what is not there (agents.a)"
