"""Every key of the documented example works or is refused as planned; keys of the predecessor say what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmling.manifest import Manifest, check

EXAMPLE = """\
include: [shared/*.yml]
defaults: {model: auto}
engine: {type: sqlite, path: .llmling/pool.db, keep_days: 30}
server: {host: 127.0.0.1, port: 8765, token: "${LLMLING_TOKEN:-}"}
limits:
  max_hops: 10
  max_messages_per_event: 200
  drain_timeout_s: 8
  concurrency: 100
  requests_at_once: 50
  requests_per_minute: 600
  circuit_failures: 5
  circuit_s: 30
budget: {usd_per_day: 5, mode: enforce}

mcp_servers:
  files:
    type: stdio
    command: npx
    args: [-y, "@modelcontextprotocol/server-filesystem", ./docs]
    env: {}
    start_timeout_s: 30
    call_timeout_s: 60
    required: false
  search: {type: http, url: "https://x.example", headers: {Authorization: "Bearer ${SEARCH_TOKEN}"}}

agents:
  analyzer:
    description: Finds what matters in a document
    model: openai/gpt-4o-mini
    model_settings: {temperature: 0.2, max_tokens: 800, timeout_s: 60}
    instructions: |
      You analyse documents.
    tools:
      - my_module:word_count
      - {type: agent, name: summarizer, approval: never}
      - type: function
        function: "my_module:send"
        approval: always
        destructive: true
        idempotent: false
        timeout_s: 20
    mcp_servers: [files, search]
    knowledge:
      - ./handbook.md
      - {type: url, url: "https://example.org/x.md", refresh_s: 3600}
      - {type: text, content: "..."}
      - {type: prompt, template: "Today is {{ now.date() }}"}
      - {type: resource, server: files, uri: "file:///x"}
      - {type: folder, path: ./kb, mode: search, top_k: 5}
    output: {type: object, properties: {a: {type: string}}}
    session: event
    concurrency: 4
    inbox: {size: 1000, overflow: block}
    retries: {attempts: 3, backoff_s: 0.5, max_backoff_s: 30}
    redelivery: {attempts: 5, backoff_s: 1, max_backoff_s: 300}
    limits:
      max_iterations: 20
      tool_calls: 50
      total_tokens: 100000
      timeout_s: 300
      cost_usd: 0.5
      requests_per_minute: 60
    parallel_tools: true
    hooks: [my_module:audit]
    context: {window_tokens: 100000, compact_at: 0.75, strategy: shorten}
    plan: {every: 5}
    approval: destructive
    memory: {facts: true}
    trust: The sender of this webhook is ours
    budget:
      usd_per_day: 5
      usd_per_month: 50
      tokens_per_day: 1000000
      tokens_per_month: 10000000
      requests_per_day: 1000
      requests_per_month: 10000
      mode: audit
    triggers:
      - type: file
        name: watch_docs
        paths: ["docs/**/*.md"]
        extensions: [".md"]
        ignore: ["**/draft-*"]
        events: [added, modified]
        settle_s: 1.0
        backlog: process
        dedupe: version
        on_done: keep
        on_fail: keep
        max_bytes: 10000000
        prompt: "Summarise {{ event.subject }}:\\n{{ event.data.text }}"
        enabled: true
      - type: webhook
        name: api_endpoint
        host: 127.0.0.1
        port: 8000
        path: /webhook
        auth: {type: hmac, secret: "${HOOK_SECRET}", header: X-Signature-256}
        max_body_bytes: 1000000
        rate_per_s: 50
        dedupe_window_s: 86400
        reply: accepted
        timeout_s: 30
        filter: "event.data.action == 'opened'"
        overlap: queue
        key: "{{ event.data.repo }}"
        priority: high
        budget: {usd_per_day: 1}
      - {type: schedule, name: nightly, cron: "0 2 * * *", timezone: Europe/Berlin, catch_up: last, prompt: "Write"}
      - {type: schedule, name: pulse, every_s: 300, prompt: "Check"}
    connections:
      - summarizer
      - {to: mailer, when: "'urgent' in message.text", transform: "my_module:shorten", wait: false}
    sinks:
      - {type: file, path: "out/{{ event.id }}.md", mode: write}
      - {type: http, url: "https://x.example", secret: "${OUT_SECRET}"}
      - {type: http, url: "https://x.example", "on": answer}
  summarizer: {session: shared}
  mailer: {model: human, session: "{{ event.data.user }}"}
  critic:
    model:
      type: litellm
      name: openai/my-model
      api_base: "http://127.0.0.1:9000/v1"
      api_key: "${KEY}"
      price: {input_per_mtok: 1, output_per_mtok: 2}
      concurrency: 8
      requests_per_minute: 500
  other:
    model:
      type: fallback
      models: [openai/gpt-4o-mini, anthropic/claude-3-5-haiku-latest]
  recorded: {model: "replay:cassette.yml"}
teams:
  desk: {mode: parallel, members: [analyzer, critic]}
  front: {mode: pick, members: [{name: analyzer, when: "'x' in message.text"}, critic]}
  asks: {mode: pick, members: [analyzer, critic], model: auto, instructions: "Analyse only what is long."}
  calls: {mode: pick, members: [analyzer, critic], pick: "my_module:shorten"}
  each: {mode: map, members: [summarizer], over: event.data.pages, max_concurrency: 2}
x-anything: ignored
"""

# key of the predecessor in its place -> what to write instead
PREDECESSOR = {
    "INHERIT: base.yml": "include:",
    "responses: {}": "output:",
    "storage: {}": "engine:",
    "jobs: {}": "schedule",
    "pool_server: {}": "server:",
    "resources: {}": "knowledge:",
    "prompts: {}": "instructions:",
    "agents: {a: {system_prompts: [x]}}": "instructions:",
    "agents: {a: {inherits: b}}": "extends:",
    "agents: {a: {provider: litellm}}": "model:",
    "agents: {a: {result_type: X}}": "output:",
    "agents: {a: {toolsets: []}}": "tools:",
    "agents: {a: {environment: x}}": "tools:",
    "agents: {a: {workers: [b]}}": "type: agent",
    "agents: {a: {capabilities: {}}}": "tools:",
    "agents: {a: {user_prompts: [x]}}": "prompt:",
    "agents: {a: {name: b}}": "the key above is the name",
    "agents: {a: {avatar: x}}": "remove it",
    "agents: {a: {requires_tool_confirmation: always}}": "approval:",
    "agents: {a: {forwards_to: [b]}}": "connections:",
    "agents: {a: {connections: [{name: a}]}}": "to:",
    "agents: {a: {connections: [{to: a, wait_for_completion: true}]}}": "wait:",
    "agents: {a: {connections: [{to: a, filter_condition: x}]}}": "when:",
    "agents: {a: {connections: [{to: a, queued: true}]}}": "remove it",
    "agents: {a: {triggers: [{type: file, paths: [x], template: x}]}}": "prompt:",
    "agents: {a: {triggers: [{type: file, paths: [x], ignore_paths: [x]}]}}": "ignore:",
    "agents: {a: {triggers: [{type: file, paths: [x], recursive: true}]}}": "everything below",
    "agents: {a: {triggers: [{type: file, paths: [x], debounce: 1600}]}}": "settle_s:",
    "agents: {a: {triggers: [{type: file, paths: [x], include_metadata: true}]}}": "prompt:",
    "agents: {a: {triggers: [{type: webhook, secret: x}]}}": "auth: {type: hmac",
    "agents: {a: {triggers: [{type: time, schedule: x}]}}": "type: schedule",
    "agents: {a: {triggers: [{type: schedule, every_s: 1, prompt: x, schedule: x}]}}": "cron:",
    "agents: {a: {triggers: [{type: schedule, every_s: 1, prompt: x, skip_missed: true}]}}": "catch_up:",
    "agents: {a: {triggers: [{type: email, host: x}]}}": "webhook",
    "agents: {a: {triggers: [{type: connection}]}}": "connections:",
    "agents: {a: {triggers: [{type: manual}]}}": "llmling fire",
    "agents: {a: {mcp_servers: [{type: sse, url: 'http://x'}]}}": "type: http",
    "agents: {a: {mcp_servers: [{type: stdio, command: x, environment: {}}]}}": "env:",
    "agents: {a: {mcp_servers: [{type: stdio, command: x, timeout: 3}]}}": "call_timeout_s:",
    "agents: {a: {tools: [{type: function, function: 'm:f', requires_confirmation: true}]}}": "approval: always",
    "agents: {a: {model: {type: litellm, name: x/y, identifier: x}}}": "name:",
    "teams: {t: {members: [t], shared_prompt: x}}": "instructions:",
    "agents: {a: {limits: {max_hops: 1}}}": "root",
    "limits: {timeout_s: 1}": "agent",
}


def test_every_key_of_the_example_works_or_is_refused_by_name(tmp_path: Path) -> None:
    names = ("word_count", "send", "shorten", "audit")
    (tmp_path / "my_module.py").write_text("".join(f"def {name}(a): ...\n" for name in names))
    (tmp_path / "handbook.md").write_text("x")
    (tmp_path / "kb").mkdir()
    (tmp_path / "cassette.yml").write_text("version: 1\nexchanges: []\n")
    file = tmp_path / "m.yml"
    file.write_text(EXAMPLE)
    env = {"SEARCH_TOKEN": "s", "HOOK_SECRET": "h", "OUT_SECRET": "o", "KEY": "k"}
    expected = [
        (number, line.split("#!")[1].strip(), line.split(":")[0].strip())
        for number, line in enumerate(EXAMPLE.splitlines(), 1)
        if "#!" in line
    ]
    problems = Manifest.check(file, env=env)
    assert [(problem.line, problem.code) for problem in problems] == [mark[:2] for mark in expected]
    for problem, (_, _, key) in zip(problems, expected, strict=True):
        assert problem.message == f"'{key}' comes with a later release; remove it"
    file.write_text("\n".join(line for line in EXAMPLE.splitlines() if "#!" not in line))
    assert Manifest.check(file, env=env) == []
    manifest = Manifest.load(file, env=env)
    assert [trigger.name for trigger in manifest.agents["analyzer"].triggers][:2] == ["watch_docs", "api_endpoint"]


def test_the_engine_for_several_machines_is_taken(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(
        "engine: {type: nats, servers: ['nats://127.0.0.1:4222'], replicas: 3, lease_s: 15, name: pool, keep_days: 7}"
    )
    assert check(tmp_path / "m.yml") == []


def test_order_is_kept_on_nats_too(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(
        "engine: {type: nats, replicas: 3}\n"
        "agents: {a: {triggers: [{type: webhook, key: x, overlap: skip, priority: high}]}}"
    )
    assert [problem for problem in check(tmp_path / "m.yml") if problem.severity == "error"] == []


def test_a_single_nats_server_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text("engine: {type: nats}\nagents: {}\n")
    (problem,) = check(tmp_path / "m.yml")
    assert (problem.code, problem.severity, problem.line) == ("LL215", "warning", 1)
    assert "may be lost with its power" in problem.message
    (tmp_path / "m.yml").write_text("engine: {type: nats, servers: ['http://x'], name: a b, replicas: 0}")
    refused = [problem.message for problem in check(tmp_path / "m.yml") if problem.severity == "error"]
    assert len(refused) == 3
    assert any("write it like nats://127.0.0.1:4222" in message for message in refused)


@pytest.mark.parametrize("text", PREDECESSOR)
def test_keys_of_the_predecessor_say_what_to_write(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(text)
    messages = [problem.message for problem in check(tmp_path / "m.yml")]
    assert any(PREDECESSOR[text] in message for message in messages), messages
