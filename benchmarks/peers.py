"""Builds the environments of other frameworks and measures them beside llmling and a bare aiohttp client.

    python benchmarks/peers.py [--only agno,crewai] [--repetitions 1] [--scale 1.0] [--build] [--page FILE]

They run with their own defaults, each in its own interpreter, right after the bare client on the same core; every
ratio is to that one. What cannot be built or measured has a dash and a reason. The page is written when all were tried.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from children import interruptible
from environments import PEERS, Unbuilt, built
from measuring import Measured, contender, names_of, provider, reasons, tell
from table import Found, around, markdown, number, put, said

OURS = "llmling"
RAW = "imports,single,burst,tools,chain,stream"


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of every contender; one `beside` the bare client's is divided by it in each repetition."""

    name: str
    metric: str
    unit: str = ""
    beside: bool = True
    best: Callable[[Sequence[float]], float] = min

    def of(self, name: str, repetitions: Sequence[Found]) -> float | None:
        """Return the median; None when nobody has measured it."""
        values: list[float] = []
        for found in repetitions:
            value, base = found.get(f"{name}_.{self.metric}"), found.get(f"raw.{self.metric}")
            if value is not None and (base is not None or not self.beside):
                values.append(value / base if self.beside and base else value)
        return statistics.median(values) if values else None

    def cell(self, name: str, repetitions: Sequence[Found]) -> str:
        value = self.of(name, repetitions)
        return "-" if value is None else f"{number(value)}{' x' if self.beside else ''}"

    def raw(self, repetitions: Sequence[Found]) -> str:
        """Return the bare client's own figure."""
        values = [found[name] for found in repetitions if (name := f"raw.{self.metric}") in found]
        return f"{number(statistics.median(values))}{self.unit}" if values else "-"


COLUMNS = (
    Column("import ms", "imports.ms", beside=False),
    Column("import MiB", "imports.mib", beside=False),
    Column("us per agent", "construct.us", beside=False),
    Column("KiB per agent", "construct.kib", beside=False),
    Column("single turn: CPU", "single.cpu_us", " us"),
    Column("single turn: runs/s", "single.per_s", "/s", best=max),
    Column("500 at 200 ms: wall", "burst.s", " s"),
    Column("tool loop: wall / ideal", "tools.ideal", beside=False),
    Column("tool loops: CPU", "tools.cpu_us", " us"),
    Column("chain of three: chains/s", "chain.per_s", "/s", best=max),
    Column("stream: chunks/s", "stream.per_s", "/s", best=max),
)
CHAIN_GATE = 12.0


def sides(repetitions: Mapping[str, Sequence[Found]]) -> str:
    """Return the table of all contenders: the bare client's own figures, then the others beside them."""
    every = [found for found_of in repetitions.values() for found in found_of]
    lines = [["raw aiohttp, its own figures", *(column.raw(every) for column in COLUMNS)]]
    for name, found_of in repetitions.items():
        label = f"**{name}**" if name == OURS else name.replace("_", "-")
        lines.append([label, *(column.cell(name, found_of) for column in COLUMNS)])
    return markdown(("", *(column.name for column in COLUMNS)), lines)


def best(repetitions: Mapping[str, Sequence[Found]]) -> list[str]:
    """Return the table of llmling beside whichever framework is best at each figure; nothing when there is none."""
    lines: list[tuple[str, ...]] = []
    for column in COLUMNS:
        ours = column.of(OURS, repetitions[OURS])
        theirs = {value: name for name in repetitions if name != OURS and (value := column.of(name, repetitions[name]))}
        if ours is None or not theirs:
            continue
        leader = column.best(list(theirs))
        gate = ""
        if column.metric == "chain.per_s":
            gate = f"{'holds' if ours / leader >= CHAIN_GATE else 'missed'}: >= {CHAIN_GATE:g} x"
        lines.append((column.name, f"{number(ours / leader)} x", theirs[leader].replace("_", "-"), gate))
    head = ("llmling beside the best framework", "ratio", "of", "gate")
    return [markdown(head, lines, ("---", "---:", "---", "---"))] if lines else []


def interpreters(peers: Collection[str], failed: dict[str, str]) -> dict[str, str]:
    """Return the interpreter of every peer whose environment is there or can be built."""
    found: dict[str, str] = {}
    for peer in peers:
        try:
            found[peer] = built(peer)
        except Unbuilt as error:
            failed[peer] = f"its environment was not built: {error}"
            tell(f" {failed[peer]}\n")
    return found


def main(peers: Collection[str], repetitions: int, scale: float, page: Path | None, *, build: bool) -> None:
    if page is not None:
        around(page, "make bench-peers")
    failed: dict[str, str] = {}
    pythons = interpreters(peers, failed)
    if build:
        return
    found: dict[str, list[Found]] = {name: [] for name in (OURS, *peers)}
    with provider() as url:
        for turn in range(repetitions):
            tell(f"repetition {turn + 1} of {repetitions}\n")
            for name in (OURS, *pythons):
                more = {"python": pythons[name]} if name in pythons else {}
                beside = Measured()
                beside.add(contender("raw", url, scale, scenarios=RAW))
                beside.add(contender(f"{name}_", url, scale, **more))
                found[name].append(beside.found)
                failed |= beside.failed
    text = "\n\n".join([said("make bench-peers", repetitions, scale), sides(found), *best(found), *reasons(failed)])
    print(text)
    if page is not None and set(peers) == set(PEERS):
        put(page, "make bench-peers", text)
    elif page is not None:
        tell(f"a part of it: {page} stays as it was\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names_of(PEERS), default=PEERS, help=f"of {', '.join(PEERS)}")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of all counts")
    parser.add_argument("--build", action="store_true", help="build the environments and measure nothing")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    with interruptible():
        main(given.only, given.repetitions, given.scale, given.page, build=given.build)
