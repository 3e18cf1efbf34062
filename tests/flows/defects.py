"""Rows of the table in test_predecessor.py: a defect of the predecessor with what proves that it is not here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Absent:
    """The feature does not exist here: a manifest in which every word behind a `⟦` is refused by name."""

    manifest: str


@dataclass(frozen=True)
class Defect:
    """What the predecessor did, in one sentence, and the proofs that this project does not."""

    text: str
    proofs: tuple[str | Absent, ...]


def defect(text: str, *proofs: str | Absent) -> Defect:
    """Return a row."""
    return Defect(text, proofs)


def agent(keys: str) -> Absent:
    """Return a manifest with keys of an agent that are refused; `b` is another agent."""
    return Absent(f"agents:\n  a: {{model: demo, {keys}}}\n  b: {{model: demo}}\n")


def trigger(keys: str) -> Absent:
    """Return a manifest with keys of a trigger that are refused."""
    return agent(f"triggers: [{{{keys}}}]")


def connection(keys: str) -> Absent:
    """Return a manifest with keys of a connection that are refused."""
    return agent(f"connections: [{{to: b, {keys}}}]")


def root(keys: str) -> Absent:
    """Return a manifest with keys of the root that are refused."""
    return Absent(f"{keys}\nagents:\n  a: {{model: demo}}\n")
