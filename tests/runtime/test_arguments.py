"""What Python code passes by mistake is named at once, not ignored and not found out deep inside."""

from __future__ import annotations

from typing import Any

import pytest

from llmling import Agent, AgentPool, Team
from llmling.errors import ManifestError

AGENT: Any = Agent("a", model="demo")
TEAM: Any = Team([AGENT, Agent("b", model="demo")])


@pytest.mark.parametrize("node", [AGENT, TEAM])
async def test_the_id_of_a_session_is_a_text(node: Any) -> None:
    with pytest.raises(TypeError, match="session should be a text, not int"):
        await node.run("x", session=5)
    with pytest.raises(TypeError, match="session should be a text, not int"):
        node.run_stream("x", session=5)
    with pytest.raises(ValueError, match="the id of a session is empty"):
        await node.run("x", session="")
    with pytest.raises(ValueError, match="the id of a session is empty"):
        node.run_stream("x", session=" ")


def test_a_session_begins_with_a_text() -> None:
    with pytest.raises(TypeError, match="session should be a text, not int"):
        AGENT.session(7)
    with pytest.raises(ValueError, match="the id of a session is empty"):
        AGENT.session("")


@pytest.mark.parametrize("prompts", ["abc", 5, None, (text for text in "abc")])
async def test_prompts_are_a_list(prompts: Any) -> None:
    said = f"prompts should be a list, not {type(prompts).__name__}"
    with pytest.raises(TypeError, match=said):
        await AGENT.run_many(prompts)
    with pytest.raises(TypeError, match=said):
        AGENT.as_completed(prompts)


@pytest.mark.parametrize("number", [0, -1])
async def test_a_batch_runs_at_least_one_at_once(number: int) -> None:
    with pytest.raises(ValueError, match=f"max_concurrency should be at least 1, not {number}"):
        await AGENT.run_many(["x"], max_concurrency=number)
    with pytest.raises(ValueError, match=f"max_concurrency should be at least 1, not {number}"):
        AGENT.as_completed(["x"], max_concurrency=number)


@pytest.mark.parametrize("kind", [Agent, AgentPool])
def test_who_attends_can_be_called(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"approve should be a callable such as approve\(call, run\), not bool"):
        kind(approve=True)
    with pytest.raises(TypeError, match=r"ask should be a callable such as ask\(question, run\), not str"):
        kind(ask="yes")
    kind(approve=None, ask=print)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "pik"}, '"mode" should be one of parallel, sequential, pick, map .*did you mean "pick"'),
        ({"mode": "map", "max_concurrency": 0}, '"max_concurrency" should be at least 1'),
        ({"max_concurrency": 0}, '"max_concurrency" should be at least 1'),
        ({"over": 3}, '"over" should be text in teams.team$'),
        ({"mode": "pick", "when": {"a | b": "1 +"}}, "invalid expression: .*members"),
        ({"inbox": {"siz": 1}}, 'unknown key "siz" in .*inbox; did you mean "size"'),
    ],
)
def test_a_wrong_option_of_a_team_is_told_as_the_manifest_tells_it(options: dict[str, Any], said: str) -> None:
    # Such a name is none in a manifest.
    member = Team([AGENT, Agent("b", model="demo")], name="a | b")
    with pytest.raises(ManifestError, match=said):
        Team([member, AGENT], **options)
