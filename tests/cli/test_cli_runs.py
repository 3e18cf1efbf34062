"""Commands that run agents once: run and fire, and what events shows of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import Serve, llmling, until

POOL = """\
engine: {type: ENGINE}
agents:
  reader:
    model: demo:script.yml
    retries: {attempts: 1}
    redelivery: {attempts: 2, backoff_s: 0}
    triggers:
      - {type: webhook, name: hook, port: PORT, filter: "event.data.go", prompt: "Read {{ event.data.text }}"}
      - {type: file, name: inbox, paths: [in], extensions: [.md]}
    connections: [editor]
    sinks: [{type: file, path: "seen.txt", mode: append}]
  editor:
    model: demo:script.yml
    sinks: [{type: file, path: "out.txt", mode: append}]
"""
SCRIPT = """\
- {match: "fail", error: 500}
- {match: "Read (bridge|in)|File added", reply: "points of it"}
- {match: "points of it", reply: "one paragraph"}
- {match: ".", reply: "an answer"}
"""


@pytest.fixture
def project(tmp_path: Path, free_tcp_port: int) -> Path:
    (tmp_path / "agents.yml").write_text(POOL.replace("PORT", str(free_tcp_port)).replace("ENGINE", "sqlite"))
    (tmp_path / "script.yml").write_text(SCRIPT)
    return tmp_path


async def test_run_prints_the_answer_only_and_finishes_what_it_set_off(project: Path) -> None:
    status, out, _ = await llmling(project, "run", "agents.yml", "reader", "Read bridge")
    assert (status, out) == (0, "points of it\n")
    assert (project / "seen.txt").read_text() == "points of it\n"
    assert (project / "out.txt").read_text() == "one paragraph\n"
    assert not (project / ".llmling").exists()


async def test_run_takes_its_prompt_from_standard_input(project: Path) -> None:
    status, out, _ = await llmling(project, "run", "agents.yml", "editor", stdin="Read bridge\n")
    assert (status, out) == (0, "points of it\n")


async def test_run_json(project: Path) -> None:
    status, out, _ = await llmling(project, "run", "agents.yml", "editor", "hello", "--json")
    result = json.loads(out)
    assert status == 0
    assert set(result) == {"content", "model", "usage", "cost_usd", "latency_s", "run_id"}
    assert result["content"] == "an answer"


async def test_run_stream(project: Path) -> None:
    status, out, _ = await llmling(project, "run", "agents.yml", "editor", "hello", "--stream")
    assert (status, out) == (0, "an answer\n")
    status, out, _ = await llmling(project, "run", "agents.yml", "editor", "hello", "--stream", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [line["type"] for line in lines][-2:] == ["run_completed", "result"]
    assert lines[-1]["content"] == "an answer"


async def test_run_stream_of_a_team_has_the_names_of_its_members(project: Path) -> None:
    with (project / "agents.yml").open("a") as file:
        file.write("teams:\n  desk: {mode: pick, members: [{name: reader, when: '1 > 2'}, editor]}\n")
    status, out, _ = await llmling(project, "run", "agents.yml", "desk", "hello", "--stream", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    told = [(line["type"], line.get("agent")) for line in lines if line["type"] != "text_delta"]
    assert told[:3] == [("run_started", "desk"), ("handoff", "desk"), ("run_started", "editor")]
    assert lines[-1]["content"] == "an answer"
    status, out, _ = await llmling(project, "run", "agents.yml", "desk", "hello", "--stream")
    assert (status, out) == (0, "an answer\n")


async def test_a_run_that_fails_is_exit_code_1(project: Path) -> None:
    status, out, err = await llmling(project, "run", "agents.yml", "reader", "please fail")
    assert (status, out) == (1, "")
    assert "500" in err
    assert "Traceback" not in err


async def test_run_takes_another_model(tmp_path: Path) -> None:
    (tmp_path / "agents.yml").write_text("agents: {a: {}}")
    status, out, _ = await llmling(tmp_path, "run", "agents.yml", "a", "hello there", "--model", "demo", "--json")
    assert status == 0
    assert json.loads(out)["model"] == "demo"


async def test_fire_runs_here_without_a_serving_process_and_events_shows_it(project: Path) -> None:
    data = '{"go": true, "text": "bridge"}'
    status, out, _ = await llmling(project, "fire", "agents.yml", "hook", "--data", data)
    assert status == 0
    assert "  hook  reader  done  one paragraph  " in out
    status, out, _ = await llmling(project, "events", "list", "agents.yml", "--json")
    (event,) = [json.loads(line) for line in out.splitlines()]
    assert set(event) == {
        "id", "trigger", "agent", "status", "outcome", "attempts", "created", "finished", "cost_usd", "error",
    }  # fmt: skip
    assert (event["trigger"], event["status"], event["outcome"]) == ("hook", "done", "ran")
    status, out, _ = await llmling(project, "events", "show", "agents.yml", event["id"])
    assert status == 0
    assert "in   Read bridge" in out
    assert "out  one paragraph" in out
    _, out, _ = await llmling(project, "events", "show", "agents.yml", event["id"], "--json")
    assert [hop["agent"] for hop in json.loads(out)["hops"]] == ["reader", "editor"]
    assert json.loads(out)["content"] == "points of it"


async def test_fire_dry_run_changes_nothing(project: Path) -> None:
    data = '{"go": true, "text": "bridge"}'
    status, out, _ = await llmling(project, "fire", "agents.yml", "hook", "--data", data, "--dry-run")
    assert status == 0
    assert "lets it through" in out
    assert "\nkey" not in out
    assert out.endswith("prompt\n\nRead bridge\n")
    _, out, _ = await llmling(project, "fire", "agents.yml", "hook", "--data", "{}", "--dry-run", "--json")
    assert (json.loads(out)["wanted"], json.loads(out)["prompt"]) == (False, None)
    (project / "x.txt").write_text("text")
    _, out, _ = await llmling(project, "fire", "agents.yml", "inbox", "--file", "x.txt", "--dry-run")
    assert "match   no: " in out
    assert not (project / ".llmling").exists()


async def test_fire_dry_run_shows_the_key_an_event_is_kept_in_order_by(project: Path) -> None:
    manifest = project / "agents.yml"
    manifest.write_text(
        manifest.read_text().replace('"event.data.go",', '"event.data.go", key: "{{ event.data.text }}",')
    )
    fire = ["fire", "agents.yml", "hook", "--dry-run", "--data"]
    _, out, _ = await llmling(project, *fire, '{"go": true, "text": "bridge"}')
    assert "lets it through\nkey     bridge\nprompt" in out
    _, out, _ = await llmling(project, *fire, '{"go": true, "text": "bridge"}', "--json")
    assert json.loads(out)["key"] == "bridge"
    status, _, err = await llmling(project, *fire, '{"go": true, "text": null}')
    assert (status, "trigger 'hook', key: template" in err) == (1, True)


async def test_a_fired_event_that_dies_is_exit_code_1_and_can_be_retried_and_dropped(project: Path) -> None:
    data = '{"go": true, "text": "fail"}'
    status, out, _ = await llmling(project, "fire", "agents.yml", "hook", "--data", data)
    assert status == 1
    assert "  dead  " in out
    _, out, _ = await llmling(project, "events", "list", "agents.yml", "--status", "dead", "--json")
    event = json.loads(out)
    assert "500" in event["error"]
    status, out, _ = await llmling(project, "events", "retry", "agents.yml", "--status", "dead", "--json")
    assert (status, json.loads(out)) == (0, {"id": event["id"], "retry": 1})
    _, out, _ = await llmling(project, "events", "list", "agents.yml", "--status", "pending")
    assert event["id"] in out
    status, out, _ = await llmling(project, "events", "drop", "agents.yml", event["id"])
    assert (status, out) == (0, "1 event dropped\n")
    status, _, err = await llmling(project, "events", "show", "agents.yml", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert status == 1
    assert "no event" in err


async def test_many_events_are_retried_and_dropped_by_what_they_have_in_common(project: Path) -> None:
    for text in ("fail one", "fail two", "fine"):
        data = json.dumps({"go": True, "text": text})
        await llmling(project, "fire", "agents.yml", "hook", "--data", data)

    async def many(*args: str) -> tuple[int, str]:
        status, out, err = await llmling(project, "events", *args)
        return status, out or err

    assert (await many("retry", "agents.yml"))[0] == 2
    status, said = await many("retry", "agents.yml", "--since", "soon")
    assert (status, "such as 2h" in said) == (2, True)
    assert (await many("retry", "agents.yml", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--all"))[0] == 2
    for nothing in (("--error", "no such"), ("--trigger", "inbox"), ("--agent", "editor"), ("--since", "0s")):
        assert await many("retry", "agents.yml", *nothing) == (0, "0 events to be tried again\n")
    same = ("--error", "500", "--trigger", "hook", "--agent", "reader", "--since", "2h")
    assert len((await many("list", "agents.yml", "--json", *same))[1].splitlines()) == 2
    # Whoever mends events need not have a manifest that is whole, nor its variables.
    broken = (project / "agents.yml").read_text() + 'x: 1\nbudget: {usd_per_day: "${NOBODY_SET_THIS}"}\n'
    (project / "agents.yml").write_text(broken)
    assert await many("retry", "agents.yml", *same) == (0, "2 events to be tried again\n")
    assert await many("drop", "agents.yml", "--all") == (0, "0 events dropped\n")
    assert await many("drop", "agents.yml", "--status", "pending", "--since", "1d") == (0, "2 events dropped\n")
    assert await many("drop", "agents.yml", "--all") == (0, "2 events dropped\n")
    assert await many("list", "agents.yml", "--status", "dead") == (0, "no events of status dead\n")
    (project / "agents.yml").write_text(broken + 'engine: {path: "${NOBODY_SET_THIS}"}\n')
    assert (await many("list", "agents.yml"))[0] == 2


async def test_fire_and_events_reach_the_serving_process(project: Path) -> None:
    async with Serve(project) as serve:
        data = '{"go": true, "text": "bridge"}'
        status, out, _ = await llmling(project, "fire", "agents.yml", "hook", "--data", data, "--json")
        fired = json.loads(out)
        assert (status, fired["served"], fired["status"]) == (0, True, "done")
        await until(lambda: serve.events, "the event in the serving process")
        assert serve.events[0]["id"] == fired["id"]
        status, out, err = await llmling(project, "fire", "agents.yml", "hook", "--data", "null", "--model", "demo")
        assert (status, out) == (2, "")
        assert "stop it, or start it with --model, or leave out --model here" in err
        await llmling(project, "fire", "agents.yml", "hook", "--data", '{"go": true, "text": "fail"}')
        status, out, _ = await llmling(project, "events", "retry", "agents.yml", "--status", "dead")
        assert (status, out) == (0, "1 event to be tried again\n")
        await until(lambda: len(serve.events) == 3, "the retried event, dead once more")
        status, out, _ = await llmling(project, "events", "list", "agents.yml")
        assert out.splitlines()[0].split()[:4] == ["ID", "TRIGGER", "AGENT", "STATUS"]
        assert len(out.splitlines()) == 3
        _, out, _ = await llmling(project, "doctor", "agents.yml")
        assert "being served" in out


async def test_events_of_the_memory_engine_cannot_be_looked_at(project: Path, free_tcp_port: int) -> None:
    (project / "agents.yml").write_text(POOL.replace("PORT", str(free_tcp_port)).replace("ENGINE", "memory"))
    status, out, err = await llmling(project, "events", "list", "agents.yml")
    assert (status, out) == (1, "")
    assert "memory" in err
