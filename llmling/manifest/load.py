"""The loader: a file with all it includes becomes valid parts, or a report of every mistake in them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import TypeAdapter

from llmling import garbage
from llmling.errors import Problem
from llmling.manifest.agents import AgentConfig
from llmling.manifest.budgets import BudgetConfig
from llmling.manifest.checks import check_draft
from llmling.manifest.draft import Draft
from llmling.manifest.interpolate import Values
from llmling.manifest.keys import HINTS
from llmling.manifest.merge import Agents, Files
from llmling.manifest.nodes import Entry, Loc, MappingNode, ScalarNode, SequenceNode, find, followed, from_python
from llmling.manifest.pins import Pins, pins_path, read_pins
from llmling.manifest.pool import EngineConfig, PoolLimitsConfig, ServerEntry
from llmling.manifest.problems import Place, Report, Source, label, nearest
from llmling.manifest.shape import Part, Shapes
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import McpServerConfig

_SINGLE: Mapping[str, Any] = {
    "engine": EngineConfig,
    "server": ServerEntry,
    "limits": PoolLimitsConfig,
    "budget": BudgetConfig | None,
}
_NAMED: Mapping[str, Any] = {"mcp_servers": McpServerConfig, "agents": AgentConfig, "teams": TeamConfig}
ROOT_KEYS = frozenset({"include", "defaults", *_SINGLE, *_NAMED})
_POOL_ONLY = ("agents", "teams", "defaults", "engine", "server")
# Names become parts of delivery ids, `<event>/<agent>/<agent>`, and of commands.
_NAME = re.compile(r"[^\s/](?:[^/\r\n\t]{0,98}[^\s/])?\Z")


@dataclass(slots=True)
class Found:
    """What reading a manifest gave; `sections` is only complete when the report has no error.

    `files` and `patterns` (with the folder each starts from) are where it was read from.
    """

    report: Report
    folder: Path
    path: Path | None
    root: MappingNode | None = None
    files: tuple[Path, ...] = ()
    patterns: tuple[tuple[Path, str], ...] = ()
    sections: dict[str, Any] = field(default_factory=dict[str, Any])
    pins: Pins | None = None

    def locate(self, loc: Loc) -> str:
        """Return `file:line:column` of the nearest existing key."""
        if self.root is None:
            return str(self.path or self.folder)
        return str(find(self.root, loc).key_place)

    def written(self, loc: Loc) -> str | None:
        """Return a text as it was written, if variables were filled into it."""
        found = find(self.root, loc) if self.root is not None else None
        if found is None or found.rest or not isinstance(found.node, ScalarNode) or not found.node.variables:
            return None
        return found.node.text

    def problem(self, loc: Loc, code: str, message: str) -> Problem:
        """Return a problem of the nearest existing key, for what is only found out later."""
        report = Report()
        report.secrets = self.report.secrets
        found = find(self.root, loc) if self.root is not None else None
        place = found.key_place if found else Place(Source(str(self.path or self.folder)))
        # A mapping built in Python has no lines; its keys say where it is.
        where = "" if found and found.node.start else f"({label(loc)})" if loc else ""
        report.add(place, code, message, where=where)
        return report.problems()[0]


@functools.cache
def _adapter(section: str) -> TypeAdapter[Any]:
    return TypeAdapter(_SINGLE[section] if section in _SINGLE else _NAMED[section])


def read(
    source: str | Path | Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    *,
    one_agent: bool = False,
    tools: Mapping[str, Any] | None = None,
) -> Found:
    """Read a manifest and check everything that can be checked without a network.

    Never raises for bad content: the report has it all. With `one_agent` the root holds the keys of one agent.
    `tools` stand for the paths of function tools, which are then not imported.
    """
    with garbage.held():
        return _read(source, os.environ if env is None else env, one_agent, tools or {})


def _read(
    source: str | Path | Mapping[str, Any], env: Mapping[str, str], one_agent: bool, tools: Mapping[str, Any]
) -> Found:
    report = Report()
    values = Values(env, report)
    if isinstance(source, Mapping):
        found = Found(report, Path.cwd(), None, _from_mapping(source, report))
    else:
        path = Path(os.path.abspath(source))  # noqa: PTH100 - `resolve` would follow links out of the folder
        files = Files(report, values)
        root, lock = files.load(path, str(source)), pins_path(path)
        found = Found(report, path.parent, path, root, (*files.paths, lock), files.patterns)
        if root is not None:
            accept = f"llmling lock {quote(str(source))}"
            found.pins = read_pins(path, Source(str(pins_path(Path(source)))), accept, report)
    if found.root is not None:
        hidden = 0
        if one_agent:
            stem = found.path.stem if found.path is not None else ""
            found.root, hidden = _as_pool(found.root, report, values, stem), 2
        _Reading(found, values, Shapes(report, values, hidden), tools).run()
    return found


def _from_mapping(source: Mapping[str, Any], report: Report) -> MappingNode | None:
    origin = Source("<manifest>")
    try:
        root = from_python(source, origin)
    except ValueError as error:
        report.add(Place(origin), "LL009", str(error))
        return None
    return root if isinstance(root, MappingNode) else None


def _as_pool(root: MappingNode, report: Report, values: Values, stem: str) -> MappingNode:
    """Return the root of a pool whose only agent the file describes."""
    entries = dict(root.entries)
    for name in _POOL_ONLY:
        if (entry := entries.pop(name, None)) is not None:
            hint = "open this file with AgentPool" if name == "agents" else "this file describes one agent"
            report.add(entry.key.place, "LL201", f'"{name}" belongs into the manifest of a pool', hint=hint)
    entries.pop("include", None)
    servers = entries.get("mcp_servers")
    if servers is not None and isinstance(followed(servers.node), MappingNode):
        report.add(servers.key.place, "LL203", '"mcp_servers" of an agent should be a list of mappings')
        del entries["mcp_servers"]
    name, key = stem, ScalarNode(root.source, root.start, root.start, stem, plain=False)
    if (entry := entries.pop("name", None)) is not None:
        node = followed(entry.node)
        value = values.scalar(node) if isinstance(node, ScalarNode) else None
        if isinstance(value, str) and isinstance(node, ScalarNode):
            name, key = str(value), ScalarNode(node.source, node.start, node.end, str(value), plain=False)
        else:
            report.add(entry.key.place, "LL203", '"name" should be text')
    elif not stem:
        report.add(root.place, "LL202", 'missing key "name"')
    name = name or "agent"
    agent = Entry(key, root.like(entries))
    return root.like({"agents": Entry(key, root.like({name: agent}))})


class _Reading:
    """Takes the root apart, section by section."""

    def __init__(self, found: Found, values: Values, shapes: Shapes, tools: Mapping[str, Any]) -> None:
        assert found.root is not None  # noqa: S101
        self._found = found
        self._root: MappingNode = found.root
        self._report = found.report
        self._values = values
        self._shapes = shapes
        shown = os.path.dirname(found.root.source.name)  # noqa: PTH120
        self._draft = Draft(found.folder, found.report, shapes.where, shown, tools)

    def run(self) -> None:
        """Validate every section, check what refers to what, and keep the valid parts."""
        self._check_keys()
        root, draft = self._root, self._draft
        singles = {name: self._single(name) for name in _SINGLE if name in root.entries}
        draft.engine, draft.server = singles.get("engine"), singles.get("server")
        limits = singles.get("limits")
        if limits is not None:
            draft.max_hops = limits.config.max_hops
            draft.hops_chosen = "max_hops" in limits.config.model_fields_set
        draft.server_names, draft.servers = self._named("mcp_servers")
        draft.agent_names, draft.agents = self._agents()
        draft.team_names, draft.teams = self._named("teams")
        check_draft(draft)
        sections = self._found.sections
        sections.update({name: part.config for name, part in singles.items() if part is not None})
        sections["mcp_servers"] = {name: part.config for name, part in draft.servers.items()}
        sections["agents"] = {name: draft.agents[name].config for name in draft.agent_names if name in draft.agents}
        sections["teams"] = {name: part.config for name, part in draft.teams.items()}
        for name in ("include", "defaults"):
            if name in root.entries:
                sections[name] = self._values.plain(root.entries[name].node)

    def _check_keys(self) -> None:
        """Report unknown keys; one that is a misspelt section is read as what it was meant to be."""
        entries = dict(self._root.entries)
        for name, entry in self._root.entries.items():
            if name in ROOT_KEYS or name.startswith("x-"):
                continue
            self._shapes.unknown_among("root", find(self._root, (name,)), name, (), ROOT_KEYS)
            if name not in HINTS["root"] and (meant := nearest(name, ROOT_KEYS - {"include"})):
                entries.setdefault(meant, entry)
        self._root = self._root.like(entries)

    def _single(self, name: str) -> Part | None:
        return self._shapes.validate(_adapter(name), self._root.entries[name], (name,))

    def _section(self, name: str) -> dict[str, Entry]:
        entry = self._root.entries.get(name)
        if entry is None:
            return {}
        node = followed(entry.node)
        if isinstance(node, MappingNode):
            return {key: item for key, item in node.entries.items() if not key.startswith("x-")}
        found = find(self._root, (name,))
        empty = isinstance(node, ScalarNode) and not node.text
        hint = "it is empty; give it a value or remove the key" if empty else ""
        if isinstance(node, SequenceNode):
            hint = f"write {name}: {{name: ...}}"
        self._report.add(found.value_place, "LL203", f'"{name}" should be a mapping', hint=hint, uses=found.uses)
        return {}

    def _named(self, section: str) -> tuple[dict[str, ScalarNode], dict[str, Part]]:
        entries = self._section(section)
        parts: dict[str, Part] = {}
        for name, entry in entries.items():
            self._name(name, entry, section)
            part = self._shapes.validate(_adapter(section), entry, (section, name))
            if part is not None:
                parts[name] = part
        return {name: entry.key for name, entry in entries.items()}, parts

    def _agents(self) -> tuple[dict[str, ScalarNode], dict[str, Part]]:
        entries = self._section("agents")
        adapter = _adapter("agents")
        defaults: MappingNode | None = None
        if (entry := self._root.entries.get("defaults")) is not None:
            node = followed(entry.node)
            if isinstance(node, MappingNode) and (below := node.entries.get("extends")) is not None:
                self._report.add(
                    below.key.place, "LL201", '"extends" cannot stand in defaults', hint="write it in an agent"
                )
                node = node.like({name: item for name, item in node.entries.items() if name != "extends"})
                entry = Entry(entry.key, node)
            part = self._shapes.validate(adapter, entry, ("defaults",), partial=True)
            if part is not None and "model" in part.config.model_fields_set:
                self._draft.default_model = part.config.model
            defaults = self._draft.defaults = node if isinstance(node, MappingNode) else None
        merged = Agents(entries, defaults, self._report, self._values).merged()
        whole: dict[str, Entry] = {}
        parts: dict[str, Part] = {}
        # An agent stands behind the one it extends, so an inherited mistake is told where it was written.
        for name in [*merged, *(name for name in entries if name not in merged)]:
            entry = entries[name]
            whole[name] = Entry(entry.key, merged.get(name, entry.node))
            self._name(name, entry, "agents")
            part = self._shapes.validate(adapter, whole[name], ("agents", name))
            if part is not None:
                parts[name] = part
        if whole:
            agents = self._root.entries["agents"]
            section = followed(agents.node)
            assert isinstance(section, MappingNode)  # noqa: S101
            tree = section.like({name: whole[name] for name in entries})
            self._found.root = self._root.like({**self._root.entries, "agents": Entry(agents.key, tree)})
        return {name: entry.key for name, entry in entries.items()}, parts

    def _name(self, name: str, entry: Entry, section: str) -> None:
        if "${" in name:
            self._report.add(entry.key.place, "LL112", "a variable cannot stand in a name", hint="write the name out")
        elif not _NAME.match(name):
            hint = "use up to 100 characters without / or spaces at the ends"
            self._report.add(entry.key.place, "LL204", f'"{name}" is no name', where=section, hint=hint)
