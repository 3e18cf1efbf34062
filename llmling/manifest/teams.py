"""Config of teams: several agents that stand where one may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from llmling.manifest.agents import NodeConfig
from llmling.manifest.base import CallablePath, Config, Count, Expression, Template
from llmling.manifest.models import ModelConfig
from llmling.manifest.nodes import Loc

Mode: TypeAlias = Literal["parallel", "sequential", "pick", "map"]
Picking: TypeAlias = Literal["model", "when", "pick"]

_ONLY: tuple[tuple[str, Mode], ...] = (
    ("model", "pick"),
    ("instructions", "pick"),
    ("pick", "pick"),
    ("over", "map"),
    ("max_concurrency", "map"),
)


class MemberConfig(Config):
    """A member of a team."""

    name: str
    """Agent or other team."""
    when: Expression | None = None
    """With `mode: pick`: expression over `message` and `event`; the first member whose `when` is true answers."""


def member_shorthand(value: Any) -> Any:
    """Turn the name of a member into its mapping."""
    return {"name": value} if isinstance(value, str) else value


MemberEntry = Annotated[MemberConfig, BeforeValidator(member_shorthand, json_schema_input_type=str | MemberConfig)]


class TeamConfig(NodeConfig):
    """Several agents that stand where one may."""

    mode: Mode = "parallel"
    """`parallel`: all get the message; `sequential`: each gets the answer of the one before; `pick`: one of them
    answers; `map`: every item of a list goes through the members, one after the other."""
    members: list[MemberEntry] = Field(min_length=1)
    """Names of agents or other teams, or mappings."""
    model: ModelConfig | None = None
    """With `mode: pick`: the model that picks by the members' descriptions, when none of them has a `when`; absent:
    that of `defaults:`, else `auto`."""
    instructions: Template = ""
    """With `mode: pick`: what that model is told beside the descriptions; sandboxed Jinja."""
    pick: CallablePath | None = None
    """With `mode: pick`: `(Message) -> str`, sync or async, picks instead; it returns the name of a member."""
    over: Expression | None = None
    """With `mode: map`: expression over `message`, `event` and `data` (the JSON of the message's text) that gives the
    list; absent: the list in the message's text, or its lines."""
    max_concurrency: Count = 4
    """With `mode: map`: most items at once."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the members."""
        return tuple(member.name for member in self.members)

    @property
    def picks_by(self) -> Picking | None:
        """How one of the members is picked; None when all of them answer."""
        if self.mode != "pick":
            return None
        if self.pick is not None:
            return "pick"
        return "when" if any(member.when is not None for member in self.members) else "model"

    def faults(self) -> Iterator[tuple[Loc, str, str]]:
        """Yield what does not fit together: the key, what is wrong with it, and what to do."""
        for key, mode in _ONLY:
            if self.mode != mode and key in self.model_fields_set:
                yield (key,), f"`{key}` is for `mode: {mode}`", f"remove it, or write `mode: {mode}`"
        if self.mode == "pick":
            yield from self._faults_of_pick()
            return
        for index, member in enumerate(self.members):
            if member.when is not None:
                hint = "remove it, or write `mode: pick`"
                yield ("members", index, "when"), "`when` of a member is for `mode: pick`", hint

    def _faults_of_pick(self) -> Iterator[tuple[Loc, str, str]]:
        by = self.picks_by
        instead = {"when": ("`when` of the members", ("model", "instructions")), "pick": ("`pick`", ("model",))}
        what, unused = instead.get(by or "", ("", ()))
        for key in unused:
            if key in self.model_fields_set:
                yield (key,), f"`{key}` is not used where {what} decides", "remove one of them"
        first: dict[str, int] = {}
        otherwise: int | None = None
        for index, member in enumerate(self.members):
            if first.setdefault(member.name, index) != index:
                message = f'"{member.name}" is a member already (members[{first[member.name]}])'
                yield ("members", index, "name"), message, "remove one of them; join two conditions with `or`"
            elif by == "pick" and member.when is not None:
                yield ("members", index, "when"), "`when` is not used where `pick` decides", "remove one of them"
            elif by == "when" and member.when is None:
                if otherwise is not None:
                    message = f'"{member.name}" is never picked: members[{otherwise}] has no `when` either'
                    yield ("members", index, "name"), message, "give one of them a `when`"
                otherwise = index if otherwise is None else otherwise
