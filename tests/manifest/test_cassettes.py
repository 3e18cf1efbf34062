"""A cassette that cannot be replayed is refused by `check`, each mistake at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.errors import ManifestError
from llmling.manifest import check, load
from llmling.planning import plan

CASES: dict[str, dict[str, str]] = {
    "exchanges": {
        "m.yml": "agents: {a: {model: 'replay:tapes/c.yml'}, b: {model: {type: replay, path: tapes/c.yml}}}\n",
        "tapes/c.yml": """\
version: 1
tools:
  add: {name: add, parameters: {type: object}}
  ⟦LL202 missing key "name" in tools.sub⟧sub: {description: x}
exchanges:
  - ⟦LL202 missing key "agent" in exchanges[0]⟧request: {messages: [{role: ⟦LL204 did you mean "user"?⟧usr, text: hi}]}
    replies: [{model: x, answer: {text: ⟦LL203 put it in quotes⟧42}}]
  - agent: a
    request: {messages: [{role: user, text: "${MINE}"}], tools: [add, ⟦LL313 did you mean "add"?⟧ad]}
    replies:
      - ⟦LL212 either an `answer:` or an `error:`⟧{model: x}
      - {model: x, ⟦LL201 did you mean "error"?⟧eror: {message: busy}, answer: {}}
⟦LL201 did you mean "exchanges"?⟧exchange: []
""",
    },
    "another version": {
        "m.yml": "agents: {a: {model: 'replay:c.yml'}}\n",
        "c.yml": "⟦LL313 cassettes of `version: 1`⟧version: 2\nexchanges: []\n",
    },
    "no cassette": {
        "m.yml": "agents: {a: {model: 'replay:c.yml'}}\n",
        "c.yml": "⟦LL313 a mapping with `exchanges:`⟧- {match: x, reply: y}\n",
    },
    "no list": {
        "m.yml": "agents: {a: {model: 'replay:c.yml'}}\n",
        "c.yml": "version: 1\n⟦LL203 should be a mapping⟧tools: []\n⟦LL203 should be a list⟧exchanges: {}\n",
    },
    "no YAML": {
        "m.yml": "agents: {a: {model: 'replay:c.yml'}}\n",
        "c.yml": "version: 1\nexchanges: ⟦LL004⟧@\n",
    },
    "missing": {
        "m.yml": """\
agents:
  a: {model: ⟦LL310 did you mean "inbox.yml"?⟧"replay:inbx.yml"}
  b: {model: {type: fallback, models: [demo, ⟦LL310 there is no file⟧"replay:none.yml"]}}
  c: {model: ⟦LL310 cannot read⟧"replay:folder"}
""",
        "inbox.yml": "version: 1\nexchanges: []\n",
        "folder/x": "",
    },
}


@pytest.mark.parametrize("name", CASES)
def test_every_mistake_has_its_place(name: str, tmp_path: Path) -> None:
    expected = plant(tmp_path, CASES[name])
    compare(check(tmp_path / "m.yml"), expected, tmp_path)


def test_a_cassette_named_in_an_included_file_is_looked_for_beside_it(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "m.yml": "include: [shared/a.yml]\nagents: {}\n",
            "shared/a.yml": "agents: {a: {model: 'replay:c.yml'}}\n",
            "shared/c.yml": "x-note: by hand\nversion: 1\nexchanges: []\n",
        },
    )
    assert check(tmp_path / "m.yml") == []
    assert plan(load(tmp_path / "m.yml")).agents[0].model == "replay:shared/c.yml"


def test_a_cassette_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text("agents: {a: {model: 'replay:c.yml'}}\n")
    with (tmp_path / "c.yml").open("wb") as file:
        file.truncate(20_000_001)
    with pytest.raises(ManifestError, match="LL003: a cassette has at most 20,000,000 bytes"):
        load(tmp_path / "m.yml")
