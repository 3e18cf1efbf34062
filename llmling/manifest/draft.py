"""The valid parts of a manifest, before it is known whether they fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmling.manifest.models import ModelConfig
from llmling.manifest.nodes import Loc, MappingNode, ScalarNode, find
from llmling.manifest.problems import Report
from llmling.manifest.shape import Part


@dataclass(slots=True)
class Draft:
    """What `checks` looks at; the `_names` also hold parts that are not valid themselves."""

    folder: Path
    report: Report
    where: Callable[[Loc], str]
    shown: str = ""
    """The manifest's folder as problems show it."""
    tools: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What stands for the paths of function tools."""
    max_hops: int = 10
    hops_chosen: bool = False
    """Whether the manifest says itself how long a way may be."""
    default_model: ModelConfig | None = None
    """The model that `defaults:` names."""
    defaults: MappingNode | None = None
    """What `defaults:` says."""
    engine: Part | None = None
    server: Part | None = None
    server_names: dict[str, ScalarNode] = field(default_factory=dict[str, ScalarNode])
    servers: dict[str, Part] = field(default_factory=dict[str, Part])
    agent_names: dict[str, ScalarNode] = field(default_factory=dict[str, ScalarNode])
    agents: dict[str, Part] = field(default_factory=dict[str, Part])
    team_names: dict[str, ScalarNode] = field(default_factory=dict[str, ScalarNode])
    teams: dict[str, Part] = field(default_factory=dict[str, Part])

    def nodes(self) -> Iterator[tuple[str, Part]]:
        """Yield agents, then teams, in the order they are written."""
        for name in self.agent_names:
            if name in self.agents:
                yield name, self.agents[name]
        yield from self.teams.items()

    def problem(
        self,
        part: Part,
        loc: Loc,
        code: str,
        message: str,
        *,
        hint: str = "",
        severity: str = "error",
        sentence: bool = True,
        line: int | None = None,
    ) -> None:
        """Report a problem of a value; where the value is not written, at the nearest key.

        Behind a whole `sentence` the path stands in brackets. `line` is the one of a block scalar that is meant.
        """
        found = find(part.node, loc)
        if found.node.broken:
            return
        place = found.key_place if found.rest else found.value_place
        if line is not None and isinstance(found.node, ScalarNode):
            place = found.node.inner(line)
        path = (*part.loc, *found.path)
        where = self.where(path if found.rest else path[:-1])
        where = f"({where})" if sentence and where else where
        self.report.add(place, code, message, where=where, hint=hint, uses=found.uses, severity=severity)

    def title(self, part: Part, index: int) -> str:
        """Return what people call a trigger: its name, or where it stands."""
        name = part.config.triggers[index].name
        return f'"{name}"' if name else self.where((*part.loc, *find(part.node, ("triggers", index)).path))
