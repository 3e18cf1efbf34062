"""What would run for ever: agents that trigger themselves through files, and cycles of connections."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from llmling.manifest.agents import AgentConfig
from llmling.manifest.draft import Draft
from llmling.manifest.patterns import Tokens, Wild, fixed, of_glob, of_template, overlap, sample
from llmling.manifest.shape import Part
from llmling.manifest.sinks import FileSinkConfig
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import AgentToolConfig
from llmling.manifest.triggers import FileTriggerConfig

_TEMPORARY = ("~", ".swp", ".tmp", ".part", ".crdownload")


def cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return cycles of a graph, each as its nodes in order; no node is told twice."""
    found: list[list[str]] = []
    blamed: set[str] = set()
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        depth: dict[str, int] = {}
        todo: list[tuple[str, bool]] = [(start, False)]
        while todo:
            name, leaving = todo.pop()
            if leaving:
                path.pop()
                del depth[name]
                done.add(name)
            elif name in depth:
                cycle = path[depth[name] :]
                if blamed.isdisjoint(cycle):
                    blamed.update(cycle)
                    found.append(cycle)
            elif name not in done:
                depth[name] = len(path)
                path.append(name)
                todo.append((name, True))
                todo.extend((other, False) for other in reversed(list(graph.get(name, ()))))
    return found


def check_connections(draft: Draft) -> None:
    """Refuse cycles in which every connection is always taken: each event would die at the hop limit.

    Whoever writes `limits.max_hops` means it, and gets a warning.
    """
    edges: dict[str, dict[str, int]] = {}
    for name, part in draft.nodes():
        edges[name] = {}
        for index, connection in enumerate(part.config.connections):
            if connection.when is None and connection.transform is None:
                edges[name].setdefault(connection.to, index)
    parts = dict(draft.nodes())
    for cycle in cycles(edges):
        last = cycle[-1]
        draft.problem(
            parts[last],
            ("connections", edges[last][cycle[0]], "to"),
            "LL402",
            f"connections form a cycle without a condition: {' -> '.join([*cycle, cycle[0]])}",
            hint=f"every event would end dead at hop {draft.max_hops}; add `when:` to one of them, or write "
            "`limits: {max_hops: N}` if that is meant",
            severity="warning" if draft.hops_chosen else "error",
        )


@dataclass(slots=True)
class _Output:
    name: str
    part: Part
    index: int
    tokens: Tokens
    start: str


@dataclass(slots=True)
class _Watch:
    name: str
    trigger: str
    config: FileTriggerConfig
    tokens: Tokens
    start: str


def check_files(draft: Draft) -> None:
    """Refuse a file sink that writes what a file trigger before it would take up again."""
    folder = str(draft.folder)
    outputs: list[_Output] = []
    watches: list[_Watch] = []
    graph: dict[str, set[str]] = {}
    for name, part in draft.nodes():
        graph[name] = follows(part.config)
        for index, sink in enumerate(part.config.sinks):
            if isinstance(sink, FileSinkConfig):
                tokens = of_template(sink.path, folder)
                outputs.append(_Output(name, part, index, tokens, fixed(tokens)))
        for index, trigger in enumerate(part.config.triggers):
            if isinstance(trigger, FileTriggerConfig) and trigger.enabled and set(trigger.events) != {"deleted"}:
                label = draft.title(part, index)
                for path in trigger.paths:
                    tokens = of_glob(os.path.expanduser(path), folder)  # noqa: PTH111
                    watches.append(_Watch(name, label, trigger, tokens, fixed(tokens)))
    starts: dict[str, list[_Watch]] = {}
    for watch in watches:
        starts.setdefault(watch.start, []).append(watch)
    order = sorted(starts)
    pairs: list[tuple[_Output, _Watch]] = []
    for output in outputs:
        pairs += [(output, watch) for watch in _near(output.start, starts, order) if _feeds(output, watch, folder)]
    for output, watch in pairs:
        graph[output.name].add(watch.name)
    reached: dict[str, set[str]] = {}
    told: set[int] = set()
    for output, watch in pairs:
        if watch.name not in reached:
            reached[watch.name] = reachable(graph, watch.name)
        if output.name in reached[watch.name] and id(output) not in told:
            told.add(id(output))
            draft.problem(
                output.part,
                ("sinks", output.index, "path"),
                "LL401",
                f"this file would trigger {watch.trigger} again, which leads back here",
                hint=f"write into another folder, or add a glob to `ignore:` of {watch.trigger}",
            )


def follows(config: AgentConfig | TeamConfig) -> set[str]:
    """Return the nodes that work of this one may reach next."""
    names = {connection.to for connection in config.connections}
    if isinstance(config, TeamConfig):
        return names | set(config.names)
    return names | {tool.name for tool in config.tools if isinstance(tool, AgentToolConfig)}


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return every node that work of `start` may reach, itself included."""
    found = {start}
    todo = [start]
    while todo:
        for name in graph.get(todo.pop(), ()):
            if name not in found:
                found.add(name)
                todo.append(name)
    return found


def _near(start: str, starts: Mapping[str, list[_Watch]], order: list[str]) -> Iterator[_Watch]:
    """Yield the watches whose fixed text begins with `start`, or the other way round."""
    for end in range(len(start)):
        yield from starts.get(start[:end], ())
    for index in range(bisect.bisect_left(order, start), len(order)):
        if not order[index].startswith(start):
            break
        yield from starts[order[index]]


def _feeds(output: _Output, watch: _Watch, folder: str) -> bool:
    whole = all(isinstance(token, str) for token in watch.tokens)
    inside: Tokens = (*watch.tokens, "/", Wild.PATH)
    if not overlap(output.tokens, watch.tokens) and not (whole and overlap(output.tokens, inside)):
        return False
    if watch.config.extensions is not None:
        lower = tuple(token.lower() if isinstance(token, str) else token for token in output.tokens)
        endings = [f".{ending.lstrip('.').lower()}" for ending in watch.config.extensions]
        if not any(overlap(lower, (Wild.PATH, *ending)) for ending in endings):
            return False
    path = sample(output.tokens)
    base = watch.start if whole else watch.start.rpartition("/")[0]
    below = path.removeprefix(base).strip("/").split("/") if path.startswith(base) else [path.rpartition("/")[2]]
    if any(part.startswith(".") for part in below) or below[-1].startswith("~") or below[-1].endswith(_TEMPORARY):
        return False
    relative = os.path.relpath(path, folder).split("/")
    return not any(_ignored(relative, of_glob(pattern.rstrip("/"), "/")) for pattern in watch.config.ignore)


def _ignored(relative: list[str], pattern: Tokens) -> bool:
    """Say whether the file or a folder on its way is ignored, by its name or its path from the manifest's folder."""
    for index, name in enumerate(relative):
        if overlap(("/", *name), pattern) or overlap(("/", *"/".join(relative[: index + 1])), pattern):
            return True
    return False
