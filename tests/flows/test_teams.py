"""Teams that pick and map, through YAML, webhooks and restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from stage import Stage

from llmling import AgentPool
from llmling.protocols import ModelRequest

DESK = """
server: false
limits: {drain_timeout_s: 0}
agents:
  billing: {description: Invoices and payments, model: demo:billing.yml}
  support: {description: Everything that is broken, model: demo:support.yml}
teams:
  desk:
    mode: pick
    %s
    triggers: [{type: webhook, name: hook, port: PORT, prompt: "{{ event.data.text }}"}]
"""
BY_MODEL = "members: [billing, support]\n    model: demo:pick.yml\n    instructions: Invoices go to billing."
BY_WHEN = "members: [{name: billing, when: \"'invoice' in message.text\"}, {name: support, when: event.data.broken}]"

EACH = """
server: false
limits: {drain_timeout_s: 0, max_messages_per_event: 3}
agents:
  reader: {model: demo:reader.yml}
teams:
  each:
    mode: map
    members: [reader]
    over: event.data.items
    max_concurrency: 1
    triggers: [{type: webhook, name: hook, port: PORT}]
"""


def desk(folder: Path, picks: str) -> Stage:
    stage = Stage(folder)
    stage.write("pick.yml", f"- {{reply: {picks}, usage: {{input_tokens: 5, output_tokens: 1}}}}\n")
    for name in ("billing", "support"):
        stage.write(f"{name}.yml", f"- {{reply: {name} answers}}\n")
    return stage


async def test_a_model_picks_the_member_that_answers_an_event(tmp_path: Path) -> None:
    stage = desk(tmp_path, "support")
    async with stage.pool(DESK % BY_MODEL) as pool:
        await stage.post({"text": "Where is my invoice?"})
        (record,) = await stage.settled(1)
        assert await stage.content(pool, record) == "support answers"
        assert pool.engine is not None
        full = await pool.engine.inspect(record.id)
        assert full is not None
        assert [step.data for step in full.deliveries[0].steps if step.kind == "choice"] == [{"member": "support"}]
    assert (record.status, record.agent) == ("done", "desk")


async def test_a_model_that_names_nobody_makes_a_dead_event_that_says_so(tmp_path: Path) -> None:
    stage = desk(tmp_path, "sales")
    async with stage.pool(DESK % BY_MODEL):
        await stage.post({"text": "Hello"})
        (record,) = await stage.settled(1)
    assert (record.status, record.attempts) == ("dead", 1)
    assert "team 'desk' picks nobody: the model answered 'sales' names none of the members" in (record.error or "")


async def test_conditions_pick_and_nobody_is_a_dead_event(tmp_path: Path) -> None:
    stage = desk(tmp_path, "")
    async with stage.pool(DESK % BY_WHEN) as pool:
        bodies = ({"text": "an invoice"}, {"text": "help", "broken": True}, {"text": "hello"})
        for count, body in enumerate(bodies, start=1):
            await stage.post(body)
            await stage.settled(count)
        first, second, third = stage.done
        assert [await stage.content(pool, record) for record in (first, second)] == [
            "billing answers",
            "support answers",
        ]
    assert third.status == "dead"
    assert "team 'desk' picks nobody: no `when` of billing, support is true" in (third.error or "")


async def test_a_restart_keeps_the_choice_and_pays_for_no_second_one(tmp_path: Path) -> None:
    stage = desk(tmp_path, "billing")
    hanging = asyncio.Event()

    async def hang(request: ModelRequest) -> str:
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with stage.pool(DESK % BY_MODEL, billing=hang):
        await stage.post({"text": "hello"})
        await asyncio.wait_for(hanging.wait(), 30)
    # The model would pick somebody else now, if it were asked.
    desk(tmp_path, "support")
    async with stage.pool(DESK % BY_MODEL) as pool:
        (record,) = await stage.settled(1)
        assert await stage.content(pool, record) == "billing answers"
    assert record.attempts == 1


async def test_a_restart_asks_only_for_the_items_that_are_missing(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.write("reader.yml", "- {match: a, reply: second a}\n- {reply: second}\n")
    hanging = asyncio.Event()

    async def hang_at_b(request: ModelRequest) -> str:
        if "b" in request.messages[-1].text:
            hanging.set()
            await asyncio.Event().wait()
        return "first a"

    async with stage.pool(EACH, reader=hang_at_b):
        await stage.post({"items": ["a", {"b": 1}]})
        await asyncio.wait_for(hanging.wait(), 30)
    async with stage.pool(EACH) as pool:
        (record,) = await stage.settled(1)
        assert await stage.content(pool, record) == '## 1. a\n\nfirst a\n\n## 2. {"b": 1}\n\nsecond'


async def test_without_a_list_or_with_too_long_a_one_the_event_is_dead(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.write("reader.yml", "- {reply: read}\n")
    async with stage.pool(EACH):
        await stage.post({"no": "items"})
        await stage.post({"items": [1, 2, 3, 4]})
        await stage.settled(2)
    errors = sorted(record.error or "" for record in stage.done)
    assert [record.status for record in stage.done] == ["dead", "dead"]
    assert "would map over 4 items, allowed are 3: raise limits.max_messages_per_event" in errors[1]
    assert "has no list to map over: `over: event.data.items` gives nothing" in errors[0]


async def test_model_of_the_command_line_and_of_the_defaults_picks(tmp_path: Path) -> None:
    manifest = (
        "defaults: {model: demo}\nagents: {alpha: {}, beta: {}}\nteams: {t: {mode: pick, members: [alpha, beta]}}\n"
    )
    (tmp_path / "agents.yml").write_text(manifest)
    async with AgentPool(tmp_path / "agents.yml") as pool:
        assert (await pool.get_team("t").run("I want beta.")).message.name == "beta"
        assert pool.get_team("t").notice == pool.report.notices[0]
    (tmp_path / "agents.yml").write_text(manifest.replace("demo", "openai/gpt-4o-mini"))
    async with AgentPool(tmp_path / "agents.yml", model="demo") as pool:
        assert (await pool.get_team("t").run("I want alpha.")).message.name == "alpha"
