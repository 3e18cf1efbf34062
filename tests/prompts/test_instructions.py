"""Structured instructions of agents, in YAML and in Python: what the model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llm_server import LLMServer, Reply

from llmling import Agent, AgentPool, Constraints, Context, Event, Guidance, Manifest
from llmling.errors import ManifestError
from llmling.firing import fire
from llmling.manifest.prompts import TemplateInstructionsConfig
from llmling.models.clients import close_clients
from llmling.prompts.instructions import event_message
from llmling.prompts.library import RootCauseAnalyzer
from llmling.templates import TemplateFailed
from llmling.testing import ScriptedModel


async def asked(instructions: Any, prompt: str = "It rains.", **options: Any) -> tuple[str, str]:
    """Return system and user turn that the model of an agent reads."""
    model = ScriptedModel(["yes"])
    await Agent("judge", model=model, instructions=instructions, **options).run(prompt)
    *system, user = model.requests[0].messages
    return "".join(turn.text for turn in system), user.text


async def test_parts_go_to_their_turns() -> None:
    system, user = await asked(
        {
            "guidance": {"role": "{{ agent }}", "rules": "Be fair."},
            "directive": "Judge what follows.",
            "constraints": {"must": "cite", "max_words": 20},
        }
    )
    assert system == (
        "Role: judge\nRules:\n- Be fair.\n\nThe answer must:\n- cite\nLength of the answer: at most 20 words"
    )
    assert user == "Judge what follows.\n\nIt rains."


async def test_the_message_stands_where_the_directive_says_and_is_no_template() -> None:
    instructions = {"directive": "Judge ({{ event.subject }}): {{ message }}! Be fair."}
    system, user = await asked(instructions, "{{ agent }} {% x %}")
    assert (system, user) == ("", "Judge (judge): {{ agent }} {% x %}! Be fair.")


async def test_texts_stand_for_guidance_and_constraints() -> None:
    assert await asked({"guidance": "You are {{ agent }}.", "constraints": "Be brief."}) == (
        "You are judge.\n\nBe brief.",
        "It rains.",
    )


async def test_knowledge_and_output_come_behind_the_parts() -> None:
    schema = {"type": "string"}
    system, _ = await asked({"guidance": "You are here."}, output=schema)
    assert system.startswith("You are here.\n\nAnswer with nothing but JSON")


async def test_a_template_is_about_the_message() -> None:
    system, user = await asked({"prompt": "RootCauseAnalyzer", "depth": "quick", "evidence": ["for {{ agent }}"]})
    expected = RootCauseAnalyzer().build_context(problem="It rains.", depth="quick", evidence=["for judge"])
    assert (system, user) == (expected.system(), expected.user())


async def test_a_template_whose_subject_is_written_has_the_message_behind_it() -> None:
    _, user = await asked({"prompt": "RiskAssessor", "decision": "Go out."}, "It rains.")
    assert "<decision>\nGo out.\n</decision>" in user
    assert user.endswith("\n\nIt rains.")


async def test_a_failing_template_ends_the_run() -> None:
    with pytest.raises(TemplateFailed, match=r"event\.data\.x"):
        await asked({"directive": "{{ event.data.x }}"})


def test_wrong_instructions_in_python_are_told_as_in_yaml() -> None:
    with pytest.raises(ManifestError, match="did you mean"):
        Agent("a", instructions={"prompt": "RootCauseAnalyser"})


async def test_a_context_instructs_an_agent() -> None:
    context = Context(
        guidance=Guidance(role="judge"), directive="Judge this: {{ message }}", constraints=Constraints(must="cite")
    )
    system, user = await asked(context)
    assert (system, user) == ("Role: judge\n\nThe answer must:\n- cite", "Judge this: It rains.")
    _, user = await asked(RootCauseAnalyzer().build_context(problem="It drips."), "Look at the roof.")
    assert "It drips." in user
    assert user.endswith("\n\nLook at the roof.")


async def test_sessions_frame_every_turn() -> None:
    model = ScriptedModel(["one", "two"])
    chat = Agent("a", model=model, instructions={"guidance": "g", "directive": "Judge: {{ message }}"}).session("s")
    await chat.run("first")
    await chat.run("second")
    assert [turn.text for turn in model.requests[1].messages] == ["g", "Judge: first", "one", "Judge: second"]


async def test_a_pool_sends_both_turns_over_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents.yml").write_text("""
agents:
  analyst:
    model: anthropic/claude-haiku-4-5
    instructions: {prompt: RootCauseAnalyzer, depth: thorough}
    connections: [{to: editor, wait: true}]
  editor:
    model: openai/gpt-4o-mini
    instructions:
      guidance: {role: editor}
      directive: "Shorten this: {{ message }}"
""")
    async with LLMServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-loopback")
        async with AgentPool(tmp_path / "agents.yml") as pool:
            server.replies += [Reply("The pump is worn."), Reply("Pump.")]
            await pool.get_agent("analyst").run("It drips.", wait_for_connections=True)
        await close_clients()
    first, second = server.requests
    assert "investigator" in str(first.body["system"])
    assert "<problem>\nIt drips.\n</problem>" in first.last_text
    assert second.body["messages"][0] == {"role": "system", "content": "Role: editor"}
    assert second.last_text == "Shorten this: The pump is worn."


FILE = Event("inbox", "dev.llmling.file.added", "a.txt", {"text": "It drips. {{ x }}"})


def test_a_trigger_may_ask_by_a_template() -> None:
    prompt = TemplateInstructionsConfig(prompt="RootCauseAnalyzer", depth="quick", evidence=["{{ event.subject }}"])
    message = event_message(FILE, prompt)
    expected = RootCauseAnalyzer().build_context(
        problem="File added: a.txt\n\nIt drips. {{ x }}", evidence=["a.txt"], depth="quick"
    )
    assert message.text == f"{expected.system()}\n\n{expected.user()}"
    assert (message.role, message.name) == ("user", "inbox")


def test_what_a_template_of_a_trigger_is_about_may_be_written() -> None:
    prompt = TemplateInstructionsConfig(prompt="RootCauseAnalyzer", problem="{{ event.data.text }}")
    assert "<problem>\nIt drips. {{ x }}\n</problem>" in event_message(FILE, prompt).text
    assert "File added" not in event_message(FILE, prompt).text


def test_an_empty_event_or_subject_is_no_prompt() -> None:
    prompt = TemplateInstructionsConfig(prompt="RootCauseAnalyzer")
    assert event_message(Event("hook", "dev.llmling.webhook", data=" "), prompt).text == ""
    prompt = TemplateInstructionsConfig(prompt="RootCauseAnalyzer", problem="{{ event.headers.get('x', '') }}")
    with pytest.raises(TemplateFailed, match="'problem' is empty"):
        event_message(FILE, prompt)


async def test_an_event_goes_through_the_engine_with_its_template(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text("""
engine: {type: memory}
agents:
  a:
    model: demo
    triggers: [{type: webhook, name: hook, prompt: {prompt: RiskAssessor, decision: "{{ event.data.plan }}"}}]
""")
    result = await fire(Manifest.load(tmp_path / "m.yml"), "hook", data={"plan": "Raise prices."}, dry_run=True)
    assert result.prompt is not None
    assert "<decision>\nRaise prices.\n</decision>" in result.prompt
    assert "risk assessor" in result.prompt
