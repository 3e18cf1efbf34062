"""`llmling doctor`: what a pool needs on this machine, one line per fact."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from llmling import __version__
from llmling.errors import LLMlingError
from llmling.firing import open_engine
from llmling.manifest import Manifest, check, load
from llmling.manifest.pool import NatsEngineConfig, SqliteEngineConfig
from llmling.manifest.sinks import FileSinkConfig
from llmling.manifest.tools import StdioServerConfig
from llmling.planning import keys_set, plan
from llmling_cli import console

Verdict: TypeAlias = Literal["ok", "note", "bad"]
_COLOURS: dict[Verdict, console.Colour] = {"ok": "green", "note": "yellow", "bad": "red"}
_PACKAGES = ("aiohttp", "litellm", "mcp", "pydantic", "watchfiles")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at."""

    verdict: Verdict
    topic: str
    text: str


def doctor(path: Path | None) -> int:
    """Print what is there and what is missing; return 1 when something a pool needs is missing, else 0."""
    facts = [*_machine(), *(_of_manifest(path) if path else ())]
    for fact in facts:
        console.say(
            console.masked(
                f"{console.paint(f'{fact.verdict:<4}', _COLOURS[fact.verdict])}  {fact.topic:<8}  {fact.text}"
            )
        )
    bad = sum(fact.verdict == "bad" for fact in facts)
    console.say()
    console.say(console.paint(f"{console.count(bad, 'thing')} to mend", "red") if bad else "nothing to mend")
    return 1 if bad else 0


def _machine() -> Iterator[Fact]:
    yield Fact("ok", "llmling", __version__)
    yield Fact("ok", "python", f"{sys.version.split()[0]} at {sys.executable}")
    for name in _PACKAGES:
        try:
            yield Fact("ok", "package", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Fact("bad", "package", f"{name} is not installed: pip install llmling")
    if names := keys_set():
        yield Fact("ok", "keys", f"set: {', '.join(names)}")
    else:
        yield Fact("note", "keys", "none is set: `model: auto` takes a local model server, else the offline demo")


def _of_manifest(path: Path) -> Iterator[Fact]:
    problems = check(path)
    for problem in problems:
        yield Fact("bad" if problem.severity == "error" else "note", "manifest", str(problem))
    if any(problem.severity == "error" for problem in problems):
        return
    manifest = load(path)
    yield Fact("ok", "manifest", f"{path}: valid")
    served, engine = asyncio.run(_engine(manifest))
    planned = plan(manifest)
    for agent in planned.agents:
        if agent.model:
            missing = agent.missing_key
            yield Fact("bad" if missing else "ok", "model", f"{agent.name}: {missing or agent.model}")
    yield from _servers(manifest)
    for warning in planned.warnings:
        if warning.code == "LL502":
            yield Fact("note" if served else "bad", "port", f"{warning}{' (a pool is serving)' if served else ''}")
    yield from _folders(manifest, planned.folders)
    yield engine


def _servers(manifest: Manifest) -> Iterator[Fact]:
    inline = {
        f"{name}, inline": server
        for name, agent in manifest.agents.items()
        for server in agent.mcp_servers
        if not isinstance(server, str)
    }
    for name, server in {**manifest.mcp_servers, **inline}.items():
        if not isinstance(server, StdioServerConfig):
            yield Fact("ok", "mcp", f"{name}: {getattr(server, 'url', server.type)} (not contacted)")
            continue
        # The Python that runs llmling comes first, as it does when the server is started.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        found = shutil.which(server.command, path=server.env.get("PATH", path))
        if found is None:
            yield Fact("bad", "mcp", f"{name}: command {server.command!r} is not on PATH")
        else:
            yield Fact("ok", "mcp", f"{name}: {found}")


def _folders(manifest: Manifest, watched: tuple[str, ...]) -> Iterator[Fact]:
    for path in watched:
        there = (manifest.folder / path).exists() or "*" in path
        yield Fact(
            "ok" if there else "note", "watch", path if there else f"{path} does not exist yet; it is waited for"
        )
    sinks = (sink for node in manifest.nodes.values() for sink in node.sinks)
    fixed = {sink.path.partition("{{")[0] for sink in sinks if isinstance(sink, FileSinkConfig)}
    folders = {manifest.folder / path if path.endswith("/") else (manifest.folder / path).parent for path in fixed}
    if isinstance(manifest.engine, SqliteEngineConfig):
        folders.add((manifest.folder / manifest.engine.path).parent)
    for folder in sorted(folders):
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK)
        yield Fact(
            "ok" if writable else "bad", "folder", f"{folder}" + ("" if writable else f": cannot write to {existing}")
        )


async def _engine(manifest: Manifest) -> tuple[bool, Fact]:
    if isinstance(manifest.engine, NatsEngineConfig):
        place = f"{manifest.engine.name} at {', '.join(manifest.engine.servers)}"
    elif isinstance(manifest.engine, SqliteEngineConfig):
        file = manifest.folder / manifest.engine.path
        if not file.exists():
            return False, Fact("ok", "engine", f"{file}: made at the first start")
        place = str(file)
    else:
        return False, Fact("note", "engine", f"{manifest.engine.type}: events are gone with the process")
    try:
        async with open_engine(manifest) as engine:
            counts = await engine.counts()
            served = engine.serving
    except LLMlingError as error:
        return False, Fact("bad", "engine", str(error))
    events = ", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "no events"
    return served, Fact("ok", "engine", f"{place}: {events}{', being served' if served else ''}")
