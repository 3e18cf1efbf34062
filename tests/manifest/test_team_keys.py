"""Teams in a manifest: keys that fit the mode, members that exist once, models and callables that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.manifest import check, load

CASES = {
    "keys of another mode": """\
agents: {a: {model: demo}, b: {model: demo}}
teams:
  one: {members: [a, b], model: ⟦LL212 `model` is for `mode: pick` (teams.one); remove it, or write `mode: pick`⟧demo}
  two: {mode: sequential, members: [a], over: ⟦LL212 `over` is for `mode: map`⟧event.data}
  three: {members: [a], max_concurrency: ⟦LL212 is for `mode: map`⟧2, instructions: ⟦LL212 is for `mode: pick`⟧x}
  four: {mode: map, members: [a, {name: b, when: ⟦LL212 `when` of a member is for `mode: pick`⟧"true"}]}
  five: {members: [a], pick: ⟦LL212 is for `mode: pick`⟧"planted_tools:word_count"}
  six: {mode: ⟦LL204 did you mean "pick"?⟧pik, members: [a]}
""",
    "members": """\
agents: {a: {model: demo}, b: {model: demo}, c: {model: demo}}
teams:
  one: {mode: pick, members: [a, b, ⟦LL212 "a" is a member already (members[0])⟧a]}
  two: {mode: pick, members: [a, {name: ⟦LL301 did you mean "a"?⟧aa, when: "true"}]}
  three:
    mode: pick
    members:
      - {name: a, when: "true"}
      - b
      - ⟦LL212 "c" is never picked: members[1] has no `when` either⟧c
  four: {mode: map, members: [⟦LL301 unknown agent or team "nobody"⟧nobody]}
  five: {mode: pick, members: [a, {name: six, when: "false"}]}
  six: {mode: map, members: [⟦LL304 team contains itself: five -> six -> five⟧five]}
  seven: {mode: pick, members: [a, {⟦LL201 write `name:`⟧agent: b, name: b}, {⟦LL202 missing key "name"⟧when: "true"}]}
  eight: {members: [a, a], mode: sequential}
""",
    "how to pick": """\
agents: {a: {model: demo}, b: {model: demo}}
teams:
  one: {mode: pick, members: [a, {name: b, when: "true"}], model: ⟦LL212 `when` of the members decides⟧demo}
  two: {mode: pick, members: [a, b], pick: "planted_tools:word_count", model: ⟦LL212 `pick` decides⟧demo}
  three: {mode: pick, members: [{name: a, when: ⟦LL212 `pick` decides⟧"true"}, b], pick: "planted_tools:word_count"}
  four: {mode: pick, members: [a, b], pick: ⟦LL309 not callable⟧"planted_tools:NUMBER"}
  five: {mode: pick, members: [a, b], model: ⟦LL310 there is no file "none.yml"⟧demo:none.yml}
  six: {mode: pick, members: [a, b], instructions: ⟦LL208 there is no "agnt"⟧"{{ agnt }}"}
""",
    "expressions": """\
agents: {a: {model: demo}, b: {model: demo}}
teams:
  one: {mode: pick, members: [{name: a, when: ⟦LL209 its end was expected earlier⟧"event.data good"}, b]}
  two: {mode: map, members: [a], over: ⟦LL209 write it without {{ }}⟧"{{ event.data }}"}
  three: {mode: map, members: [a], over: ⟦LL209 there is no "date", so there is nothing to map over⟧date.list}
  four: {mode: map, members: [a], over: data.list, max_concurrency: ⟦LL204 at least 1⟧0}
  five: {mode: pick, members: [{name: a, when: ⟦LL209 so this is always false⟧evnt.data}, b]}
""",
}


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_told_at_its_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_tools.py").write_text("NUMBER = 3\ndef word_count(message): return 'a'\n")
    expected = plant(tmp_path, {"m.yml": CASES[name]})
    monkeypatch.chdir(tmp_path)
    compare(check(tmp_path / "m.yml"), expected, tmp_path)


def test_only_a_team_that_asks_a_model_has_one() -> None:
    text = {
        "defaults": {"model": "openai/gpt-4o-mini"},
        "agents": {"a": {}, "b": {"model": "demo"}},
        "teams": {
            "asks": {"mode": "pick", "members": ["a", "b"]},
            "own": {"mode": "pick", "members": ["a", "b"], "model": "demo"},
            "when": {"mode": "pick", "members": [{"name": "a", "when": "true"}, "b"]},
            "all": {"members": ["a", "b"]},
        },
    }
    models = {name: team.model and team.model.type for name, team in load(text).teams.items()}
    assert models == {"asks": "litellm", "own": "demo", "when": None, "all": None}
    del text["defaults"]
    asks = load(text).teams["asks"]
    assert asks.model is not None
    assert asks.model.type == "auto"
