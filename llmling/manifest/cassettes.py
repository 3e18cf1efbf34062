"""A cassette: model requests and what came of them, as `--record` writes them and `replay:cassette.yml` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, model_validator

from llmling.manifest.base import TEXT_OR_MAPPING, Config, Cost, CountFromZero, InMapping, Seconds, Text, Truth
from llmling.manifest.interpolate import Values
from llmling.manifest.nodes import Entry, MappingNode, Node, ScalarNode, SequenceNode, find, followed
from llmling.manifest.parse import decode, parse
from llmling.manifest.problems import Place, Report, Source, did_you_mean
from llmling.manifest.reading import read_file
from llmling.manifest.shape import Shapes

MAX_CASSETTE_BYTES = 20_000_000
FORMAT = 1
_KEYS = ("version", "tools", "exchanges")
_START = "record one with --record"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CassetteCall(Config):
    """A tool call of an answer; requests are compared without its `id`."""

    id: str = ""
    """The model's name for this call."""
    name: str
    """The tool."""
    arguments: Annotated[
        Annotated[str, Text] | Annotated[dict[str, Any], InMapping],
        TEXT_OR_MAPPING,
    ] = Field(default_factory=dict[str, Any])
    """What it is called with; a text when the model sent no JSON object."""


class CassetteResult(Config):
    """What a tool answered."""

    id: str = ""
    """The call it belongs to."""
    name: str
    """The tool."""
    response: str
    """Its text."""
    failed: Truth = False
    """Whether it is an error."""


class CassetteMessage(Config):
    """One message of a request."""

    role: Literal["system", "user", "assistant", "tool"]
    """Whose it is."""
    text: str = ""
    """Its text."""
    tool_calls: list[CassetteCall] = Field(default_factory=list[CassetteCall])
    """Tools that were asked for."""
    results: list[CassetteResult] = Field(default_factory=list[CassetteResult])
    """What they answered."""


class CassetteTool(Config):
    """A tool on offer."""

    name: str
    """Its name."""
    description: str = ""
    """What the model was told about it."""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    """JSON Schema of its arguments."""


class CassetteRequest(Config):
    """What a model was asked."""

    messages: list[CassetteMessage]
    """The exchange so far."""
    tools: list[str] = Field(default_factory=list[str])
    """The tools on offer, as they are called in the cassette's own `tools:`."""
    output: dict[str, Any] | None = None
    """JSON Schema of a structured answer."""
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Temperature and the like."""


class CassetteUsage(Config):
    """Tokens of one exchange."""

    input_tokens: CountFromZero = 0
    """Tokens of the request."""
    output_tokens: CountFromZero = 0
    """Tokens of the answer."""


class CassetteAnswer(Config):
    """What a model answered."""

    text: str = ""
    """Its text."""
    tool_calls: list[CassetteCall] = Field(default_factory=list[CassetteCall])
    """Tools it asked for."""
    finish_reason: str = "stop"
    """Why it ended."""
    model: str = ""
    """The model as the answer names it; absent: as it was asked."""
    usage: CassetteUsage = CassetteUsage()
    """Tokens it took."""
    cost_usd: Cost | None = None
    """What it cost; absent: not known."""
    demo: Truth = False
    """Whether it came from a demo model."""


class CassetteError(Config):
    """How a request failed."""

    message: str
    """What was said."""
    status: int | None = None
    """HTTP status; absent: no answer came."""
    provider: str = ""
    """Whose failure it is."""
    retryable: Truth = False
    """Whether asking again could help."""
    retry_after_s: Seconds | None = None
    """How long the provider asked to wait; nobody waits when it is replayed."""
    attempts: CountFromZero = 1
    """Requests that were made."""
    too_long: Truth = False
    """Whether the exchange did not fit the model's window."""
    text: str = ""
    """What a stream had brought before it failed."""


class CassetteReply(Config):
    """What came of one try: an answer or a failure."""

    model: str
    """Who was asked."""
    answer: CassetteAnswer | None = None
    """What came back."""
    error: CassetteError | None = None
    """How it failed instead."""

    @model_validator(mode="after")
    def _one_outcome(self) -> CassetteReply:
        if (self.answer is None) == (self.error is None):
            raise ValueError("a reply has either an `answer:` or an `error:`")
        return self


class CassetteExchange(Config):
    """One request of an agent with everything that came of it."""

    agent: str
    """Who asked."""
    request: CassetteRequest
    """What was asked."""
    replies: list[CassetteReply] = Field(min_length=1)
    """What came of it, in order: first of each try, then of each time it was asked again."""


@dataclass(frozen=True, slots=True)
class CassetteEntry:
    """An exchange, the definitions of its tools, and the line it begins at."""

    exchange: CassetteExchange
    tools: tuple[CassetteTool, ...]
    line: int


_TOOL = TypeAdapter(CassetteTool)
_EXCHANGE = TypeAdapter(CassetteExchange)


def read_cassette(path: Path, source: Source, report: Report) -> list[CassetteEntry]:
    """Return the exchanges of a cassette; every mistake in it goes to the report, at its place in `source`.

    The text follows the rules of the manifest, except that `${...}` in it means itself and that it may be longer.

    Raises:
        OSError: The file cannot be read.
    """
    data = read_file(path, MAX_CASSETTE_BYTES)
    if len(data) > MAX_CASSETTE_BYTES:
        report.add(Place(source), "LL003", f"a cassette has at most {MAX_CASSETTE_BYTES:,} bytes", hint="record less")
        return []
    text = decode(data, source, report, MAX_CASSETTE_BYTES)
    root = None if text is None else parse(text, source, report, _START)
    if root is None:
        return []
    if not isinstance(root, MappingNode) or "exchanges" not in root.entries:
        message = "a cassette is a mapping with `exchanges:`"
        report.add(root.place, "LL313", message, hint=_START)
        return []
    return _Reading(root, report).entries()


def is_cassette(path: Path) -> bool:
    """Whether a file is a cassette of any version, or empty; it is read no further than it takes to tell.

    Raises:
        OSError: The file cannot be read.
    """
    if not path.is_file():
        return False
    if path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        try:
            return _looks_like_one(yaml.parse(file, Loader=_Loader))
        except yaml.YAMLError:
            return False


def _looks_like_one(events: Iterator[Any]) -> bool:
    """Whether a document is a mapping with a `version` and a list of `exchanges`."""
    missing = {"version": yaml.ScalarEvent, "exchanges": yaml.SequenceStartEvent}
    depth, key = 0, None
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                return False
            if depth == 1 and key is None:
                key = event.value if isinstance(event, yaml.ScalarEvent) else ""
            elif depth == 1:
                if key in missing and isinstance(event, missing[key]):
                    del missing[key]
                key = None
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if not missing:
            return True
    return False


class _Reading:
    """Takes the root of a cassette apart."""

    def __init__(self, root: MappingNode, report: Report) -> None:
        self._root = root
        self._report = report
        self._values = Values(None, report)
        self._shapes = Shapes(report, self._values)

    def entries(self) -> list[CassetteEntry]:
        for name, entry in self._root.entries.items():
            if name not in _KEYS and not name.startswith("x-"):
                message = f'unknown key "{name}" in a cassette'
                self._report.add(entry.key.place, "LL201", message, hint=did_you_mean(name, _KEYS))
        if not self._version_is_known():
            return []
        tools = self._tools()
        found: list[CassetteEntry] = []
        for index, (key, item) in enumerate(self._items("exchanges")):
            part = self._shapes.validate(_EXCHANGE, Entry(key, item), ("exchanges", index))
            if part is None:
                continue
            known = [tools[name] for name in part.config.request.tools if name in tools]
            for place, name in enumerate(part.config.request.tools):
                if name not in tools:
                    at = find(item, ("request", "tools", place)).value_place
                    message = f'"{name}" is not among the `tools:` of this cassette'
                    self._report.add(at, "LL313", message, hint=did_you_mean(name, tools))
            found.append(CassetteEntry(part.config, tuple(known), item.place.line))
        return found

    def _version_is_known(self) -> bool:
        entry = self._root.entries.get("version")
        node = None if entry is None else followed(entry.node)
        version = self._values.scalar(node) if isinstance(node, ScalarNode) else None
        if version == FORMAT:
            return True
        place = self._root.place if entry is None else entry.key.place
        message = f"this release reads cassettes of `version: {FORMAT}`"
        self._report.add(place, "LL313", message, hint="record it again with --record")
        return False

    def _tools(self) -> dict[str, CassetteTool]:
        entry = self._root.entries.get("tools")
        if entry is None:
            return {}
        node = followed(entry.node)
        if not isinstance(node, MappingNode):
            self._report.add(entry.key.place, "LL203", '"tools" should be a mapping')
            return {}
        found: dict[str, CassetteTool] = {}
        for name, item in node.entries.items():
            part = self._shapes.validate(_TOOL, item, ("tools", name))
            if part is not None:
                found[name] = part.config
        return found

    def _items(self, name: str) -> list[tuple[ScalarNode, Node]]:
        entry = self._root.entries[name]
        node = followed(entry.node)
        if not isinstance(node, SequenceNode):
            self._report.add(entry.key.place, "LL203", f'"{name}" should be a list')
            return []
        source = self._root.source
        return [
            (ScalarNode(source, item.start, item.end, str(index), plain=False), item)
            for index, item in enumerate(node.items)
        ]
