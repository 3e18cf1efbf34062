"""Builds the environments of other frameworks and measures them beside llmling and a bare aiohttp client.

    python benchmarks/peers.py [--only agno,crewai] [--scale 1.0] [--page docs/performance.md]

One environment for each file in `requirements/`, under `.venv/peers`; one that cannot be built is left out. They run
with their own defaults, one after the other, each in its own interpreter on the same core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from measuring import contender, provider
from table import Found, put, said

HERE = Path(__file__).parent
PLACE = HERE.parent / ".venv" / "peers"
PEERS = tuple(path.stem for path in sorted((HERE / "requirements").glob("*.txt")))
COLUMNS = {
    "CPU per run": "single.cpu_us",
    "runs/s": "single.per_s",
    "CPU of a tool loop": "tools.cpu_us",
    "chains/s": "chain.per_s",
    "chunks/s": "stream.per_s",
}
AGENT = {"us per agent": "construct.us", "KiB per agent": "construct.kib"}


def built(peer: str) -> str | None:
    """Return the interpreter of a peer's environment, made when it is not there; None when it cannot be."""
    python = PLACE / peer / "bin" / "python"
    wanted = (HERE / "requirements" / f"{peer}.txt").read_text()
    made = PLACE / peer / "made"
    if made.exists() and made.read_text() == wanted:
        return str(python)
    print(f"building the environment of {peer} ...", file=sys.stderr)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(PLACE / peer)],
        [*install, "--requirement", str(HERE / "requirements" / f"{peer}.txt")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{peer} is left out: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
    made.write_text(wanted)
    return str(python)


def line(name: str, label: str, found: Found, raw: Found) -> str:
    """Return a row: what `x raw` is about is divided by the bare client's number of the same run."""
    cells = [label]
    for metric in COLUMNS.values():
        value, base = found.get(f"{name}.{metric}"), raw.get(f"raw.{metric}")
        cells.append("" if value is None or base is None else f"{value / base:.3g} x")
    cells += ["" if (value := found.get(f"{name}.{metric}")) is None else f"{value:.3g}" for metric in AGENT.values()]
    return f"| {' | '.join(cells)} |"


def main(peers: list[str], scale: float, page: Path | None) -> None:
    interpreters = {peer: python for peer in peers if (python := built(peer)) is not None}
    head = ["beside raw aiohttp", *COLUMNS, *AGENT]
    rows = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    with provider() as url:
        raw = contender("raw", url, scale)
        rows.append(line("raw", "raw aiohttp", raw, raw))
        rows.append(line("llmling_", "**llmling**", contender("llmling_", url, scale), raw))
        for peer, python in interpreters.items():
            rows.append(line(f"{peer}_", peer, contender(f"{peer}_", url, scale, python=python), raw))
    text = "\n".join([said("make bench-peers", 1), "", *rows])
    print(text)
    if page is not None:
        put(page, "make bench-peers", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PEERS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    main(given.only.split(","), given.scale, given.page)
