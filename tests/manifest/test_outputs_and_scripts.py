"""What `serve` would refuse at its start is refused by `check`, at its place: output schemas, demo scripts, hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import compare, plant

from llmling.manifest import check

CASES: dict[str, dict[str, str]] = {
    "output schemas": {
        "m.yml": """\
agents:
  a: {output: {type: ⟦LL214 did you mean "object"?⟧objekt}}
  b: {output: {type: object, properties: {x: {type: string}, y: {$ref: ⟦LL214 which is not in it⟧"#/$defs/no"}}}}
  c: {output: {required: ⟦LL214 not of type 'array'⟧x, properties: {q: {type: ⟦LL214 did you mean "integer"?⟧int}}}}
  d: {output: {$defs: {x: {type: number}}, properties: {y: {$ref: "#/$defs/x"}}}}
"""
    },
    "demo scripts": {
        "m.yml": "agents: {a: {model: 'demo:s.yml'}, b: {model: 'demo:s.yml'}}\n",
        "s.yml": """\
- match: ⟦LL212 not a regular expression⟧"(unclosed"
  reply: hi
- ⟦LL201 unknown key "repl" in script[1]; did you mean "reply"?⟧repl: hi
- {reply: x, error: ⟦LL204⟧501x}
- {reply: "${NOT_FILLED_IN}", tool_calls: [{⟦LL201 did you mean "name"?⟧nam: x, name: y}], error: timeout}
- ⟦LL203 a mapping⟧text
- {match: "[0-9]+", reply: yes, error: 429, usage: {input_tokens: 3}, times: 2, delay_s: 0.5}
""",
    },
    "addresses and secrets": {
        "m.yml": """\
engine: {path: ⟦LL204 name the file in it⟧./}
mcp_servers:
  s: {type: http, url: ⟦LL204 no address of a server⟧"https://["}
agents:
  a:
    knowledge: [{type: url, url: ⟦LL204⟧"https://"}]
    sinks:
      - {type: http, url: ⟦LL204⟧"http://x:99999", secret: ⟦LL204 not base64⟧whsec_!!}
      - {type: http, url: "https://x", secret: ⟦LL204 empty⟧"", headers: ⟦LL204 no line break⟧{a: "b\\nc"}}
    triggers:
      - {type: webhook, path: /1, auth: {type: hmac, secret: ⟦LL204 empty⟧"${NONE:-}"}}
      - {type: webhook, path: /2, auth: {type: standard, secret: ⟦LL204 not base64⟧"whsec_é"}}
      - {type: webhook, path: /3, auth: {type: bearer, token: ⟦LL204 empty⟧" "}}
      - {type: schedule, prompt: x, every_s: ⟦LL204 at most⟧1.0e+300}
      - {type: file, paths: [⟦LL204 control characters⟧"a\\0"]}
"""
    },
    "tools that cannot be described": {
        "m.yml": """\
engine: {path: ⟦LL310 is a folder⟧kept}
agents:
  a:
    tools:
      - ⟦LL309 takes *args⟧planted_shapes:every
      - ⟦LL309 is no name for a tool⟧planted_shapes:short
      - {type: function, function: "planted_shapes:short", name: short}
    knowledge: [{type: folder, path: ⟦LL310 is no folder⟧planted_shapes.py}]
""",
        "planted_shapes.py": "def every(*args): ...\n\nshort = lambda word: word\n",
        "kept/x": "",
    },
    "values of another kind": {
        "m.yml": """\
server: {host: ⟦LL204 an address or a host name⟧"http://127.0.0.1"}
agents:
  a:
    parallel_tools: ⟦LL203 true or false⟧[true]
    triggers:
      - {type: webhook, overlap: ⟦LL204⟧[skip], enabled: ⟦LL203⟧{}, port: ⟦LL203⟧[8000]}
      - {type: webhook, host: ⟦LL204⟧"the host", auth: {type: bearer, token: x}}
"""
    },
}


@pytest.mark.parametrize("name", CASES)
def test_every_mistake_has_its_place(name: str, tmp_path: Path) -> None:
    expected = plant(tmp_path, CASES[name])
    compare(check(tmp_path / "m.yml"), expected, tmp_path)
