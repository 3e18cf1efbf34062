"""From a manifest to components: agents, who asks whom, and who comes after whom."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any, cast

from llmling.agentspec.chains import flow
from llmling.agentspec.component import Component
from llmling.agentspec.fields import OURS_TOO
from llmling.agentspec.llms import llm_component
from llmling.agentspec.prose import says, spoken
from llmling.agentspec.secrets import Fragments
from llmling.agentspec.shapes import Unspeakable, properties_of, schema_of
from llmling.agentspec.toolboxes import server_tool, tool_box
from llmling.errors import ManifestError, Problem
from llmling.manifest.agents import AgentConfig, ConnectionConfig
from llmling.manifest.importing import ImportFailed, import_object
from llmling.manifest.knowledge import ResourceKnowledgeConfig
from llmling.manifest.nodes import Loc
from llmling.manifest.root import Manifest
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import AgentToolConfig, FunctionToolConfig
from llmling.tools.function import describe

_NODES = frozenset({"include", "defaults", "agents", "teams", "mcp_servers"})


class Exporter:
    """Makes components of the nodes of one manifest; what has no place in Agent Spec is told all at once."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.fragments = Fragments(manifest)
        self._agents: dict[str, Component] = {}
        self._boxes: dict[str, Component] = {}
        self._open: list[str] = []
        self._problems: list[Problem] = []

    # --- what is written -------------------------------------------------------------------------------------------

    def one(self, name: str) -> Component:
        """Return one agent with those it asks, or one team; its own connections stay behind.

        Raises:
            LookupError: There is no such agent or team.
            ManifestError: Something in it has no place in Agent Spec.
        """
        nodes = self._manifest.nodes
        if name not in nodes:
            raise LookupError(f"no agent or team {name!r} in the manifest; there are: {', '.join(nodes) or 'none'}")
        root = self._node(name)
        self._servers(root, whole=False)
        return self._checked(root)

    def whole(self) -> Component:
        """Return the whole pool as one component.

        Raises:
            ManifestError: Its nodes are no one component, or something in them has no place in Agent Spec.
        """
        tops = self._tops()
        root = self._chain(tops) if any(node.connections for node in self._manifest.nodes.values()) else None
        if root is None:
            if len(tops) != 1 and not self._problems:
                held = f"{len(tops)} that do not belong together: {', '.join(tops)}" if tops else "none"
                self._problem((), "LL603", f"a document holds one agent, team or chain, and here are {held}; name one")
            if len(tops) == 1 and not self._problems:
                root = self._node(tops[0])
        if root is not None:
            self._servers(root, whole=True)
            pool = {
                name: self.fragments.of(getattr(self._manifest, name), (name,))
                for name in type(self._manifest).model_fields
                if name in self._manifest.model_fields_set and name not in _NODES
            }
            if pool:
                root.extras.setdefault("pool", {}).update(pool)
        return self._checked(root)

    def _checked(self, root: Component | None) -> Component:
        if self._problems or root is None:
            raise ManifestError(self._problems)
        return root

    def _problem(self, loc: Loc, code: str, message: str) -> None:
        self._problems.append(self._manifest.problem(loc, code, message))

    @contextlib.contextmanager
    def _at(self, loc: Loc) -> Generator[None]:
        try:
            yield
        except Unspeakable as error:
            self._problem(loc, "LL603", f"this cannot be exported: {error}")
        except ImportFailed as error:
            self._problem(loc, "LL309", str(error))

    # --- who belongs to whom ---------------------------------------------------------------------------------------

    def _asked(self, name: str) -> list[AgentToolConfig]:
        config = self._manifest.nodes[name]
        tools = config.tools if isinstance(config, AgentConfig) else []
        return [tool for tool in tools if isinstance(tool, AgentToolConfig)]

    def _below(self, name: str) -> list[str]:
        config = self._manifest.nodes[name]
        return list(config.names) if isinstance(config, TeamConfig) else [tool.name for tool in self._asked(name)]

    def _tops(self) -> list[str]:
        """Return the nodes that are part of no other one; of those that ask each other, the first."""
        names = list(self._manifest.nodes)
        inner = {below for name in names for below in self._below(name) if below != name}
        tops = [name for name in names if name not in inner]
        covered: set[str] = set()
        for name in [*tops, *names]:
            if name in covered:
                continue
            if name not in tops:
                tops.append(name)
            todo = [name]
            while todo:
                if (other := todo.pop()) not in covered:
                    covered.add(other)
                    todo.extend(self._below(other))
        return tops

    def _chain(self, tops: list[str]) -> Component | None:
        """Return nodes joined by connections as a flow; None when they are no chain, which is then a problem."""
        after: dict[str, tuple[str, ConnectionConfig]] = {}
        for name, config in self._manifest.nodes.items():
            for index, edge in enumerate(config.connections):
                loc: Loc = (*self._loc(name), "connections", index)
                if edge.when is not None or edge.transform is not None:
                    self._problem(loc, "LL603", "a chain of Agent Spec has no conditions and no transforms")
                elif name not in tops or edge.to not in tops:
                    self._problem(loc, "LL603", "a part of another agent or team cannot be part of a chain as well")
                elif name in after or any(edge.to == other.to for _, other in after.values()):
                    self._problem(loc, "LL603", "a chain of Agent Spec has one way on from each agent, and one way in")
                else:
                    after[name] = (name, edge)
        if self._problems:
            return None
        first = [name for name in tops if all(edge.to != name for _, edge in after.values())]
        if len(first) != 1:
            self._problem((), "LL603", "the connections are no one chain through all agents; name one agent")
            return None
        names, links = first, list[dict[str, Any]]()
        while (step := after.get(names[-1])) is not None:
            names.append(step[1].to)
            links.append({"wait": True} if step[1].wait else {})
        return flow(" >> ".join(names), [self._node(name) for name in names], None, {"chain": links})

    def _loc(self, name: str) -> Loc:
        return ("teams" if name in self._manifest.teams else "agents", name)

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _node(self, name: str) -> Component:
        """Return a team as a flow, an agent alone, or an agent with those it asks."""
        if name in self._open:
            self._problem(self._loc(name), "LL603", f"this contains itself: {' > '.join([*self._open, name])}")
            return Component("Agent", name, {"inputs": [], "outputs": []})
        self._open.append(name)
        try:
            config = self._manifest.nodes[name]
            return self._team(name, config) if isinstance(config, TeamConfig) else self._group(name)
        finally:
            self._open.pop()

    def _team(self, name: str, config: TeamConfig) -> Component:
        if config.mode != "sequential":
            self._problem((*self._loc(name), "mode"), "LL603", "only a sequential team is a chain; name its members")
        extras = self.fragments.of(config, self._loc(name), leave=("description", "mode", "members", "connections"))
        steps = [self._node(member) for member in config.names]
        return flow(name, steps, config.description or None, {"team": extras})

    def _group(self, name: str) -> Component:
        asked = [tool.name for tool in self._asked(name)]
        first = self._agent(name)
        shared = {part: first.fields.get(part, []) for part in ("inputs", "outputs")}
        if not asked:
            return first
        if name not in asked and not any(self._asked(other) for other in asked):
            workers = [self._node(other) for other in dict.fromkeys(asked)]
            fields = {**shared, "group_manager": first, "workers": workers}
            return Component("ManagerWorkers", f"{name} and those it asks", fields, since="25.4.2")
        pairs: dict[tuple[str, str], None] = {}
        todo = [name]
        while todo:
            caller = todo.pop(0)
            for tool in self._asked(caller):
                if (caller, tool.name) not in pairs:
                    pairs[caller, tool.name] = None
                    todo.append(tool.name)
        members = {other: self._member(other) for pair in pairs for other in pair}
        relationships = [[members[caller], members[other]] for caller, other in pairs]
        fields = {**shared, "first_agent": first, "relationships": relationships, "handoff": "never"}
        return Component("Swarm", f"{name} and those it asks", fields, since="25.4.2")

    def _member(self, name: str) -> Component:
        return self._node(name) if name in self._manifest.teams else self._agent(name)

    def _agent(self, name: str) -> Component:
        if name in self._agents:
            return self._agents[name]
        config, loc = self._manifest.agents[name], self._loc(name)
        part = Component("Agent", name, {}, config.description or None, self.fragments.of(config, loc, leave=OURS_TOO))
        self._agents[name] = part
        part.fields["llm_config"] = llm_component(config, self.fragments, loc)
        if "timeout_s" in config.model_settings.model_fields_set:
            part.extras["model_settings"] = {"timeout_s": config.model_settings.timeout_s}
        self._instructions(part, config, (*loc, "instructions"))
        self._tools(part, config, loc)
        self._output(part, config, (*loc, "output"))
        return part

    def _instructions(self, part: Component, config: AgentConfig, loc: Loc) -> None:
        part.fields |= {"system_prompt": "", "inputs": [], "outputs": []}
        with self._at(loc):
            prose = spoken(config.instructions)
            part.fields |= {"system_prompt": prose.text, "inputs": list(prose.inputs.values())}
            if not says(config.instructions, prose):
                part.extras["instructions"] = self.fragments.of(config.instructions, loc)

    def _tools(self, part: Component, config: AgentConfig, loc: Loc) -> None:
        tools: list[Component] = []
        part.fields["tools"] = tools
        for index, tool in enumerate(config.tools):
            place: Loc = (*loc, "tools", index)
            if isinstance(tool, AgentToolConfig):
                if said := self.fragments.of(tool, place, leave=("type", "name")):
                    part.extras.setdefault("asks", {})[tool.name] = said
                continue
            with self._at(place):
                if not isinstance(cast("object", tool), FunctionToolConfig):
                    raise Unspeakable(f"there is no word for tools of type {tool.type!r}")
                given = self._manifest.tools.get(tool.function)
                found = import_object(tool.function, self._manifest.folder) if given is None else given
                live = describe(tool, found)
                tools.append(server_tool(live, tool, self.fragments, place))
        boxes = [
            box for index, entry in enumerate(config.mcp_servers) if (box := self._box(part.name, index, entry, loc))
        ]
        if boxes:
            part.fields["toolboxes"], part.since = boxes, "25.4.2"

    def _box(self, agent: str, index: int, entry: Any, loc: Loc) -> Component | None:
        name, config, place = f"{agent}-{index}", entry, (*loc, "mcp_servers", index)
        if isinstance(entry, str):
            name, config, place = entry, self._manifest.mcp_servers[entry], ("mcp_servers", entry)
        with self._at(place):
            if name not in self._boxes:
                self._boxes[name] = tool_box(name, config, self.fragments, place)
            return self._boxes[name]
        return None

    def _output(self, part: Component, config: AgentConfig, loc: Loc) -> None:
        if config.output is None:
            return
        with self._at(loc):
            schema: Mapping[str, Any] = (
                import_object(config.output, self._manifest.folder).model_json_schema()
                if isinstance(config.output, str)
                else config.output
            )
            part.fields["outputs"] = properties_of(schema)
            if config.output != schema_of(part.fields["outputs"]):
                part.extras["output"] = self.fragments.of(config.output, loc)

    def _servers(self, root: Component, *, whole: bool) -> None:
        """Put the MCP servers nobody takes tools from beside the pool: knowledge may be read from them."""
        read = {
            source.server
            for name in self._agents
            for source in self._manifest.agents[name].knowledge
            if isinstance(source, ResourceKnowledgeConfig)
        }
        left = {
            name: self.fragments.of(config, ("mcp_servers", name))
            for name, config in self._manifest.mcp_servers.items()
            if name not in self._boxes and (whole or name in read)
        }
        if left:
            root.extras.setdefault("pool", {})["mcp_servers"] = left
