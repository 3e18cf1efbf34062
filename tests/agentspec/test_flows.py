"""Flows: those that run from start to end are chains of agents, and the others say why they are none."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from llm_server import LLMServer, Reply
from spec_reader import ReadSpec

from llmling import AgentPool, Event, Manifest
from llmling.agentspec import dump, load
from llmling.errors import ManifestError

TEXT = {"type": "string"}


class FlowDocument:
    """A flow by hand; `url` is the model of all its nodes."""

    def __init__(self, url: str = "http://h/v1", inputs: tuple[str, ...] = ("topic",)) -> None:
        llm = {"component_type": "OpenAiCompatibleConfig", "name": "m", "model_id": "m", "url": url}
        self.inputs = [{"title": name, **TEXT} for name in inputs]
        self.shared: dict[str, dict[str, Any]] = {"llm": llm}
        self.names: list[str] = []
        self.control: list[dict[str, Any]] = []
        self.data: list[dict[str, Any]] | None = []
        self.node("start", "StartNode", inputs=self.inputs)
        self.node("end", "EndNode")

    def node(self, name: str, kind: str, **fields: Any) -> None:
        self.shared[name] = {"component_type": kind, "name": name, **fields}
        self.names.append(name)

    def llm(self, name: str, prompt: str, *inputs: str, outputs: tuple[str, ...] = ()) -> None:
        titles = {"inputs": [{"title": each, **TEXT} for each in inputs]}
        made = {"outputs": [{"title": each, **TEXT} for each in outputs]} if outputs else {}
        self.node(name, "LlmNode", llm_config=_ref("llm"), prompt_template=prompt, **titles, **made)

    def agent(self, name: str, prompt: str, *inputs: str) -> None:
        titles = [{"title": each, **TEXT} for each in inputs]
        agent = {"component_type": "Agent", "name": f"{name} agent", "system_prompt": prompt, "llm_config": _ref("llm")}
        self.node(name, "AgentNode", agent={**agent, "inputs": titles}, inputs=titles)

    def go(self, *way: str) -> None:
        for source, target in itertools.pairwise(way):
            edge = {"component_type": "ControlFlowEdge", "name": f"{source} {target}"}
            self.control.append({**edge, "from_node": _ref(source), "to_node": _ref(target)})

    def fill(self, source: str, output: str, target: str, given: str) -> None:
        assert self.data is not None
        edge = {"component_type": "DataFlowEdge", "name": f"{output} {given}", "source_node": _ref(source)}
        more = {"source_output": output, "destination_node": _ref(target), "destination_input": given}
        self.data.append({**edge, **more})

    def __str__(self) -> str:
        return json.dumps(
            {
                "component_type": "Flow",
                "name": "desk",
                "description": "Two steps",
                "inputs": self.inputs,
                "start_node": _ref("start"),
                "nodes": [_ref(name) for name in self.names],
                "control_flow_connections": self.control,
                "data_flow_connections": self.data,
                "$referenced_components": self.shared,
                "agentspec_version": "25.4.1",
            }
        )


def _ref(name: str) -> dict[str, str]:
    return {"$component_ref": name}


async def test_each_step_gets_the_answer_of_the_one_before(read_spec: ReadSpec) -> None:
    async with LLMServer() as server:
        flow = FlowDocument(server.openai_url)
        flow.llm("draft", "Write about {{topic}}.", "topic", outputs=("text",))
        flow.agent("polish", "Make this better: {{text}}", "text")
        flow.go("start", "draft", "polish", "end")
        flow.fill("start", "topic", "draft", "topic")
        flow.fill("draft", "text", "polish", "text")
        assert read_spec(str(flow)).type == "Flow"
        server.replies += [Reply("a draft"), Reply("a text")]
        async with AgentPool(load(str(flow))) as pool:
            team = pool.get_team("desk")
            result = await team.run("the sea")
        assert result.content == "a text"
        assert team.description == "Two steps"
        assert [member.name for member in team.members] == ["draft", "polish agent"]
        asked = [[turn["content"] for turn in request.body["messages"]] for request in server.requests]
        assert asked == [["Write about the sea."], ["Make this better: a draft"]]


async def test_inputs_of_the_flow_come_from_the_event() -> None:
    async with LLMServer() as server:
        flow = FlowDocument(server.openai_url, ("topic", "language"))
        flow.agent("draft", "Write about {{what}} in {{language}}.", "what", "language")
        flow.llm("polish", "In {{language}}: {{text}}", "language", "text")
        flow.go("start", "draft", "polish", "end")
        flow.fill("start", "topic", "draft", "what")
        flow.fill("start", "language", "draft", "language")
        flow.fill("start", "language", "polish", "language")
        flow.fill("draft", "answer", "polish", "text")
        server.replies += [Reply("a draft"), Reply("a text")]
        event = Event(source="t", type="t", data={"topic": "the sea", "language": "Finnish"})
        async with AgentPool(load(str(flow))) as pool:
            await pool.get_team("desk").run("Go.", event=event)
        asked = [[turn["content"] for turn in request.body["messages"]] for request in server.requests]
        assert asked == [["Write about the sea in Finnish.", "Go."], ["In Finnish: a draft"]]


async def test_without_data_edges_names_tell_what_belongs_together() -> None:
    async with LLMServer() as server:
        flow = FlowDocument(server.openai_url)
        flow.llm("draft", "Write about {{topic}}.", "topic", outputs=("text",))
        flow.llm("polish", "Of {{topic}}: {{text}}", "topic", "text")
        flow.go("start", "draft", "polish", "end")
        flow.data = None
        server.replies += [Reply("a draft"), Reply("a text")]
        async with AgentPool(load(str(flow))) as pool:
            await pool.get_team("desk").run("the sea")
        assert server.requests[1].last_text == "Of the sea: a draft"


def test_a_flow_comes_back_as_the_flow_it_became(read_spec: ReadSpec) -> None:
    flow = FlowDocument()
    flow.llm("draft", "Write about {{topic}}.", "topic", outputs=("text",))
    flow.llm("polish", "Of {{topic}}: {{text}}", "topic", "text")
    flow.go("start", "draft", "polish", "end")
    flow.data = None
    text = dump(load(str(flow)))
    assert dump(load(text)) == text
    assert read_spec(text).type == "Flow"


async def test_a_chain_of_connections_comes_back_as_one() -> None:
    async with LLMServer() as server:
        model = {"type": "litellm", "name": "openai/m", "api_base": server.openai_url}
        agents = {"a": {"connections": [{"to": "b", "wait": True}]}, "b": {"instructions": "For {{ event.data.user }}"}}
        manifest = load(dump(Manifest.load({"defaults": {"model": model}, "agents": agents})))
        assert manifest.teams == {}
        async with AgentPool(manifest) as pool:
            event = Event(source="t", type="t", data={"user": "Ada"})
            await pool.get_agent("a").run("Go.", event=event)
        assert [request.last_text for request in server.requests] == ["Go.", "echo: Go."]
        assert server.requests[1].body["messages"][0]["content"] == "For Ada"


def _branching(flow: FlowDocument) -> None:
    flow.node("choice", "BranchingNode", mapping={})
    flow.go("start", "choice", "end")


def _fork(flow: FlowDocument) -> None:
    flow.llm("a", "x")
    flow.llm("b", "x")
    flow.go("start", "a", "b", "end")
    flow.go("a", "end")


def _circle(flow: FlowDocument) -> None:
    flow.llm("a", "x")
    flow.go("start", "a", "a")


def _dead_end(flow: FlowDocument) -> None:
    flow.llm("a", "x")
    flow.go("start", "a")


def _beside(flow: FlowDocument) -> None:
    flow.llm("a", "x")
    flow.llm("b", "x")
    flow.go("start", "a", "end")


def _empty(flow: FlowDocument) -> None:
    flow.go("start", "end")


def _unfilled(flow: FlowDocument) -> None:
    flow.llm("a", "{{x}}", "x")
    flow.go("start", "a", "end")


def _far(flow: FlowDocument) -> None:
    for name in "abc":
        flow.llm(name, "{{x}}", "x")
    flow.go("start", "a", "b", "c", "end")
    flow.fill("start", "topic", "a", "x")
    flow.fill("start", "topic", "b", "x")
    flow.fill("a", "generated_text", "c", "x")


def _torn(flow: FlowDocument) -> None:
    flow.llm("a", "{{x}}", "x", outputs=("one", "two"))
    flow.llm("b", "{{x}}", "x")
    flow.go("start", "a", "b", "end")
    flow.fill("start", "topic", "a", "x")
    flow.fill("a", "two", "b", "x")


def _early(flow: FlowDocument) -> None:
    flow.llm("a", "x")
    flow.llm("b", "x")
    flow.go("start", "a", "b", "end")
    flow.fill("a", "generated_text", "end", "text")


@pytest.mark.parametrize(
    ("build", "code", "why"),
    [
        (_branching, "LL603", r'llmling does not support BranchingNode "choice"'),
        (_fork, "LL607", r"'a' has more than one way on"),
        (_circle, "LL607", r"'a' comes after itself"),
        (_dead_end, "LL607", r"nothing comes after 'a'"),
        (_beside, "LL607", r"'b' is not on the way from start to end"),
        (_empty, "LL607", r"it has no agent"),
        (_unfilled, "LL607", r'nothing fills the input "x"'),
        (_far, "LL607", r"comes from 'a', which is not right before it"),
        (_torn, "LL607", r"takes 'x' out of the 2 outputs of 'a'"),
        (_early, "LL607", r"its output 'text' comes from 'a', and the last one is 'b'"),
    ],
)
def test_a_flow_that_is_no_chain_says_why(build: Any, code: str, why: str) -> None:
    flow = FlowDocument()
    build(flow)
    with pytest.raises(ManifestError, match=why) as caught:
        load(str(flow))
    assert code in [problem.code for problem in caught.value.problems]
