"""From a document to the mapping of a manifest: agents, and those that ask each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from llmling.agentspec.document import Document, Part
from llmling.agentspec.fields import AGENTS, LLMS, OURS_TOO
from llmling.agentspec.given import Given, written
from llmling.agentspec.prose import jinja, of_event, placeholders, spoken_again
from llmling.agentspec.reading import (
    filtered,
    model_of,
    output_of,
    retries_of,
    server_of,
    settings_of,
    tool_of,
    transport_of,
)
from llmling.agentspec.secrets import unescaped
from llmling.agentspec.shapes import Unspeakable
from llmling.agentspec.steps import FlowReader, Step
from llmling.manifest.nodes import SequenceNode, followed

_TOOLS = ("MCPTool", "ServerTool")
_HANDLED = frozenset({*OURS_TOO, "asks", "pool"})


class Importer:
    """Makes the mapping of a manifest of a document; problems go to the document's report."""

    def __init__(self, document: Document, given: Given) -> None:
        self._document = document
        self._given = given
        self._servers: dict[str, Any] = {}
        self._agents: dict[str, dict[str, Any]] = {}
        self._teams: dict[str, dict[str, Any]] = {}
        self._faces: dict[tuple[int, Step | None], str] = {}
        self._server_names: dict[tuple[int, tuple[str, ...] | None], str] = {}
        self._open: list[Part] = []

    def manifest(self) -> dict[str, Any]:
        """Return what the document says as a manifest."""
        root = self._document.root(AGENTS)
        if root is None:
            return {}
        self._node(root)
        for config in self._agents.values():
            config.pop("asks", None)
        pool: dict[str, Any] = {**self._given.fragment(root, root.noted("pool"))}
        further = pool.pop("mcp_servers", None)
        servers = {**self._servers, **(cast("dict[str, Any]", further) if isinstance(further, dict) else {})}
        sections = {**pool, "mcp_servers": servers, "agents": self._agents, "teams": self._teams}
        return {name: section for name, section in sections.items() if section or name in pool}

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _node(self, part: Part, step: Step | None = None) -> str:
        """Return the name of the agent or team that stands for a component."""
        face = self._faces.get((id(part.node), step))
        if face is not None:
            return face
        if part in self._open:
            part.problem(None, "LL604", "this component contains itself")
            return part.name
        self._open.append(part)
        try:
            match part.type:
                case "Agent":
                    face = self._agent(part, step)
                case "Flow":
                    face = self._flow(part)
                case "ManagerWorkers":
                    face = self._managed(part, step)
                case _:
                    face = self._swarm(part, step)
        finally:
            self._open.pop()
        self._faces[id(part.node), step] = face
        return face

    def _name(self, wanted: str, taken: Mapping[str, Any]) -> str:
        """Return a name a manifest allows and nothing else has."""
        name = re.sub(r"[/\r\n\t]+", "-", wanted.strip())[:90].strip() or "agent"
        number = 1
        while (numbered := name if number == 1 else f"{name}-{number}") in taken:
            number += 1
        return numbered

    def _managed(self, part: Part, step: Step | None) -> str:
        manager = part.part("group_manager", AGENTS)
        face = self._node(manager, step) if manager is not None else part.name
        workers = list(part.parts("workers", AGENTS))
        if not workers:
            part.problem("workers", "LL202", "a group needs a worker", hint="an `Agent` needs none")
        for worker in workers:
            self._ask(part, face, self._node(worker))
        return face

    def _swarm(self, part: Part, step: Step | None) -> str:
        first = part.part("first_agent", AGENTS)
        face = self._node(first, step) if first is not None else part.name
        pairs = part.nodes("relationships")
        if not pairs:
            part.problem("relationships", "LL202", "a swarm needs a relationship", hint="an `Agent` needs none")
        for node in pairs:
            pair = followed(node)
            items = pair.items if isinstance(pair, SequenceNode) else []
            ends = [self._document.part(item, AGENTS) for item in items]
            if len(ends) != 2:
                part.problem("relationships", "LL203", "a relationship is a list of two agents", place=node.place)
            elif ends[0] is not None and ends[1] is not None:
                caller = face if ends[0] is first else self._node(ends[0])
                self._ask(part, caller, face if ends[1] is first else self._node(ends[1]))
        return face

    def _ask(self, part: Part, caller: str, other: str) -> None:
        if caller not in self._agents:
            part.problem(None, "LL603", f"only an agent can ask another one, and {caller!r} is none")
            return
        said: Any = self._agents[caller].get("asks", {}).get(other)
        entry: dict[str, Any] = {"type": "agent", "name": other, **(said if isinstance(said, dict) else {})}
        tools = self._agents[caller].setdefault("tools", [])
        if entry not in tools:
            tools.append(entry)

    def _flow(self, part: Part) -> str:
        reader = FlowReader(part)
        faces: list[str] = []
        for node, step in reader.steps():
            if node.type == "LlmNode":
                faces.append(self._llm_node(node, step))
            elif (agent := node.part("agent", AGENTS)) is not None:
                faces.append(self._node(agent, None if step.plain else step))
        links = part.noted_list("chain")
        if links is not None and len(links) == len(faces) - 1:
            for source, target, link in zip(faces, faces[1:], links, strict=False):
                node = self._agents.get(source) or self._teams.get(source) or {}
                edge = {"to": target, **cast("dict[str, Any]", link)} if link and isinstance(link, dict) else target
                node.setdefault("connections", []).append(edge)
            return faces[0]
        name = self._name(part.name, {**self._agents, **self._teams})
        team: dict[str, Any] = {"mode": "sequential", "members": faces}
        if part.has("description"):
            team["description"] = written(part.text("description"))
        self._teams[name] = team | self._given.fragment(part, part.noted("team"))
        return name

    # --- agents ----------------------------------------------------------------------------------------------------

    def _new(self, part: Part, llm: Part | None) -> tuple[str, dict[str, Any]]:
        name = self._name(part.name, {**self._agents, **self._teams})
        extras = {key: value for key, value in part.extras.items() if key not in _HANDLED}
        config: dict[str, Any] = {**self._given.fragment(part, extras)}
        self._agents[name] = config
        if part.has("description"):
            config["description"] = written(part.text("description"))
        if llm is not None:
            config["model"] = model_of(llm, self._given)
            retries, timeout = retries_of(llm)
            settings = {**settings_of(llm), **timeout, **part.noted("model_settings")}
            config |= {"model_settings": settings} if settings else {}
            config |= {"retries": retries} if retries else {}
        return name, config

    def _llm_node(self, part: Part, step: Step) -> str:
        if (face := self._faces.get((id(part.node), step))) is not None:
            return face
        name, config = self._new(part, part.part("llm_config", LLMS))
        text = part.text("prompt_template", required=True)
        config["instructions"] = {"directive": written(jinja(text, lambda word: step.filled(word, part)))}
        if (output := step.output(part)) is not None:
            config["output"] = output
        self._faces[id(part.node), step] = name
        return name

    def _agent(self, part: Part, step: Step | None) -> str:
        name, config = self._new(part, part.part("llm_config", LLMS))
        config["asks"] = self._given.fragment(part, part.noted("asks"))
        instructions = self._instructions(part, step)
        if instructions:
            config["instructions"] = instructions
        tools = [
            entry
            for tool in part.parts("tools", _TOOLS)
            if tool.type == "ServerTool" and (entry := tool_of(tool, self._given))
        ]
        if tools:
            config["tools"] = tools
        servers = self._boxes(part)
        if servers:
            config["mcp_servers"] = servers
        output = output_of(part, self._given) if step is None else step.output(part)
        if output is not None:
            config["output"] = output
        return name

    def _instructions(self, part: Part, step: Step | None) -> Any:
        text = part.text("system_prompt")
        if not part.has("system_prompt"):
            part.problem(None, "LL202", 'missing key "system_prompt"')
        inputs = {item["title"]: item for item in part.properties("inputs")}
        asked = placeholders(text)
        for name in inputs:
            if name not in asked:
                part.problem("inputs", "LL603", f'nothing in the system prompt asks for the input "{name}"')
        noted = part.extras.get("instructions")
        if noted is not None:
            try:
                prose = spoken_again(unescaped(noted))
                if prose.text == text:
                    return self._given.fragment(part, noted)
            except (Unspeakable, ValidationError):
                # What was noted no longer fits; the system prompt says what the agent is told.
                pass
        if step is not None and any(step.from_message(name) for name in asked):
            return {"directive": written(jinja(text, lambda name: step.filled(name, part)))}

        def filled(name: str) -> str:
            default = inputs.get(name, {}).get("default")
            return of_event(name, default) if step is None else step.filled(name, part)

        return written(jinja(text, filled))

    def _boxes(self, part: Part) -> list[str]:
        names = [
            self._server(box, transport, filtered(box))
            for box in part.parts("toolboxes", ("MCPToolBox",))
            if (transport := transport_of(box)) is not None
        ]
        single: dict[int, tuple[Part, list[str]]] = {}
        for tool in part.parts("tools", _TOOLS):
            if tool.type == "MCPTool" and (transport := transport_of(tool)) is not None:
                single.setdefault(id(transport), (transport, []))[1].append(tool.name)
        names.extend(self._server(transport, transport, tools) for transport, tools in single.values())
        return names

    def _server(self, part: Part, transport: Part, tools: list[str] | None) -> str:
        key = (id(part.node), None if tools is None else tuple(tools))
        if key not in self._server_names:
            self._server_names[key] = name = self._name(part.name, self._servers)
            self._servers[name] = server_of(transport, self._given, part.extras if part is not transport else {}, tools)
        return self._server_names[key]
